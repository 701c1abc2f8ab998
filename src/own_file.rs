//! Files in the daemon's own directories.
//!
//! Root reads and writes there too (`bastionctl plan` and `down` without a daemon), while the daemon's account may put
//! there what it likes. So the directory is opened once, a file's name is looked up in it without following a link,
//! and a file is written under a new random name before it gets its own (open(2), `O_NOFOLLOW`, `O_EXCL`).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, UnlinkatFlags, fchown, linkat, unlinkat};

use crate::regular_file::{self, Content};

/// The ending of a file that is not finished. Its name begins with a dot, the file's name and 16 random hex digits.
const UNFINISHED: &str = ".new";
/// How many random names are tried. One is enough, unless somebody guesses 64 random bits.
const TRIES: usize = 4;

/// Reads the file, of at most `max` bytes. A symbolic link is refused.
pub(crate) fn read(path: &Path, max: u64) -> Result<Content, regular_file::Error> {
    let (directory, name) = open_directory(path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = openat(&directory, name, flags, Mode::empty()).map_err(io::Error::from)?;
    regular_file::read_opened(File::from(file), max)
}

/// Replaces the file atomically, by renaming a finished one. Only the owner can read it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (directory, name) = open_directory(path)?;
    with_unfinished(&directory, name, bytes, |_, unfinished| Ok(renameat(&directory, unfinished, &directory, name)?))
}

/// Makes the file, completely or not at all, and never over another one. Only the owner can read it. It is on the disk
/// when this returns.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_for(path, bytes, false, Readers::None)
}

/// Who besides the owner can read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Nobody.
    None,
    /// The members of the directory's own group.
    DirectoryGroup,
}

/// Makes the file as [`create`] does, or replaces it as [`replace`] does, for these readers. It is on the disk when this
/// returns.
pub(crate) fn write_for(path: &Path, bytes: &[u8], may_replace: bool, readers: Readers) -> io::Result<()> {
    let (directory, name) = open_directory(path)?;
    with_unfinished(&directory, name, bytes, |file, unfinished| {
        if readers == Readers::DirectoryGroup {
            let group = fstat(&directory)?.st_gid;
            fchown(file, None, Some(Gid::from_raw(group)))?;
            fchmod(file, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP)?;
        }
        file.sync_all()?;
        if may_replace {
            return Ok(renameat(&directory, unfinished, &directory, name)?);
        }
        linkat(&directory, unfinished, &directory, name, AtFlags::empty())?;
        Ok(unlinkat(&directory, unfinished, UnlinkatFlags::NoRemoveDir)?)
    })
}

/// Opens a file for writing, to lock it. It is made if it is missing; a symbolic link is refused.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let (directory, name) = open_directory(path)?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(openat(&directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
}

/// Removes what earlier writers left unfinished in a directory: they were killed, or the machine stopped.
pub(crate) fn remove_unfinished(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.as_bytes().starts_with(b".") && name.as_bytes().ends_with(UNFINISHED.as_bytes()) {
            // A file that stays does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The directory that a path is in, and the name in it.
fn open_directory(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    Ok((directory, name))
}

/// Writes a file under a random name, and lets `finish` give it its own. If that fails, nothing stays.
fn with_unfinished(
    directory: &OwnedFd,
    name: &OsStr,
    bytes: &[u8],
    finish: impl FnOnce(&File, &OsStr) -> io::Result<()>,
) -> io::Result<()> {
    let (mut file, unfinished) = create_unfinished(directory, name)?;
    let done = file.write_all(bytes).and_then(|()| finish(&file, &unfinished));
    if done.is_err() {
        // The error that matters is the one that is returned.
        let _ = unlinkat(directory, unfinished.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
    done
}

fn create_unfinished(directory: &OwnedFd, name: &OsStr) -> io::Result<(File, OsString)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    for _ in 0..TRIES {
        let mut unfinished = OsString::from(".");
        unfinished.push(name);
        unfinished.push(format!(".{:016x}{UNFINISHED}", fastrand::u64(..)));
        match openat(directory, unfinished.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => return Ok((file.into(), unfinished)),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        for text in ["a longer text", "short"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(&*read(&path, 100).unwrap().bytes, text.as_bytes());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(directory.path()), ["state.json"]);
    }

    #[test]
    fn no_link_is_followed_to_a_file_of_somebody_else() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        std::fs::write(&target, "precious").unwrap();
        // The names that an earlier version wrote to, and the file itself.
        for name in ["state.json", "state.new", "lock"] {
            symlink(&target, directory.path().join(name)).unwrap();
        }
        let path = directory.path().join("state.json");
        assert!(read(&path, 100).is_err());
        assert!(open_lock(&directory.path().join("lock")).is_err());
        create(&path, b"x").unwrap_err();
        replace(&path, b"ours").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
        assert_eq!(&*read(&path, 100).unwrap().bytes, b"ours", "the link was replaced");
        assert_eq!(names(directory.path()), ["lock", "state.json", "state.new", "target"]);
    }

    #[test]
    fn a_file_is_made_once_and_never_over_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        create(&path, b"first").unwrap();
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(&*read(&path, 100).unwrap().bytes, b"first");
        assert_eq!(names(directory.path()), ["key"], "nothing unfinished stays");
        create(&directory.path().join("no/such/place"), b"x").unwrap_err();
    }

    #[test]
    fn a_file_for_the_directorys_group_has_that_group_from_the_beginning() {
        use std::os::unix::fs::MetadataExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peer.toml");
        write_for(&path, b"first", false, Readers::DirectoryGroup).unwrap();
        let made = std::fs::metadata(&path).unwrap();
        let group = std::fs::metadata(directory.path()).unwrap().gid();
        assert_eq!((made.mode() & 0o777, made.gid()), (0o640, group));
        let again = write_for(&path, b"second", false, Readers::DirectoryGroup).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        write_for(&path, b"second", true, Readers::DirectoryGroup).unwrap();
        assert_eq!(&*read(&path, 100).unwrap().bytes, b"second");
        assert_eq!(names(directory.path()), ["peer.toml"]);
    }

    #[test]
    fn a_pipe_is_neither_waited_for_nor_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert!(matches!(read(&path, 100), Err(regular_file::Error::NotRegular { .. })));
    }

    #[test]
    fn what_killed_writers_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for name in [".state.json.0123456789abcdef.new", "state.json", ".hidden", "other.new"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        remove_unfinished(directory.path());
        assert_eq!(names(directory.path()), [".hidden", "other.new", "state.json"]);
        remove_unfinished(&directory.path().join("missing"));
    }
}
