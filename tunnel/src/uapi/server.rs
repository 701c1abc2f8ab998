//! The threads that serve the socket: one accepts, each client has one of its own, and all of them sleep unless spoken to.
//! Threads and not tasks, because the data plane has no runtime, and [`Interface::set`] may take its time.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::answer::{format_errno, write_get};
use super::lines::{Line, Lines};
use super::request::{Parser, Request};
use super::socket::{self, Error, SocketFile};
use super::{Interface, Refused};
use crate::interface::InterfaceName;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Clients served at once; further ones wait in the socket's queue.
    pub(super) clients: usize,
    /// How long a client may neither send nor take anything.
    pub(super) idle: Duration,
    /// The longest request, in bytes: 10 000 peers with ten allowed-ips each take 6 MB.
    pub(super) request: u64,
}

pub(super) const LIMITS: Limits = Limits { clients: 16, idle: Duration::from_secs(30), request: 64 * 1024 * 1024 };

/// How long accepting rests when the system is short of something, such as descriptors.
const REST: Duration = Duration::from_secs(1);

/// Serves a control socket until it is dropped; then the socket's file is removed, if it is still ours.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    file: Option<SocketFile>,
    /// Gives the listener back. `None` once the server has stopped.
    thread: Option<JoinHandle<UnixListener>>,
}

/// What the accepting thread, its clients' threads and the owner know of each other.
#[derive(Debug)]
struct Shared {
    /// Rings when something below has changed that the accepting thread waits for.
    bell: EventFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    clients: BTreeMap<u64, Arc<UnixStream>>,
}

impl Server {
    /// Listens on `<directory>/<name>.sock` ([`socket::bind`]) and serves it.
    pub fn bind(directory: &Path, name: &InterfaceName, interface: Arc<dyn Interface>) -> Result<Self, Error> {
        Self::from_listener(socket::bind(directory, name)?, interface)
    }

    /// Serves a socket that somebody else has opened.
    pub fn from_listener(listener: UnixListener, interface: Arc<dyn Interface>) -> Result<Self, Error> {
        Self::start(listener, interface, LIMITS).map_err(|source| Error::Serve { source })
    }

    pub(super) fn start(listener: UnixListener, interface: Arc<dyn Interface>, limits: Limits) -> io::Result<Self> {
        // A client may go away between poll and accept, which would then wait for the next one.
        listener.set_nonblocking(true)?;
        let file = SocketFile::of(&listener);
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { bell, state: Mutex::default() });
        let theirs = Arc::clone(&shared);
        let accepting = thread::Builder::new().name("uapi".to_owned());
        let thread = accepting.spawn(move || {
            accept(&listener, &*interface, &theirs, limits);
            listener
        })?;
        Ok(Self { shared, file, thread: Some(thread) })
    }

    /// Stops serving and gives the socket to a successor, its file and the clients in its queue included. `None` if the
    /// accepting thread has panicked.
    pub fn hand_over(mut self) -> Option<UnixListener> {
        self.file = None;
        self.stop()
    }

    fn stop(&mut self) -> Option<UnixListener> {
        {
            let mut state = self.shared.state.lock();
            state.stopping = true;
            for client in state.clients.values() {
                // Err: it is gone already.
                let _ = client.shutdown(Shutdown::Both);
            }
        }
        self.shared.ring();
        // Err: it panicked, which its own thread has told.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The file goes first: nobody is to find a socket that nobody listens on.
        if let Some(file) = self.file.take() {
            file.remove();
        }
        self.stop();
    }
}

impl Shared {
    fn ring(&self) {
        // Err: the counter is full, so it rings already.
        let _ = self.bell.write(1);
    }
}

/// A client's place among those that are served; it is free again when this is dropped.
struct Place<'a> {
    shared: &'a Shared,
    number: u64,
    stream: Arc<UnixStream>,
}

