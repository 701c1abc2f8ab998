//! The process: carries the packets of one interface, and does what the newest daemon that connects asks.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use parking_lot::RwLock;
use rustix::net::SocketFlags;

use super::connection::{Connection, errno_of};
use super::message::{Answer, InterfaceState, MAX_INITIATED, Request, State, VERSION, bounded};
use super::supply::{SuppliedSockets, Supply};
use crate::device::probes::Probes;
use crate::device::tun::{self, TunInterface};
use crate::device::udp::{self, UdpPair};
use crate::device::{self, Device};
use crate::interface::InterfaceName;
use crate::model::{Snapshot, Update};
use crate::uapi;

/// How long a process without an interface waits for a daemon.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a daemon may take to receive an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the process ends, or does not do what is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard input is no listening socket.
    #[error("standard input is no listening socket of the daemon's (this mode is started by bastiond or systemd)")]
    Listener(#[source] io::Error),
    /// Nothing can be waited for.
    #[error("cannot wait for the daemon")]
    Wait(#[source] io::Error),
    /// The descriptors are not those that were announced.
    #[error("other descriptors came than were announced")]
    Descriptors,
    /// Nothing was started.
    #[error("there is no interface")]
    NoInterface,
    /// The queues are not those of the interface.
    #[error(transparent)]
    Tun(#[from] tun::Error),
    /// The sockets cannot be used.
    #[error(transparent)]
    Socket(#[from] udp::Error),
    /// The data plane does not start.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The socket of UAPI cannot be served.
    #[error(transparent)]
    Uapi(#[from] uapi::Error),
    /// A descriptor or a thread cannot be had.
    #[error("the kernel refuses")]
    Kernel(#[from] io::Error),
}

impl Error {
    fn errno(&self) -> i32 {
        match self {
            Self::Listener(error) | Self::Wait(error) | Self::Kernel(error) => errno_of(error),
            Self::Descriptors => Errno::EINVAL as i32,
            Self::NoInterface => Errno::ENODEV as i32,
            Self::Socket(error) => error.errno() as i32,
            Self::Device(error) => error.errno() as i32,
            Self::Tun(_) | Self::Uapi(_) => Errno::EIO as i32,
        }
    }
}

/// Serves the private socket that listens on `listener`, until it is told to stop, or has nothing to do any more.
pub fn run(listener: &OwnedFd) -> Result<(), Error> {
    let not_listening = |error: rustix::io::Errno| Error::Listener(error.into());
    if !rustix::net::sockopt::socket_acceptconn(listener).map_err(not_listening)? {
        return Err(Error::Listener(io::ErrorKind::InvalidInput.into()));
    }
    // The listener is shared with who made it: another one may accept what this process has seen.
    nix::fcntl::fcntl(listener, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
        .map_err(|error| Error::Listener(error.into()))?;
    let wait = |error: Errno| Error::Wait(error.into());
    let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    set.thread_block().map_err(wait)?;
    let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(wait)?;
    let mut process = Process::default();
    let mut daemon: Option<Connection> = None;
    let mut alone_since = Instant::now();
    loop {
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        polled.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        polled.extend(daemon.as_ref().map(|daemon| PollFd::new(daemon.as_fd(), PollFlags::POLLIN)));
        // A device has no descriptor that shows its end.
        let timeout = if daemon.is_some() { PollTimeout::NONE } else { PollTimeout::from(1000_u16) };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(wait(error)),
        }
        let ready: Vec<bool> = polled.iter().map(|place| place.any().unwrap_or(true)).collect();
        if ready[0] && signals.read_signal().map_err(wait)?.is_some() {
            return Ok(());
        }
        if ready[1] {
            if let Ok(accepted) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                // The newest one counts: the former is gone, or hangs.
                process.supply.disconnect();
                daemon = Connection::adopt(accepted).ok();
                continue;
            }
        }
        if let (Some(connection), Some(true)) = (&daemon, ready.get(2)) {
            match process.serve(connection) {
                Ok(Next::Continue) => {}
                Ok(Next::End) => return Ok(()),
                Err(error) => {
                    if error.kind() != io::ErrorKind::UnexpectedEof {
                        tracing::warn!(%error, "the daemon is disconnected");
                    }
                    process.supply.disconnect();
                    (daemon, alone_since) = (None, Instant::now());
                }
            }
        }
        if daemon.is_none() && !process.is_carrying() && alone_since.elapsed() >= PATIENCE {
            return Ok(());
        }
    }
}

/// What follows from a request.
enum Next {
    Continue,
    End,
}

/// What the process has.
#[derive(Default)]
struct Process {
    place: Arc<Place>,
    supply: Arc<Supply>,
    /// The socket for wg(8). Dropped before the device, so that nobody asks for an interface that ends.
    server: Option<uapi::Server>,
}

/// The device behind UAPI, once there is one.
#[derive(Default)]
struct Place(RwLock<Option<Arc<Device>>>);

impl Place {
    fn device(&self) -> Option<Arc<Device>> {
        self.0.read().clone()
    }
}

impl uapi::Interface for Place {
    fn set(&self, update: Update) -> Result<(), Errno> {
        let device = self.device().ok_or(Errno::ENODEV)?;
        uapi::Interface::set(&*device, update)
    }

    fn snapshot(&self) -> Snapshot {
        self.device().map(|device| device.snapshot()).unwrap_or_default()
    }

    fn scope_of(&self, interface: &str) -> Option<u32> {
        uapi::Interface::scope_of(&*self.device()?, interface)
    }
}

impl Process {
    fn is_carrying(&self) -> bool {
        self.place.device().is_some_and(|device| !device.is_gone())
    }

    /// Answers one request.
    ///
    /// # Errors
    /// The connection is over.
    fn serve(&mut self, connection: &Connection) -> io::Result<Next> {
        connection.set_timeout(SEND_TIMEOUT)?;
        let (request, descriptors) = connection.receive::<Request>()?;
        let is_last = request == Request::Stop;
        let (answer, passed) = self.carry_out(request, descriptors).unwrap_or_else(|error| {
            tracing::warn!(error = crate::error::chain(&error), "the daemon's request failed");
            (Answer::failed(&error, error.errno()), Vec::new())
        });
        let passed: Vec<BorrowedFd<'_>> = passed.iter().map(|descriptor| descriptor.as_fd()).collect();
        connection.send(&answer, &passed)?;
        Ok(if is_last { Next::End } else { Next::Continue })
    }

    fn carry_out(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>), Error> {
        let device = || self.place.device().ok_or(Error::NoInterface);
        let answer = match request {
            Request::Attach { .. } => {
                let [uapi, supply] = exactly(descriptors)?;
                self.attach(UnixStream::from(uapi), Connection::adopt(supply)?)?;
                Answer::State(self.state())
            }
            Request::State => Answer::State(self.state()),
            Request::Start { interface, queues, sockets, fwmark } => {
                self.start(&interface, descriptors, queues, sockets, fwmark)?;
                Answer::Done
            }
            Request::Serve => {
                let [listener] = exactly(descriptors)?;
                if !rustix::net::sockopt::socket_acceptconn(&listener).map_err(io::Error::from)? {
                    return Err(Error::Descriptors);
                }
                // The former one is dropped first.
                self.server = None;
                let listener = UnixListener::from(listener);
                self.server = Some(uapi::Server::from_foreign_listener(listener, Arc::<Place>::clone(&self.place))?);
                Answer::Done
            }
            Request::Descriptors => {
                let device = device()?;
                let (queues, sockets) = (owned(device.tun_descriptors())?, device.sockets());
                let sockets = owned(sockets.iter().flat_map(|pair| pair.sockets()).map(|socket| socket.as_fd()))?;
                let answer = Answer::Descriptors { queues: queues.len(), sockets: sockets.len() };
                return Ok((answer, queues.into_iter().chain(sockets).collect()));
            }
            Request::Refused => Answer::Refused(bounded(device()?.refused())),
            Request::Initiate { peers } => {
                let device = device()?;
                peers.into_iter().take(MAX_INITIATED).for_each(|peer| device.initiate(peer));
                Answer::Done
            }
            Request::Stop => {
                self.end_device();
                Answer::Done
            }
        };
        Ok((answer, Vec::new()))
    }

    /// Serves a daemon: its UAPI stream has a thread of its own.
    fn attach(&self, stream: UnixStream, supply: Connection) -> Result<(), Error> {
        self.supply.connect(supply)?;
        let place = Arc::clone(&self.place);
        thread::Builder::new().name("uapi-daemon".to_owned()).spawn(move || {
            if let Err(error) = uapi::serve_stream(stream, &*place) {
                tracing::debug!(%error, "the daemon's stream ended");
            }
        })?;
        Ok(())
    }

    fn state(&self) -> State {
        let interface = self.place.device().and_then(|device| {
            Some(InterfaceState {
                name: device.name().parse().ok()?,
                is_gone: device.is_gone(),
                features: device.features(),
            })
        });
        State { version: VERSION, user: nix::unistd::geteuid().as_raw(), interface }
    }

    fn start(
        &mut self,
        interface: &InterfaceName,
        mut descriptors: Vec<OwnedFd>,
        queues: usize,
        sockets: usize,
        fwmark: u32,
    ) -> Result<(), Error> {
        if queues == 0 || queues.saturating_add(sockets) > descriptors.len() {
            return Err(Error::Descriptors);
        }
        let probes = descriptors.split_off(queues + sockets);
        let sockets = descriptors.split_off(queues);
        let probes = Arc::new(Probes::adopt(probes)?);
        let pairs = UdpPair::adopt_all(sockets)?;
        if pairs.len() != queues {
            return Err(Error::Descriptors);
        }
        let tun = TunInterface::adopt(interface.as_str(), descriptors)?.with_probes(&probes);
        let pairs = pairs.into_iter().map(|pair| Arc::new(pair.with_probes(&probes))).collect();
        self.end_device();
        let source = SuppliedSockets { supply: Arc::clone(&self.supply), probes };
        let device = Device::start_with(tun, pairs, fwmark, Box::new(source))?;
        *self.place.0.write() = Some(Arc::new(device));
        Ok(())
    }

    fn end_device(&mut self) {
        self.server = None;
        *self.place.0.write() = None;
    }
}

fn exactly<const COUNT: usize>(descriptors: Vec<OwnedFd>) -> Result<[OwnedFd; COUNT], Error> {
    descriptors.try_into().map_err(|_| Error::Descriptors)
}

fn owned<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Vec<OwnedFd>> {
    descriptors.map(|descriptor| descriptor.try_clone_to_owned()).collect()
}
