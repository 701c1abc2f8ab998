//! Writes settings.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

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

/// Writes a setting below `root`. A path that leads out of it is refused.
pub(super) fn write(root: &Path, path: &str, value: &str) -> Result<(), Error> {
    let failed = |source| Error { path: path.to_owned(), value: value.to_owned(), source };
    open_setting(root, path).and_then(|mut file| file.write_all(value.as_bytes())).map_err(failed)
}

/// Directory by directory, without links and without a step upwards. openat2(2) would do it in one call, but systemd
/// answers that it does not exist where a unit has `RestrictSUIDSGID=`.
fn open_setting(root: &Path, path: &str) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut directory = open(root, flags, Mode::empty())?;
    let mut steps: Vec<&str> = path.split('/').collect();
    let name = steps.pop().unwrap_or_default();
    for step in steps {
        directory = openat(&directory, plain(step)?, flags | OFlag::O_NOFOLLOW, Mode::empty())?;
    }
    let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(&directory, plain(name)?, flags, Mode::empty())?.into())
}

/// A name that leads nowhere but to an entry of the directory.
fn plain(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(name) }
}
