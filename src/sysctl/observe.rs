//! Reads the settings that are wanted.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::model::Setting;

/// A setting that cannot be read, though it is there.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the setting {path}")]
pub(super) struct Error {
    path: String,
    source: io::Error,
}

/// Values by path; a setting that does not exist (its interface just went) is in neither list.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub values: BTreeMap<String, String>,
    pub problems: Vec<Error>,
}

pub(super) fn observe(root: &Path, desired: &[Setting]) -> Observed {
    let mut observed = Observed::default();
    for Setting { path, .. } in desired {
        match std::fs::read_to_string(root.join(path)) {
            Ok(text) => {
                observed.values.insert(path.clone(), text.trim().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => observed.problems.push(Error { path: path.clone(), source }),
        }
    }
    observed
}
