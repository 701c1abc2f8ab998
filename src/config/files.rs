//! Reads the configuration file, the peers' files beside it, and the files that they name.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::regular_file;
pub(crate) use crate::regular_file::Error as ReadError;

/// The largest file that is read, in bytes. 10 000 forwards with all keys take 1.5 MB, 10 000 peers 2 MB, and access
/// lists of the largest supported size, one line per entry, 5 MB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The directory of the daemon's files. The daemon can read it.
const CONFIG_DIRECTORY: &str = "/etc/bastiond";

/// The command that makes a file readable for the daemon and for no other user.
pub(super) fn permission_fix(path: &Path) -> String {
    format!("chgrp bastiond {path} && chmod 640 {path}", path = path.display())
}

/// A file's content, which may hold secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileContent {
    /// The text.
    pub(super) text: Zeroizing<String>,
    /// Whether every user of this server may read the file.
    pub(super) world_readable: bool,
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileContent").field("world_readable", &self.world_readable).finish_non_exhaustive()
    }
}

/// How to let the daemon, which is not root, read a file; empty if permissions are not the cause.
pub(super) fn remedy(error: &ReadError, path: &Path) -> String {
    if error.kind() != Some(io::ErrorKind::PermissionDenied) {
        return String::new();
    }
    let remedy = if path.starts_with(CONFIG_DIRECTORY) {
        format!("`{}`", permission_fix(path))
    } else {
        format!("`install -g bastiond -m 0640 {} {CONFIG_DIRECTORY}/` and name the copy", path.display())
    };
    format!("; let the user bastiond read it: {remedy}")
}

/// The source of the configuration's files.
pub(super) trait Files {
    /// Reads the file at `path`.
    fn read(&self, path: &Path) -> Result<FileContent, ReadError>;
    /// The files of `peers.d`, sorted by name; empty if the directory does not exist.
    fn peers(&self) -> io::Result<Vec<PathBuf>>;
}

/// No files: for a configuration that consists of one text.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> Result<FileContent, ReadError> {
        Err(io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32).into())
    }

    fn peers(&self) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

/// The file system.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    peers: PathBuf,
}

impl Disk {
    /// The peers' files are in `peers.d`, in the directory of the configuration file.
    pub(super) fn beside(configuration: &Path) -> Self {
        Self { peers: configuration.parent().unwrap_or_else(|| Path::new("")).join("peers.d") }
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<FileContent, ReadError> {
        let file = regular_file::read(path, MAX_BYTES)?;
        Ok(FileContent { text: regular_file::text(&file.bytes)?, world_readable: file.world_readable })
    }

    fn peers(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(&self.peers) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            // Editors leave files like `alice.toml~` and `.alice.toml.swp` behind.
            if path.extension().is_some_and(|extension| extension == "toml") && !hidden {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}
