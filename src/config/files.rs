//! The files that belong to the configuration: the one itself, the peers beside it, and those that they name.

use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A larger file is no configuration but a mistake: 10 000 forwards with all keys take 1.5 MB, 10 000 peers 2 MB, and access
/// lists as long as they may be, a line for each entry, 5 MB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Where the daemon's files are; it can look into this directory.
const DIRECTORY: &str = "/etc/bastiond";

/// What makes a file one that root writes, the daemon reads, and others do not.
pub(super) fn for_the_daemon(path: &Path) -> String {
    format!("chgrp bastiond {path} && chmod 640 {path}", path = path.display())
}

/// A file's content. It may hold secrets.
#[derive(Debug)]
pub struct Text {
    /// What it says.
    pub text: Zeroizing<String>,
    /// Whether everybody on this server may read it.
    pub readable_by_all: bool,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is too large to be a configuration.
    #[error("has more than {MAX_BYTES} bytes")]
    TooLarge,
}

impl Unreadable {
    /// What the daemon, which is not root, needs to read the file; empty where something else is wrong with it.
    pub fn remedy(&self, path: &Path) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let remedy = if path.starts_with(DIRECTORY) {
                    format!("`{}`", for_the_daemon(path))
                } else {
                    format!("`install -g bastiond -m 0640 {} {DIRECTORY}/` and name the copy", path.display())
                };
                format!("; the daemon reads it as user bastiond: {remedy}")
            }
            _ => String::new(),
        }
    }

    /// Whether there is no such file.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Where the configuration's files are.
pub trait Files {
    /// Reads one.
    fn read(&self, path: &Path) -> Result<Text, Unreadable>;
    /// The files of `peers.d`, in the order of their names; none where there is no such directory.
    fn peers(&self) -> io::Result<Vec<PathBuf>>;
}

/// No files at all: for a text that stands alone.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &Path) -> Result<Text, Unreadable> {
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
    /// Peers are looked for beside the configuration file.
    pub(super) fn beside(configuration: &Path) -> Self {
        Self { peers: configuration.parent().unwrap_or_else(|| Path::new("")).join("peers.d") }
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<Text, Unreadable> {
        let file = std::fs::File::open(path)?;
        let readable_by_all = file.metadata()?.permissions().mode() & 0o004 != 0;
        let mut bytes = Zeroizing::new(Vec::new());
        // Not by the size that the file system tells: a device or a pipe has none.
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let text = std::str::from_utf8(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Text { text: Zeroizing::new(text.to_owned()), readable_by_all })
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
            // Editors leave other things behind: `alice.toml~`, `.alice.toml.swp`.
            if path.extension().is_some_and(|extension| extension == "toml") && !hidden {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}
