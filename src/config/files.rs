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

/// What is in `peers.d`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerFiles {
    /// The files of peers, sorted by name.
    pub(super) used: Vec<PathBuf>,
    /// The names of other entries that somebody may take for a peer's file, sorted, each with the reason why it is
    /// none.
    pub(super) ignored: Vec<(String, String)>,
}

/// The source of the configuration's files.
pub(super) trait Files {
    /// Reads the file at `path`.
    fn read(&self, path: &Path) -> Result<FileContent, ReadError>;
    /// What is in `peers.d`; nothing if the directory does not exist.
    fn peers(&self) -> io::Result<PeerFiles>;
}

/// No files: for a configuration that consists of one text.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> Result<FileContent, ReadError> {
        Err(io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32).into())
    }

    fn peers(&self) -> io::Result<PeerFiles> {
        Ok(PeerFiles::default())
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

    /// The directory of the peers' files.
    pub(super) fn peers_directory(&self) -> &Path {
        &self.peers
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<FileContent, ReadError> {
        let file = regular_file::read(path, MAX_BYTES)?;
        Ok(FileContent { text: regular_file::text(&file.bytes)?, world_readable: file.world_readable })
    }

    fn peers(&self) -> io::Result<PeerFiles> {
        let entries = match std::fs::read_dir(&self.peers) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(PeerFiles::default()),
            Err(error) => return Err(error),
        };
        let mut found = PeerFiles::default();
        for entry in entries {
            let path = entry?.path();
            match why_no_peer(&path) {
                None => found.used.push(path),
                Some("") => {}
                Some(reason) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    found.ignored.push((name, reason.to_owned()));
                }
            }
        }
        found.used.sort();
        found.ignored.sort();
        Ok(found)
    }
}

/// Why an entry of `peers.d` is no file of a peer; empty if nobody would take it for one; `None` if it is one.
fn why_no_peer(path: &Path) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default();
    let is_hidden = name.starts_with('.');
    // Editors leave files like `alice.toml~` and `.alice.toml.swp` behind, and package managers `alice.toml.dpkg-old`.
    let is_leftover = name.contains(".toml") && extension != "toml";
    match std::fs::metadata(path) {
        // What `bastionctl peer` has not finished writing.
        _ if is_hidden && extension == "new" => Some(""),
        _ if is_leftover || (is_hidden && extension == "toml") => Some("it looks like a backup or an editor's file"),
        _ if is_hidden => Some(""),
        // Keys, which the peers' files name.
        _ if extension == "key" || extension == "psk" => Some(""),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("it is a link that leads nowhere"),
        Ok(metadata) if metadata.is_dir() => Some("it is a directory"),
        _ if extension == "toml" => None,
        _ => Some("its name does not end with .toml"),
    }
}