impl<'a> Place<'a> {
    /// `None` if the server is about to stop.
    fn take(shared: &'a Shared, number: u64, stream: UnixStream) -> Option<Self> {
        let stream = Arc::new(stream);
        let mut state = shared.state.lock();
        if state.stopping {
            return None;
        }
        state.clients.insert(number, Arc::clone(&stream));
        Some(Self { shared, number, stream })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().clients.remove(&self.number);
        self.shared.ring();
    }
}

fn accept(listener: &UnixListener, interface: &dyn Interface, shared: &Shared, limits: Limits) {
    thread::scope(|scope| {
        let mut rests = false;
        for number in 0.. {
            let has_room = {
                let state = shared.state.lock();
                if state.stopping {
                    return;
                }
                state.clients.len() < limits.clients
            };
            wait(listener, shared, has_room, rests);
            rests = false;
            if !has_room {
                continue;
            }
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    let passing =
                        [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted, io::ErrorKind::ConnectionAborted];
                    if !passing.contains(&error.kind()) {
                        tracing::warn!(%error, "the control socket cannot accept");
                        rests = true;
                    }
                    continue;
                }
            };
            let Some(place) = Place::take(shared, number, stream) else { return };
            let client = thread::Builder::new().name("uapi-client".to_owned());
            let started = client.spawn_scoped(scope, move || {
                if let Err(error) = serve(&place.stream, interface, limits) {
                    tracing::debug!(%error, "a client of the control socket went away");
                }
            });
            if let Err(error) = started {
                tracing::warn!(%error, "the control socket cannot serve a client");
                rests = true;
            }
        }
    });
}

/// Sleeps until the bell rings, or somebody knocks and there is room. Resting, nobody is heard for a while but the bell.
fn wait(listener: &UnixListener, shared: &Shared, has_room: bool, rests: bool) {
    let bell = PollFd::new(shared.bell.as_fd(), PollFlags::POLLIN);
    let door = PollFd::new(listener.as_fd(), PollFlags::POLLIN);
    let woken = match (rests, has_room) {
        (true, _) => poll(&mut [bell], PollTimeout::try_from(REST).expect("a second fits")),
        (false, true) => poll(&mut [bell, door], PollTimeout::NONE),
        (false, false) => poll(&mut [bell], PollTimeout::NONE),
    };
    // EINTR needs nothing: the caller looks at everything anew.
    debug_assert!(matches!(woken, Ok(_) | Err(Errno::EINTR)), "{woken:?}");
    // Err: it did not ring.
    let _ = shared.bell.read();
}

/// Answers one client's requests until it goes.
fn serve(stream: &UnixStream, interface: &dyn Interface, limits: Limits) -> io::Result<()> {
    stream.set_read_timeout(Some(limits.idle))?;
    stream.set_write_timeout(Some(limits.idle))?;
    let mut lines = Lines::new(stream);
    let mut parser = Parser::new(scope_of);
    let mut answer = stream;
    loop {
        let request = match lines.next()? {
            Some(Line::Text(line)) => parser.line(line),
            Some(Line::TooLong) => {
                parser.too_long();
                None
            }
            None => match parser.end() {
                Some(refused) => return answer.write_all(refusal(&refused).as_bytes()),
                None => return Ok(()),
            },
        };
        if lines.given() > limits.request {
            tracing::warn!("a configuration request was refused: it is longer than {} bytes", limits.request);
            return answer.write_all(format_errno(Err(Errno::E2BIG)).as_bytes());
        }
        match request {
            None => continue,
            Some(Ok(Request::Get)) => write_get(&interface.snapshot(), answer)?,
            Some(Ok(Request::Set(update))) => {
                let result = interface.set(update);
                if let Err(error) = result {
                    tracing::warn!(%error, "a configuration request failed");
                }
                answer.write_all(format_errno(result).as_bytes())?;
            }
            Some(Err(refused)) => answer.write_all(refusal(&refused).as_bytes())?,
        }
        lines.start_over();
    }
}

/// The client gets a number, the log the reason.
fn refusal(refused: &Refused) -> String {
    tracing::warn!("a configuration request was refused: {refused}");
    format_errno(Err(refused.errno()))
}

fn scope_of(interface: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(interface).ok()
}
