//! A long TCP transfer, compared byte for byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};

use super::probe::ProbeFailure;
use super::wait::{POLL_INTERVAL, is_poll_timeout, set_poll_interval};
use crate::namespace::{self, Namespace};
use crate::timeouts::scaled;

/// The seed from which both ends compute the same bytes.
const SEED: u64 = 0x0a00_0002;
const BLOCK: usize = 64 * 1024;

/// A TCP server that sends as many bytes as a client requests.
#[derive(Debug)]
pub struct DownloadServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DownloadServer {
    /// Starts the server. Port 0 picks a free port.
    pub fn start(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<Self, namespace::Error> {
        let address = address.into();
        let listener = namespace.listen_tcp(address)?;
        let bound = set_poll_interval(&listener).and_then(|()| listener.local_addr());
        let failed = |source| namespace::Error::Listen { namespace: namespace.name().to_owned(), address, source };
        let address = bound.map_err(failed)?;
        let stop = Arc::<AtomicBool>::default();
        let stop_thread = stop.clone();
        let thread = namespace.spawn(move || accept(&listener, &stop_thread));
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DownloadServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is on stderr already.
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool) {
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            // accept() also returns errors of single connections (accept(2)).
            let Ok((stream, _)) = listener.accept() else { continue };
            // An error here is one that the client sees too.
            scope.spawn(move || serve(stream, stop).ok());
        }
    });
}

fn serve(mut stream: TcpStream, stop: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // Short, so that the server can stop although a client has stopped reading.
    stream.set_write_timeout(Some(POLL_INTERVAL))?;
    let mut wanted = [0; 8];
    stream.read_exact(&mut wanted)?;
    let mut left = u64::from_be_bytes(wanted);
    let mut bytes = Bytes::new();
    while left > 0 {
        let mut block = bytes.next_block(left);
        left -= block.len() as u64;
        while !block.is_empty() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            match stream.write(block) {
                Ok(written) => block = &block[written..],
                Err(error) if is_poll_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// A finished download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// The number of bytes received.
    pub bytes: u64,
    /// Whether every byte was the expected one.
    pub intact: bool,
    /// From the first packet of the connection to the last byte.
    pub elapsed: Duration,
    /// The client's maximum segment size at the end, in bytes of data (tcp(7), `TCP_MAXSEG`). With timestamps it is 12
    /// less than the MSS in the server's SYN.
    pub mss: u32,
}

/// A download that did not finish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownloadFailure {
    /// The connection was not established.
    #[error("failed to connect")]
    Connect(#[source] ProbeFailure),
    /// The transfer stalled, or the connection was closed.
    #[error("the transfer ended after {received} bytes")]
    Ended {
        /// The number of bytes received until then.
        received: u64,
        /// Why it ended.
        source: ProbeFailure,
    },
}

/// Downloads so many bytes from a [`DownloadServer`]. `timeout` limits the connection and the transfer together.
pub fn download(
    from: &Namespace,
    target: impl Into<SocketAddr>,
    bytes: u64,
    timeout: Duration,
) -> Result<Download, DownloadFailure> {
    let (target, timeout) = (target.into(), scaled(timeout));
    from.run(|| {
        let start = Instant::now();
        let mut stream =
            TcpStream::connect_timeout(&target, timeout).map_err(|error| DownloadFailure::Connect(error.into()))?;
        let mut received = 0;
        let outcome = fetch(&mut stream, bytes, start + timeout, &mut received);
        let ended = |source| DownloadFailure::Ended { received, source };
        let intact = outcome.map_err(ended)?;
        let mss = getsockopt(&stream, sockopt::TcpMaxSeg).map_err(|errno| ended(ProbeFailure::Other(errno)))?;
        Ok(Download { bytes: received, intact, elapsed: start.elapsed(), mss })
    })
}

/// Receives the bytes; returns whether every byte was the expected one.
fn fetch(stream: &mut TcpStream, bytes: u64, deadline: Instant, received: &mut u64) -> Result<bool, ProbeFailure> {
    stream.write_all(&bytes.to_be_bytes())?;
    let mut expected = Bytes::new();
    let mut intact = true;
    let mut buffer = vec![0; BLOCK];
    while *received < bytes {
        let block = expected.next_block(bytes - *received);
        let mut filled = 0;
        while filled < block.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ProbeFailure::Timeout);
            }
            stream.set_read_timeout(Some(left))?;
            let length = stream.read(&mut buffer[filled..block.len()])?;
            if length == 0 {
                return Err(ProbeFailure::Disconnected);
            }
            filled += length;
            *received += length as u64;
        }
        intact &= buffer[..filled] == *block;
    }
    Ok(intact)
}

/// The byte sequence of every transfer, in blocks.
pub(super) struct Bytes {
    random: fastrand::Rng,
    block: Vec<u8>,
}

impl Bytes {
    pub(super) fn new() -> Self {
        Self { random: fastrand::Rng::with_seed(SEED), block: vec![0; BLOCK] }
    }

    /// The next block, shorter only when fewer bytes are left.
    pub(super) fn next_block(&mut self, left: u64) -> &[u8] {
        self.random.fill(&mut self.block);
        let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
        &self.block[..length]
    }
}
