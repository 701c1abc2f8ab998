//! The directory `peers.d`: one writer at a time, and every file is written as a whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use zeroize::Zeroizing;

use crate::config::PeerEdits;
use crate::own_file::{self, Readers};
use crate::regular_file;

/// The largest file of a peer that is read, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It cannot be opened, made or locked.
    #[error("cannot use the directory {}{}", path.display(), as_root(source))]
    Directory { path: PathBuf, source: io::Error },
    /// A file in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: regular_file::Error },
    /// A file in it cannot be written.
    #[error("cannot write {}{}", path.display(), as_root(source))]
    Write { path: PathBuf, source: io::Error },
    /// A file in it cannot be removed.
    #[error("cannot remove {}{}", path.display(), as_root(source))]
    Remove { path: PathBuf, source: io::Error },
}

fn as_root(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { " (only root may change peers: use sudo)" } else { "" }
}

/// The directory, locked until this is dropped. Other commands that change peers wait.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    lock: Flock<File>,
}

impl Store {
    /// Locks the directory, and makes it if it is missing, with the group of the directory that it is in.
    pub(super) fn lock(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Directory { path: path.to_owned(), source };
        match std::fs::DirBuilder::new().mode(0o750).create(path) {
            Ok(()) => {
                let parent = path.parent().unwrap_or(Path::new("."));
                let group = std::fs::metadata(parent).map_err(failed)?.gid();
                chown(path, None, Some(group)).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let directory = File::open(path).map_err(failed)?;
        let lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, error)| failed(error.into()))?;
        Ok(Self { path: path.to_owned(), lock })
    }

    /// A file's path.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The texts that the edits replace: the edits that undo them.
    pub(super) fn former(edits: &PeerEdits) -> Result<PeerEdits, Error> {
        let mut former = PeerEdits::new();
        for path in edits.keys() {
            former.insert(path.clone(), Self::read(path)?);
        }
        Ok(former)
    }

    /// A file's text; `None` if there is no such file.
    pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
        match regular_file::read_text(path, MAX_BYTES) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(source) => Err(Error::Read { path: path.to_owned(), source }),
        }
    }

    /// Writes the edits. If one fails, those before it are undone, as far as that is possible.
    pub(super) fn write(&self, edits: &PeerEdits) -> Result<(), Error> {
        let former = Self::former(edits)?;
        for (index, (path, text)) in edits.iter().enumerate() {
            if let Err(error) = Self::write_one(path, text.as_ref()) {
                for (path, text) in former.iter().take(index) {
                    // The error that matters is the one that is returned.
                    let _ = Self::write_one(path, text.as_ref());
                }
                return Err(error);
            }
        }
        // The names are on the disk too.
        self.lock.sync_all().map_err(|source| Error::Directory { path: self.path.clone(), source })
    }

    fn write_one(path: &Path, text: Option<&Zeroizing<String>>) -> Result<(), Error> {
        let Some(text) = text else {
            return match std::fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(Error::Remove { path: path.to_owned(), source })
                }
                _ => Ok(()),
            };
        };
        let written = own_file::write_for(path, text.as_bytes(), true, Readers::DirectoryGroup);
        written.map_err(|source| Error::Write { path: path.to_owned(), source })
    }

    /// Gives a file another name, in one step.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let failed = |source| Error::Write { path: to.to_owned(), source };
        std::fs::rename(from, to).and_then(|()| self.lock.sync_all()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_are_written_for_the_group_and_undone_together() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.d");
        let store = Store::lock(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o750);
        let text = |text: &str| Some(Zeroizing::new(text.to_owned()));
        let (one, two) = (store.file("one.toml"), store.file("two.toml"));
        store.write(&PeerEdits::from([(one.clone(), text("1")), (two.clone(), text("2"))])).unwrap();
        assert_eq!(mode(&one), 0o640);
        // The second file cannot be written, so the first one is as it was.
        let edits = PeerEdits::from([(one.clone(), text("new")), (store.file("zzz/no.toml"), text("x"))]);
        store.write(&edits).unwrap_err();
        assert_eq!(Store::read(&one).unwrap().unwrap().as_str(), "1");
        store.write(&PeerEdits::from([(one.clone(), None)])).unwrap();
        assert_eq!(Store::read(&one).unwrap(), None);
        assert!(two.exists());
    }

    #[test]
    fn a_second_writer_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers.d");
        let first = Store::lock(&path).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let store = Store::lock(&path).unwrap();
            sender.send(Store::read(&store.file("ada.toml")).unwrap()).unwrap();
        });
        assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        first.write(&PeerEdits::from([(first.file("ada.toml"), Some(Zeroizing::new("x".to_owned())))])).unwrap();
        drop(first);
        assert_eq!(receiver.recv().unwrap().unwrap().as_str(), "x");
        second.join().unwrap();
    }
}
