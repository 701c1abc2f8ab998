//! Writes settings.

use std::io;
use std::path::Path;

use super::model::Need;
use super::plan::Write;
use crate::error::chain;
use crate::outcome::Problem;

/// A setting that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {path} to {value}")]
pub(super) struct Error {
    path: String,
    value: String,
    source: io::Error,
}

impl Error {
    /// Whether this process may not write the setting.
    fn is_denied(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }
}

/// The result of the writes.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub changes: Vec<String>,
    pub problems: Vec<Problem>,
    /// Whether a setting that the gateway must have was not written.
    pub failed: bool,
    /// How many settings this process may not write, and need not.
    pub denied: usize,
}

/// Tries every write.
pub(super) fn apply(root: &Path, steps: &[Write]) -> Applied {
    let mut applied = Applied::default();
    for step in steps {
        match write(root, &step.path, &step.to) {
            Ok(()) => applied.changes.push(step.to_string()),
            Err(error) if step.need != Need::Must && error.is_denied() => applied.denied += 1,
            Err(error) => {
                applied.failed |= step.need == Need::Must;
                applied.problems.push(Problem::new(
                    "setting-refused",
                    chain(&error),
                    "the daemon needs CAP_NET_ADMIN and a writable /proc/sys/net (containers often mount it read-only)",
                ));
            }
        }
    }
    applied
}

pub(super) fn write(root: &Path, path: &str, value: &str) -> Result<(), Error> {
    std::fs::write(root.join(path), value).map_err(|source| Error {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}
