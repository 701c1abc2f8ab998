//! Small JSON files in the runtime and state directories: written whole or not at all, and never trusted to be there.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The file's content; `None` when it is missing, unreadable or not what was written: then nothing is remembered.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = std::fs::read(path).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Replaces the file by renaming a finished one over it; readable by its owner only.
pub(crate) fn write_json<T: Serialize>(path: &Path, content: &T) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let bytes = serde_json::to_vec(content).map_err(|error| failed(error.into()))?;
    let unfinished = path.with_extension("new");
    let write = || {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&bytes)?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(failed)
}

/// Removes the file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Remove { path: path.to_owned(), source }),
        _ => Ok(()),
    }
}
