//! The interface's private key, in a file of its own that is made at the first start.

use std::io;
use std::path::{Path, PathBuf};

use crate::outcome::ComponentError;
use crate::{own_file, regular_file};
use bastiond_tunnel::key::{InvalidKey, PrivateKey};
use zeroize::Zeroizing;

/// The largest file that is read, in bytes. A key takes 45.
const MAX_BYTES: u64 = 4096;

/// Why there is no private key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file cannot be read.
    #[error("cannot read the private key {}", path.display())]
    Read {
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Its content is not a private key.
    #[error("{} holds no private key", path.display())]
    Invalid {
        path: PathBuf,
        /// The reason.
        source: InvalidKey,
    },
    /// There is no file, and none can be made.
    #[error("cannot make a private key in {}", path.display())]
    Make {
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "key-unreadable",
            Self::Invalid { .. } => "key-invalid",
            Self::Make { .. } => "key-not-written",
        }
    }

    fn advice(&self) -> String {
        let advice = match self {
            Self::Read { .. } => {
                "the daemon has to be allowed to read it, as user bastiond: in /var/lib/bastiond it is the owner, mode \
                 0600; in /etc/bastiond the file is root:bastiond, mode 0640"
            }
            Self::Invalid { .. } => "put a key there (wg genkey), or delete the file to have one made",
            Self::Make { .. } => {
                "its directory has to exist and to be writable, or name another wireguard.private_key_file"
            }
        };
        advice.to_owned()
    }
}

/// Reads the key; `None` if there is no file.
pub(super) fn read(path: &Path) -> Result<Option<PrivateKey>, Error> {
    match regular_file::read_text(path, MAX_BYTES) {
        Ok(text) => {
            let key = text.trim().parse().map_err(|source| Error::Invalid { path: path.to_owned(), source })?;
            Ok(Some(key))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(Error::Read { path: path.to_owned(), source: error.into_io() }),
    }
}

/// Makes a new key in the file, which must not exist.
pub(super) fn make(path: &Path) -> Result<PrivateKey, Error> {
    let key = PrivateKey::generate();
    write(path, &key).map_err(|source| Error::Make { path: path.to_owned(), source })?;
    Ok(key)
}

/// Writes the file completely or not at all, as an incomplete key would lock every peer out; and never over another
/// file.
fn write(path: &Path, key: &PrivateKey) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", *key.to_base64()));
    own_file::create(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wireguard.key");
        assert_eq!(read(&path).unwrap(), None);
        let made = make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(make(&path).is_err(), "another key is never overwritten");
        assert_eq!(read(&path).unwrap(), Some(made));
        let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["wireguard.key"], "no temporary file stays");
    }

    #[test]
    fn a_file_that_is_not_a_key_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wireguard.key");
        std::fs::write(&path, "my diary").unwrap();
        assert!(matches!(read(&path), Err(Error::Invalid { .. })));
        assert!(matches!(make(&path), Err(Error::Make { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my diary");
        assert!(matches!(read(directory.path()), Err(Error::Read { .. })));
        assert!(matches!(make(&directory.path().join("no/such/place")), Err(Error::Make { .. })));
    }
}
