//! Writes settings.

use std::io;
use std::path::Path;

use super::plan::Write;
use crate::report::{Problem, chain};

/// Why a setting could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {path} to {value}")]
pub(super) struct Error {
    path: String,
    value: String,
    source: io::Error,
}

/// Tries every write; what worked and what did not.
pub(super) fn apply(root: &Path, steps: &[Write]) -> (Vec<String>, Vec<Problem>) {
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    for step in steps {
        match write(root, &step.path, step.to) {
            Ok(()) => changes.push(step.to_string()),
            Err(error) => problems.push(Problem::new(
                chain(&error),
                "the daemon needs CAP_NET_ADMIN and a writable /proc/sys/net (containers often mount it read-only)",
            )),
        }
    }
    (changes, problems)
}

pub(super) fn write(root: &Path, path: &str, value: &str) -> Result<(), Error> {
    std::fs::write(root.join(path), value).map_err(|source| Error {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}
