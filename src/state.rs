//! JSON files in the runtime and state directories. They are replaced atomically, and any of them may be missing or
//! changed by somebody: what is read is a typed value, which the reader checks against what the daemon could have
//! written.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::own_file;

/// The largest file that is read, in bytes: the rules of the largest access lists take 20 MB.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Why a file cannot be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
}

/// The file's content; `None` if the file is missing, unreadable or no such JSON, which is treated like a missing file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let content = own_file::read(path, MAX_BYTES).ok()?;
    serde_json::from_slice(&content.bytes).ok()
}

/// Replaces the file atomically, by renaming a finished one. Only the owner can read it.
pub(crate) fn write_json<T: Serialize>(path: &Path, content: &T) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(content).map_err(|error| failed(error.into()))?;
    own_file::replace(path, &bytes).map_err(failed)
}

/// Removes the file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Remove { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
