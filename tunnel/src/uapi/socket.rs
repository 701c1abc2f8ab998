//! The socket's file.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};

use crate::interface::InterfaceName;

/// The directory in which wg(8) finds the sockets of userspace implementations.
pub const DIRECTORY: &str = "/var/run/wireguard";

/// How a socket's name ends until it listens. wg(8) removes a socket that refuses a connection, which ours would do
/// between bind and listen, so it gets its final name, a second link, when it listens. The kernel reports the first
/// name as its address.
const UNFINISHED: &str = ".new";
/// How often a name is tried that another process has, or takes meanwhile.
const ATTEMPTS: usize = 3;

/// Why an interface has no control socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is missing and cannot be made.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("the interface is in use by another process: it answers on {}", path.display())]
    InUse {
        /// The socket's path.
        path: PathBuf,
    },
    /// Something else has the socket's name, and is not ours to remove.
    #[error("{} is in the way: it is no socket", path.display())]
    NoSocket {
        /// The socket's path.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// The socket's path.
        path: PathBuf,
        /// The kernel's reason.
        source: Errno,
    },
    /// The thread that serves it cannot be started.
    #[error("cannot serve the control socket")]
    Serve {
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Listens on `<directory>/<interface>.sock`, for root and the caller only. The directory is made if it is missing; the
/// socket of a process that is gone is replaced.
pub fn bind(directory: &Path, interface: &InterfaceName) -> Result<UnixListener, Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| Error::Directory { path: directory.to_owned(), source })?;
    let path = directory.join(format!("{interface}.sock"));
    let unfinished = directory.join(format!("{interface}.sock{UNFINISHED}"));
    let failed = |source| Error::Listen { path: path.clone(), source };
    for _ in 0..ATTEMPTS {
        let listener = match listener(&unfinished) {
            Ok(listener) => listener,
            Err(Errno::EADDRINUSE) => {
                remove_stale(&unfinished)?;
                continue;
            }
            Err(source) => return Err(failed(source)),
        };
        let named = std::fs::hard_link(&unfinished, &path);
        // Err: another process was faster, and it is gone.
        let _ = std::fs::remove_file(&unfinished);
        match named {
            Ok(()) => return Ok(listener.into()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_stale(&path)?,
            Err(error) => return Err(failed(error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw))),
        }
    }
    Err(failed(Errno::EADDRINUSE))
}

/// Removes the socket of a process that is gone; everything else stays.
///
/// # Errors
/// Something else is there, or a process that answers.
pub fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    if std::fs::symlink_metadata(path).is_ok_and(|status| !status.file_type().is_socket()) {
        return Err(Error::NoSocket { path: path.to_owned() });
    }
    match connected(path) {
        Err(Errno::ECONNREFUSED) => {
            tracing::debug!(path = %path.display(), "the socket of a process that is gone is replaced");
            // Err: another process was faster, or the next attempt to listen fails.
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        Err(Errno::ENOENT) => Ok(()),
        // EAGAIN: another process listens, and its queue is full.
        Ok(()) | Err(Errno::EAGAIN) => Err(Error::InUse { path: path.to_owned() }),
        Err(source) => Err(failed(source)),
    }
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
    pub(super) fn of_listener(listener: &UnixListener) -> Option<Self> {
        let address = listener.local_addr().ok()?;
        let path = address.as_pathname()?;
        let name = path.file_name()?.to_str()?;
        let path = path.with_file_name(name.strip_suffix(UNFINISHED).unwrap_or(name));
        let inode = inode(&path)?;
        Some(Self { path, inode })
    }

    pub(super) fn is_there(&self) -> bool {
        inode(&self.path) == Some(self.inode)
    }

    pub(super) fn remove(&self) {
        if self.is_there() {
            if let Err(error) = std::fs::remove_file(&self.path) {
                tracing::warn!(%error, path = %self.path.display(), "the control socket stays behind");
            }
        }
    }
}

/// Removes the file of a socket that is not going to be served.
pub fn discard(listener: &UnixListener) {
    if let Some(file) = SocketFile::of_listener(listener) {
        file.remove();
    }
}

/// Watches a socket's file: removing it is one of the ways to end a userspace implementation
/// (<https://www.wireguard.com/xplatform/>). Readable when the file may have changed.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    file: SocketFile,
}

impl Watch {
    /// Watches the listener's file. `None` if it has none.
    pub fn new(listener: &UnixListener) -> nix::Result<Option<Self>> {
        let Some(file) = SocketFile::of_listener(listener) else { return Ok(None) };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // A removed file that is still open has one link less, which is an attribute (inotify(7)).
        let events = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(&file.path, events)?;
        Ok(Some(Self { inotify, file }))
    }

    /// Whether the file has gone, or is another one by now.
    pub fn is_gone(&self) -> bool {
        // Err: there is nothing more to read. The file itself is checked, not the events.
        while self.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        !self.file.is_there()
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let status = std::fs::symlink_metadata(path).ok().filter(|status| status.file_type().is_socket())?;
    Some((status.dev(), status.ino()))
}
