//! The daemon's side: a tunnel's process, as the daemon sees it. It trusts none of the answers: a descriptor is checked
//! before it is used, and a silent process is not waited for.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use super::connection::Connection;
use super::message::{Answer, MAX_INITIATED, Request, State, VERSION};
use crate::device::socket::checked;
use crate::device::tun::TunInterface;
use crate::interface::InterfaceName;
use crate::key::PublicKey;
use crate::model::Refused;
use crate::uapi;

/// How long the process may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why the process does not do what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The connection is over, silent, or carries nonsense.
    #[error("the tunnel's process does not answer")]
    Connection(#[source] io::Error),
    /// It answers something else than was asked.
    #[error("the tunnel's process answers with nonsense")]
    Nonsense,
    /// It refuses.
    #[error("the tunnel's process refuses: {reason}")]
    Failed {
        /// The kernel's number.
        errno: Errno,
        /// The process's reason.
        reason: String,
    },
}

/// A TUN interface and its sockets, as descriptors that outlive the process that works with them.
#[derive(Debug, Default)]
pub struct Descriptors {
    /// The queues of the interface.
    pub queues: Vec<OwnedFd>,
    /// The UDP sockets of all queues.
    pub sockets: Vec<OwnedFd>,
}

/// A process that is connected.
#[derive(Debug)]
pub struct Remote(Connection);

impl Remote {
    /// Connects to the process that listens at this path.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Connection::connect(path, TIMEOUT).map(Self)
    }

    /// Becomes the process's daemon: the streams for UAPI and for what it asks, and what runs there.
    pub fn attach(&self) -> Result<(uapi::Client, Connection, State), RemoteError> {
        let (stream, theirs) = UnixStream::pair().map_err(RemoteError::Connection)?;
        let (supply, their_supply) = Connection::pair().map_err(RemoteError::Connection)?;
        let client = uapi::Client::new(stream).map_err(RemoteError::Connection)?;
        match self.ask(&Request::Attach { version: VERSION }, &[theirs.as_fd(), their_supply.as_fd()])? {
            (Answer::State(state), _) => Ok((client, supply, state)),
            _ => Err(RemoteError::Nonsense),
        }
    }

    /// What runs there.
    pub fn state(&self) -> Result<State, RemoteError> {
        match self.ask(&Request::State, &[])? {
            (Answer::State(state), _) => Ok(state),
            _ => Err(RemoteError::Nonsense),
        }
    }

    /// Has it carry packets.
    pub fn start(
        &self,
        interface: &InterfaceName,
        queues: &[BorrowedFd<'_>],
        sockets: &[BorrowedFd<'_>],
        probes: &[BorrowedFd<'_>],
        fwmark: u32,
    ) -> Result<(), RemoteError> {
        let request =
            Request::Start { interface: interface.clone(), queues: queues.len(), sockets: sockets.len(), fwmark };
        self.done(&request, &[queues, sockets, probes].concat())
    }

    /// Has it serve wg(8) on a listening socket.
    pub fn serve(&self, listener: BorrowedFd<'_>) -> Result<(), RemoteError> {
        self.done(&Request::Serve, &[listener])
    }

    /// Copies of what it works with. Only queues of this interface and UDP sockets are taken.
    pub fn descriptors(&self, interface: &InterfaceName) -> Result<Descriptors, RemoteError> {
        let (Answer::Descriptors { queues, sockets }, mut passed) = self.ask(&Request::Descriptors, &[])? else {
            return Err(RemoteError::Nonsense);
        };
        if queues.checked_add(sockets) != Some(passed.len()) {
            return Err(RemoteError::Nonsense);
        }
        let sockets = passed.split_off(queues);
        if !passed.iter().all(|queue| TunInterface::is_queue(queue.as_fd(), interface.as_str())) {
            return Err(RemoteError::Nonsense);
        }
        let sockets =
            sockets.into_iter().map(|socket| Ok(checked(socket).map_err(|_| RemoteError::Nonsense)?.0.into()));
        Ok(Descriptors { queues: passed, sockets: sockets.collect::<Result<_, _>>()? })
    }

    /// Whom it refuses.
    pub fn refused(&self) -> Result<Refused, RemoteError> {
        match self.ask(&Request::Refused, &[])? {
            (Answer::Refused(refused), _) => Ok(refused),
            _ => Err(RemoteError::Nonsense),
        }
    }

    /// Has it start handshakes.
    pub fn initiate(&self, peers: &[PublicKey]) -> Result<(), RemoteError> {
        peers.chunks(MAX_INITIATED).try_for_each(|some| self.done(&Request::Initiate { peers: some.to_vec() }, &[]))
    }

    /// Ends the process; returns when it has ended, or after a timeout.
    pub fn stop(self) -> Result<(), RemoteError> {
        self.done(&Request::Stop, &[])?;
        match self.0.receive::<Answer>() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(RemoteError::Connection(error)),
            Ok(_) => Err(RemoteError::Nonsense),
        }
    }

    fn done(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), RemoteError> {
        match self.ask(request, descriptors)? {
            (Answer::Done, _) => Ok(()),
            _ => Err(RemoteError::Nonsense),
        }
    }

    fn ask(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Answer, Vec<OwnedFd>), RemoteError> {
        let answered = self.0.send(request, descriptors).and_then(|()| self.0.receive());
        match answered {
            Ok((Answer::Failed { errno, reason }, _)) => {
                // It is shown to people.
                let reason = reason.chars().filter(|c| !c.is_control()).take(400).collect();
                Err(RemoteError::Failed { errno: Errno::from_raw(errno), reason })
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                // A late answer would be taken for that to the next request.
                self.0.shut_down();
                Err(RemoteError::Connection(error))
            }
        }
    }
}
