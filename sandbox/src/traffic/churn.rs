//! Short TCP connections, one after another: connect, one byte each way, reset.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, connect, listen, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::wait::{POLL_INTERVAL, set_poll_interval};
use crate::namespace::{self, Namespace};

/// The time limit of a connection, in milliseconds. TCP retransmits a lost SYN after 1 s, so that one may succeed.
const TIMEOUT_MS: i64 = 2000;
/// How many answered connections the server keeps open, so that the client's reset arrives before the server closes.
const LINGERING: usize = 64;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A TCP server for [`churn`]: it returns one byte per connection.
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts the server on `address` with so many threads.
    pub fn start(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        threads: usize,
    ) -> Result<Self, namespace::Error> {
        let address = address.into();
        let listener = namespace.listen_tcp(address)?;
        let backlog = Backlog::new(BACKLOG).and_then(|backlog| listen(&listener, backlog)).map_err(io::Error::from);
        let ready = backlog.and_then(|()| set_poll_interval(&listener));
        ready.map_err(|source| namespace::Error::Listen { namespace: namespace.name().to_owned(), address, source })?;
        let (listener, stop) = (Arc::new(listener), Arc::<AtomicBool>::default());
        let start = || {
            let (listener, stop) = (listener.clone(), stop.clone());
            thread::spawn(move || serve(&listener, &stop))
        };
        let threads = (0..threads).map(|_| start()).collect();
        Ok(Self { stop, threads })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the thread is on stderr already.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    let mut served = VecDeque::with_capacity(LINGERING + 1);
    while !stop.load(Ordering::Relaxed) {
        // accept() also returns errors of single connections (accept(2)).
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let mut byte = [0];
        // A client that gave up counts the connection as failed itself.
        let _ = stream.set_read_timeout(Some(POLL_INTERVAL));
        let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
        served.push_back(stream);
        if served.len() > LINGERING {
            served.pop_front();
        }
    }
}

/// The result of [`churn`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChurnReport {
    /// The number of connections that carried a byte in both directions.
    pub completed: u64,
    /// The number of the other connections.
    pub failed: u64,
    /// The duration of the whole run.
    pub elapsed: Duration,
}

/// Opens connections to an [`EchoServer`] from so many threads at once, for `duration`. Each connection carries one
/// byte in both directions and is reset, so that no port stays in `TIME_WAIT`.
///
/// # Panics
/// A client thread panicked.
pub fn churn(from: &Namespace, target: SocketAddrV4, threads: usize, duration: Duration) -> ChurnReport {
    let start = Instant::now();
    let client = || {
        let (mut completed, mut failed) = (0, 0);
        while start.elapsed() < duration {
            match exchange(target) {
                Ok(()) => completed += 1,
                Err(_) => failed += 1,
            }
        }
        (completed, failed)
    };
    from.run(|| {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..threads).map(|_| scope.spawn(client)).collect();
            let counts = clients.into_iter().map(|client| client.join().expect("a client does not panic"));
            let (completed, failed) = counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
            ChurnReport { completed, failed, elapsed: start.elapsed() }
        })
    })
}

fn exchange(target: SocketAddrV4) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let timeout = TimeVal::milliseconds(TIMEOUT_MS);
    setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
    setsockopt(&socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(target))?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])
}
