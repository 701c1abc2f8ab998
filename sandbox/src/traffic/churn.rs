//! Short TCP connections, one after the other: opened, a byte each way, reset.

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

use super::{LOOK_UP, wait_briefly};
use crate::namespace::{self, Namespace};

/// A connection that takes longer has failed. A SYN that was lost is sent again after 1 s, and may arrive then.
const TIMEOUT_MS: i64 = 2000;
/// Served connections that the server keeps open: by then the client's reset has come, and nobody waited for it.
const LINGERING: usize = 64;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A server for [`churn`].
#[derive(Debug)]
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts it on `address`, with as many threads.
    pub fn start(
        namespace: &Namespace,
        address: impl Into<SocketAddr>,
        threads: usize,
    ) -> Result<Self, namespace::Error> {
        let address = address.into();
        let listener = namespace.listen_tcp(address)?;
        let deeper = Backlog::new(BACKLOG).and_then(|backlog| listen(&listener, backlog)).map_err(io::Error::from);
        let ready = deeper.and_then(|()| wait_briefly(&listener));
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
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    let mut served = VecDeque::with_capacity(LINGERING + 1);
    while !stop.load(Ordering::Relaxed) {
        // Errors of single connections come out of accept as well (accept(2)).
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let mut byte = [0];
        // A client that gave up counts it as failed itself.
        let _ = stream.set_read_timeout(Some(LOOK_UP));
        let _ = stream.read_exact(&mut byte).and_then(|()| stream.write_all(&byte));
        served.push_back(stream);
        if served.len() > LINGERING {
            served.pop_front();
        }
    }
}

/// What [`churn`] met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChurnReport {
    /// Connections that carried their byte there and back.
    pub completed: u64,
    /// Connections that did not.
    pub failed: u64,
    /// How long it went on.
    pub elapsed: Duration,
}

/// Opens connections to an [`EchoServer`] from so many threads at once, for `duration`; each connection carries a byte there and
/// back and is reset, so that no port stays behind in `TIME_WAIT`.
///
/// # Panics
/// One of its threads did.
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
