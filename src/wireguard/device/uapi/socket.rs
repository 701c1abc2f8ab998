//! The socket's file.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};

use crate::net::InterfaceName;

/// Where wg(8) looks for the sockets of userspace implementations.
pub const DIRECTORY: &str = "/var/run/wireguard";

/// Why an interface has no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is missing and cannot be made.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("the interface is in use by another process: it answers on {}", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Something else has the socket's name, and is not ours to remove.
    #[error("{} is in the way: it is no socket", path.display())]
    NoSocket {
        /// Where.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: Errno,
    },
    /// The thread that serves it cannot be started.
    #[error("cannot serve the control socket")]
    Serve {
        /// Why not.
        source: io::Error,
    },
}

/// Listens on `<directory>/<interface>.sock`, for root and the caller only. The directory is made if it is missing; the
/// socket of a process that is gone is replaced.
pub fn bind(directory: &Path, interface: &InterfaceName) -> Result<UnixListener, Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| Error::Directory { path: directory.to_owned(), source })?;
    let path = directory.join(format!("{interface}.sock"));
    let failed = |source| Error::Listen { path: path.clone(), source };
    match listener(&path) {
        Err(Errno::EADDRINUSE) => {}
        made => return made.map(UnixListener::from).map_err(failed),
    }
    if !std::fs::symlink_metadata(&path).is_ok_and(|status| status.file_type().is_socket()) {
        return Err(Error::NoSocket { path });
    }
    match connected(&path) {
        Err(Errno::ECONNREFUSED) => {}
        // EAGAIN: somebody listens, and has no time.
        Ok(()) | Err(Errno::EAGAIN) => return Err(Error::InUse { path }),
        Err(source) => return Err(failed(source)),
    }
    tracing::debug!(path = %path.display(), "the socket of a process that is gone is replaced");
    // Err: the next attempt tells.
    let _ = std::fs::remove_file(&path);
    listener(&path).map(UnixListener::from).map_err(failed)
}

fn listener(path: &Path) -> nix::Result<OwnedFd> {
    let listener = unix_socket(SockFlag::empty())?;
    // Linux gives the file the mode that the socket has (unix_bind_bsd in net/unix/af_unix.c), so there is no moment in
    // which others could connect, whatever the umask is.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    nix::sys::socket::bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

fn connected(path: &Path) -> nix::Result<()> {
    let client = unix_socket(SockFlag::SOCK_NONBLOCK)?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)
}

fn unix_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)
}

/// The file of a socket, to be removed only while it is still that file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// The file that the listener's address leads to, if there is one.
    pub(super) fn of(listener: &UnixListener) -> Option<Self> {
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let inode = inode(&path)?;
        Some(Self { path, inode })
    }

    pub(super) fn remove(&self) {
        if inode(&self.path) == Some(self.inode) {
            if let Err(error) = std::fs::remove_file(&self.path) {
                tracing::warn!(%error, path = %self.path.display(), "the control socket stays behind");
            }
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let status = std::fs::symlink_metadata(path).ok().filter(|status| status.file_type().is_socket())?;
    Some((status.dev(), status.ino()))
}
