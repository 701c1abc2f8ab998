//! A TCP transfer that lasts until it is stopped, compared byte for byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::download::{Bytes, DownloadFailure};
use super::probe::ProbeFailure;
use super::wait::{POLL_INTERVAL, is_poll_timeout, set_poll_interval};
use crate::namespace::Namespace;

/// The rate in bytes per second: high enough for packets at every moment, low enough to leave the CPU to other tests.
const PACE: u64 = 4 << 20;

/// One connection to a [`DownloadServer`](super::DownloadServer) that receives bytes until it is stopped.
#[derive(Debug)]
pub struct ContinuousDownload {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<ContinuousDownloadReport, DownloadFailure>>>,
}

/// The result of a [`ContinuousDownload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContinuousDownloadReport {
    /// The number of bytes received.
    pub bytes: u64,
    /// Whether every byte was the expected one.
    pub intact: bool,
    /// The longest time without a byte.
    pub longest_gap: Duration,
}

impl ContinuousDownload {
    /// Connects and starts to download. The download fails after `timeout` without a byte.
    pub fn start(from: &Namespace, target: impl Into<SocketAddr>, timeout: Duration) -> Result<Self, DownloadFailure> {
        let target = target.into();
        let mut stream = from
            .run(|| TcpStream::connect_timeout(&target, timeout))
            .map_err(|error| DownloadFailure::Connect(error.into()))?;
        let asked = stream.write_all(&u64::MAX.to_be_bytes()).and_then(|()| set_poll_interval(&stream));
        asked.map_err(|error| DownloadFailure::Ended { received: 0, source: error.into() })?;
        let (stop, received) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let shared = (Arc::clone(&stop), Arc::clone(&received));
        let thread = thread::spawn(move || fetch(&mut stream, &shared.0, &shared.1, timeout));
        Ok(Self { stop, received, thread: Some(thread) })
    }

    /// The number of bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Ends the transfer and returns its result.
    ///
    /// # Panics
    /// The thread of the download panicked.
    pub fn stop(mut self) -> Result<ContinuousDownloadReport, DownloadFailure> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("stopped only once").join().expect("the reader does not panic")
    }
}

impl Drop for ContinuousDownload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn fetch(
    stream: &mut TcpStream,
    stop: &AtomicBool,
    received: &AtomicU64,
    timeout: Duration,
) -> Result<ContinuousDownloadReport, DownloadFailure> {
    let (start, mut last) = (Instant::now(), Instant::now());
    let mut report = ContinuousDownloadReport { bytes: 0, intact: true, longest_gap: Duration::ZERO };
    let mut expected = Bytes::new();
    let mut buffer = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let ended = |source| DownloadFailure::Ended { received: report.bytes, source };
        let block = expected.next_block(u64::MAX);
        buffer.resize(block.len(), 0);
        let mut filled = 0;
        while filled < block.len() && !stop.load(Ordering::Relaxed) {
            match stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ended(ProbeFailure::Disconnected)),
                Ok(length) => {
                    filled += length;
                    report.longest_gap = report.longest_gap.max(last.elapsed());
                    last = Instant::now();
                }
                Err(error) if is_poll_timeout(&error) && last.elapsed() < timeout => {}
                Err(error) if is_poll_timeout(&error) => return Err(ended(ProbeFailure::Timeout)),
                Err(error) => return Err(ended(error.into())),
            }
        }
        report.intact &= buffer[..filled] == block[..filled];
        report.bytes += filled as u64;
        received.store(report.bytes, Ordering::Relaxed);
        let due = start + Duration::from_millis(report.bytes * 1000 / PACE);
        // The pause is ours and does not count as time without a byte.
        let pause = due.saturating_duration_since(Instant::now()).min(POLL_INTERVAL);
        thread::sleep(pause);
        last += pause;
    }
    report.longest_gap = report.longest_gap.max(last.elapsed());
    Ok(report)
}
