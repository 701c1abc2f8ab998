//! The threads that serve the socket: one accepts, each client has one of its own, and all of them sleep until there is
//! a request. They are threads and not tasks, because the data plane has no runtime, and [`Interface::set`] may block.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::answer::{format_errno, write_get};
use super::clients::{Client, Clients, make_room};
use super::lines::{Line, Lines};
use super::request::{Parser, Request};
use super::socket::{self, Error, SocketFile};
use super::{Interface, Refused};
use crate::interface::InterfaceName;

/// Limits for clients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Clients served at once; further ones wait in the socket's queue, and take the place of a silent one.
    pub(super) clients: usize,
    /// How long a client may neither send nor receive anything; `None`: for ever.
    pub(super) idle: Option<Duration>,
    /// The longest request, in bytes: 10 000 peers with ten allowed-ips each take 6 MB.
    pub(super) request: u64,
}

pub(super) const LIMITS: Limits =
    Limits { clients: 16, idle: Some(Duration::from_secs(30)), request: 64 * 1024 * 1024 };

/// How long the accepting thread waits when the system lacks a resource, such as descriptors.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Serves a control socket until it is dropped; then the socket's file is removed, if it is still ours.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    file: Option<SocketFile>,
    /// Returns the listener. `None` once the server has stopped.
    thread: Option<JoinHandle<UnixListener>>,
}

/// What the accepting thread, the clients' threads and the owner share.
#[derive(Debug)]
struct Shared {
    /// Wakes the accepting thread after a change of `state`.
    wakeup: EventFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    clients: Clients,
}

impl Server {
    /// Listens on `<directory>/<name>.sock` ([`socket::bind`]) and serves it.
    pub fn bind(directory: &Path, name: &InterfaceName, interface: Arc<dyn Interface>) -> Result<Self, Error> {
        Self::from_listener(socket::bind(directory, name)?, interface)
    }

    /// Serves a socket that listens already.
    pub fn from_listener(listener: UnixListener, interface: Arc<dyn Interface>) -> Result<Self, Error> {
        Self::start(listener, interface, LIMITS).map_err(|source| Error::Serve { source })
    }

    /// Serves a socket that listens already, and whose file another process removes.
    pub fn from_foreign_listener(listener: UnixListener, interface: Arc<dyn Interface>) -> Result<Self, Error> {
        let mut server = Self::from_listener(listener, interface)?;
        server.file = None;
        Ok(server)
    }

    pub(super) fn start(listener: UnixListener, interface: Arc<dyn Interface>, limits: Limits) -> io::Result<Self> {
        // A client may go away between poll and accept, which would then wait for the next one.
        listener.set_nonblocking(true)?;
        let file = SocketFile::of_listener(&listener);
        let wakeup = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared { wakeup, state: Mutex::default() });
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
                let _ = client.stream.shutdown(Shutdown::Both);
            }
        }
        self.shared.wake();
        // Err: it panicked, and its own thread has printed that.
        self.thread.take()?.join().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The file is removed first, so that no client finds a socket without a listener.
        if let Some(file) = self.file.take() {
            file.remove();
        }
        self.stop();
    }
}

impl Shared {
    fn wake(&self) {
        // Err: the counter is full, so the thread wakes already.
        let _ = self.wakeup.write(1);
    }
}

/// One of the clients that are served; it is free again when this is dropped.
struct ClientSlot<'a> {
    shared: &'a Shared,
    number: u64,
    client: Arc<Client>,
}

impl<'a> ClientSlot<'a> {
    /// `None` if the server is about to stop.
    fn take(shared: &'a Shared, number: u64, stream: UnixStream) -> Option<Self> {
        let client = Arc::new(Client::new(stream));
        let mut state = shared.state.lock();
        if state.stopping {
            return None;
        }
        state.clients.insert(number, Arc::clone(&client));
        Some(Self { shared, number, client })
    }
}

impl Drop for ClientSlot<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().clients.remove(&self.number);
        self.shared.wake();
    }
}

/// Serves one client, which may be silent for as long as it likes, until it goes.
pub fn serve_stream(stream: UnixStream, interface: &dyn Interface) -> io::Result<()> {
    serve(&Client::new(stream), interface, Limits { idle: None, ..LIMITS })
}

fn accept(listener: &UnixListener, interface: &dyn Interface, shared: &Shared, limits: Limits) {
    thread::scope(|scope| {
        let mut backs_off = false;
        for number in 0.. {
            let accepts_clients = {
                let state = shared.state.lock();
                if state.stopping {
                    return;
                }
                state.clients.len() < limits.clients
            };
            if !accepts_clients {
                wait_for_a_place(listener, shared);
                continue;
            }
            wait(listener, shared, backs_off);
            if std::mem::take(&mut backs_off) {
                continue;
            }
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    let passing =
                        [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted, io::ErrorKind::ConnectionAborted];
                    if !passing.contains(&error.kind()) {
                        tracing::warn!(%error, "the control socket cannot accept");
                        backs_off = true;
                    }
                    continue;
                }
            };
            let Some(place) = ClientSlot::take(shared, number, stream) else { return };
            let client = thread::Builder::new().name("uapi-client".to_owned());
            let started = client.spawn_scoped(scope, move || {
                if let Err(error) = serve(&place.client, interface, limits) {
                    tracing::debug!(%error, "a client of the control socket went away");
                }
            });
            if let Err(error) = started {
                tracing::warn!(%error, "the control socket cannot serve a client");
                backs_off = true;
            }
        }
    });
}

/// Sleeps until the state changes or a client connects; with `backs_off`, for a while without clients.
fn wait(listener: &UnixListener, shared: &Shared, backs_off: bool) {
    if backs_off {
        sleep(shared, None, Some(BACK_OFF));
    } else {
        sleep(shared, Some(listener), None);
    }
}

/// All places are taken: sleeps until one is free. While another client waits, a silent one has to go.
fn wait_for_a_place(listener: &UnixListener, shared: &Shared) {
    if sleep(shared, Some(listener), None) {
        let pause = make_room(&shared.state.lock().clients, Instant::now());
        sleep(shared, None, pause);
    }
}

/// Sleeps until the state changes, a client connects to the listener, or the time is over; whether a client waits.
fn sleep(shared: &Shared, listener: Option<&UnixListener>, at_most: Option<Duration>) -> bool {
    let mut places = vec![PollFd::new(shared.wakeup.as_fd(), PollFlags::POLLIN)];
    places.extend(listener.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
    // A millisecond more, so that the time has come.
    let timeout = at_most.map(|time| time + Duration::from_millis(1));
    let timeout = timeout.map_or(PollTimeout::NONE, |time| PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    let woken = poll(&mut places, timeout);
    // EINTR needs nothing: the caller checks everything again.
    debug_assert!(matches!(woken, Ok(_) | Err(Errno::EINTR)), "{woken:?}");
    let waits = places.get(1).and_then(PollFd::any).unwrap_or(false);
    // Err: nothing woke it.
    let _ = shared.wakeup.read();
    waits
}

/// Answers one client's requests until it goes.
fn serve(client: &Client, interface: &dyn Interface, limits: Limits) -> io::Result<()> {
    let stream = &client.stream;
    stream.set_read_timeout(limits.idle)?;
    stream.set_write_timeout(limits.idle)?;
    let mut lines = Lines::new(stream);
    let mut parser = Parser::new(|name| interface.scope_of(name));
    let mut answer = stream;
    loop {
        let line = lines.next()?;
        client.note_activity();
        let request = match line {
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
                let result = client.served(|| interface.set(update));
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
