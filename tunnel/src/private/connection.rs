//! A connection that carries messages with descriptors: packets of a Unix socket (`SOCK_SEQPACKET`, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt, socket, socketpair,
    sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeVal;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{MAX_BYTES, MAX_DESCRIPTORS, format, parse};

/// One end of a connection.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// Both ends of a new connection.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(one), Self(other)))
    }

    /// Connects to a listening socket.
    pub fn connect(path: &Path, timeout: Duration) -> io::Result<Self> {
        let connection = Self(unix_socket()?);
        // A full queue of the listener would block.
        connection.set_timeout(timeout)?;
        connect(connection.0.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(connection)
    }

    /// Takes over an end that another process made.
    ///
    /// # Errors
    /// The descriptor is no socket of this type.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        let wrong = |_| io::Error::from(io::ErrorKind::InvalidInput);
        match rustix::net::sockopt::socket_type(&descriptor).map_err(wrong)? {
            rustix::net::SocketType::SEQPACKET => Ok(Self(descriptor)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// How long sending and receiving may take.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let time = TimeVal::new(timeout.as_secs().try_into().unwrap_or(i64::MAX), 0);
        setsockopt(&self.0, sockopt::SendTimeout, &time)?;
        setsockopt(&self.0, sockopt::ReceiveTimeout, &time)?;
        Ok(())
    }

    /// Sends a message with descriptors.
    pub fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = format(message)?;
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        retry(|| sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Waits for a message with its descriptors.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the connection, `WouldBlock` after the timeout, `InvalidData` for what is no
    /// message.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<(T, Vec<OwnedFd>)> {
        let mut buffer = vec![0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            retry(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
        let descriptors = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        });
        // All of them are owned, and closed if the message is refused.
        let descriptors: Vec<OwnedFd> = descriptors.collect();
        if received.bytes == 0 && descriptors.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        Ok((parse(&buffer[..received.bytes])?, descriptors))
    }

    /// Ends the connection for both sides.
    pub fn shut_down(&self) {
        // Err: it has ended already.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket that listens for connections, for root and the caller only.
pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let listener = unix_socket()?;
    // Linux gives the file the mode that the socket has, so there is no moment in which others could connect.
    fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

fn unix_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

fn retry<T>(mut call: impl FnMut() -> Result<T, rustix::io::Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// The number of an error, for the other side.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::EIO as i32)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::super::message::{Answer, Request};
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (ours, theirs) = Connection::pair().unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        ours.send(&Request::Serve, &[other.as_fd(), other.as_fd()]).unwrap();
        drop(other);
        let (request, descriptors) = theirs.receive::<Request>().unwrap();
        assert_eq!((request, descriptors.len()), (Request::Serve, 2));
        one.write_all(b"x").unwrap();
        let mut read = [0];
        UnixStream::from(descriptors.into_iter().next().unwrap()).read_exact(&mut read).unwrap();
        assert_eq!(&read, b"x");
        drop(ours);
        assert_eq!(theirs.receive::<Request>().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_too_long_or_no_message_is_refused_and_the_next_one_is_read() {
        let (ours, theirs) = Connection::pair().unwrap();
        let raw = |bytes: &[u8]| rustix::net::send(&ours, bytes, SendFlags::empty()).unwrap();
        raw(&vec![b' '; MAX_BYTES + 1]);
        raw(b"\xff");
        raw(b"\"state\" ");
        assert_eq!(theirs.receive::<Request>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(theirs.receive::<Request>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(theirs.receive::<Request>().unwrap().0, Request::State);
        let many = [ours.as_fd(); MAX_DESCRIPTORS + 1];
        assert!(theirs.send(&Answer::Done, &many).is_err());
    }

    #[test]
    fn a_silent_side_is_not_waited_for() {
        let (ours, _theirs) = Connection::pair().unwrap();
        ours.set_timeout(Duration::from_secs(1)).unwrap();
        assert_eq!(ours.receive::<Answer>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_of_another_type_is_no_connection() {
        let (stream, _) = UnixStream::pair().unwrap();
        assert!(Connection::adopt(stream.into()).is_err());
        assert!(Connection::adopt(std::fs::File::open("/dev/null").unwrap().into()).is_err());
    }
}
