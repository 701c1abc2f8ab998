//! Reads the configuration file, the peers' files beside it, and the files that they name.

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

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
#[derive(Debug)]
pub(super) struct FileContent {
    /// The text.
    pub(super) text: Zeroizing<String>,
    /// Whether every user of this server may read the file.
    pub(super) world_readable: bool,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system reports an error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is larger than 16 MiB.
    #[error("the file has more than {MAX_BYTES} bytes")]
    TooLarge,
}

impl ReadError {
    /// How to let the daemon, which is not root, read the file; empty if permissions are not the cause.
    pub(super) fn remedy(&self, path: &Path) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let remedy = if path.starts_with(CONFIG_DIRECTORY) {
                    format!("`{}`", permission_fix(path))
                } else {
                    format!("`install -g bastiond -m 0640 {} {CONFIG_DIRECTORY}/` and name the copy", path.display())
                };
                format!("; let the user bastiond read it: {remedy}")
            }
            _ => String::new(),
        }
    }

    /// Whether the file does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
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
        let file = std::fs::File::open(path)?;
        let world_readable = file.metadata()?.permissions().mode() & 0o004 != 0;
        let mut bytes = Zeroizing::new(Vec::new());
        // The size that the file system reports is not enough: for a device or a pipe it is 0.
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ReadError::TooLarge);
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(FileContent { text: Zeroizing::new(text.to_owned()), world_readable })
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
