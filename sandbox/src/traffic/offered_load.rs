//! An offered load of datagrams (RFC 2285), and how many of them arrive.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use super::wait::{set_poll_interval, widen_receive_buffer};
use crate::namespace::Namespace;

/// Datagrams in one system call.
const BATCH: usize = 64;
/// The shortest pause of the sender: short compared with the queues on the way (a TUN interface's holds 500 packets).
const MIN_PAUSE: Duration = Duration::from_micros(50);
/// How long the receiver waits after the last datagram was sent.
const LAST_DATAGRAMS_TIMEOUT: Duration = Duration::from_millis(100);

/// An offered load (RFC 2285, section 3.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedLoad {
    /// Datagrams per second, at least 1.
    pub rate: u32,
    /// Bytes of data in each datagram.
    pub size: usize,
    /// How long to send.
    pub duration: Duration,
}

/// How much of an [`OfferedLoad`] was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveredLoad {
    /// Datagrams sent; fewer than offered if the sender could not keep up.
    pub sent: u64,
    /// Datagrams that the receiving application read.
    pub arrived: u64,
    /// Time from the first to the last datagram sent.
    pub elapsed: Duration,
}

impl DeliveredLoad {
    /// The lost share of the datagrams sent, from 0 to 1; 1 if none was sent.
    #[expect(clippy::cast_precision_loss, reason = "2^52 datagrams take a century")]
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 1.0 } else { 1.0 - self.arrived.min(self.sent) as f64 / self.sent as f64 }
    }

    /// Datagrams per second that arrived.
    #[expect(clippy::cast_precision_loss, reason = "2^52 datagrams take a century")]
    pub fn rate(&self) -> f64 {
        self.arrived as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends the datagrams of one flow at an even rate from one namespace to `target` in another, where a plain socket
/// reads them.
///
/// After a delay the sender catches up with at most `BATCH` datagrams: a longer burst would overflow every queue.
/// Without `CAP_NET_ADMIN` over the machine the receiver's buffer is limited by `net.core.rmem_max`, and losses there
/// count as lost.
///
/// # Panics
/// The rate is 0, or a thread panicked.
pub fn offer_load(
    from: &Namespace,
    to: &Namespace,
    target: SocketAddrV4,
    offered: OfferedLoad,
) -> io::Result<DeliveredLoad> {
    assert_ne!(offered.rate, 0, "the rate is at least 1");
    let receiver = to.run(|| UdpSocket::bind(target))?;
    widen_receive_buffer(&receiver)?;
    set_poll_interval(&receiver)?;
    let sender = from.run(|| UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)))?;
    sender.connect(SocketAddr::from(target))?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&receiver, offered.size, &ended));
        let sent = scope.spawn(|| send(&sender, offered)).join().expect("the sender does not panic");
        thread::sleep(LAST_DATAGRAMS_TIMEOUT);
        ended.store(true, Ordering::Relaxed);
        let arrived = receiver.join().expect("the receiver does not panic")?;
        let (sent, elapsed) = sent?;
        Ok(DeliveredLoad { sent, arrived, elapsed })
    })
}

fn send(socket: &UdpSocket, offered: OfferedLoad) -> io::Result<(u64, Duration)> {
    // The default timer slack of 50 us would double each pause (prctl(2), PR_SET_TIMERSLACK).
    prctl::set_timerslack(1)?;
    let data = vec![0; offered.size];
    let slices = [[IoSlice::new(&data)]; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let interval = Duration::from_secs(1) / offered.rate;
    let (start, mut sent) = (Instant::now(), 0);
    let mut due = start;
    loop {
        let now = Instant::now();
        if now - start >= offered.duration {
            return Ok((sent, now - start));
        }
        let late = now.saturating_duration_since(due);
        if late.is_zero() {
            thread::sleep(MIN_PAUSE.max(due - now));
            continue;
        }
        let missing = usize::try_from(late.as_nanos() / interval.as_nanos().max(1)).unwrap_or(usize::MAX);
        let batch = missing.clamp(1, BATCH);
        // Datagrams that are late by more than a batch are skipped.
        due = if missing > BATCH { now } else { due + interval * u32::try_from(batch).expect("a batch is small") };
        match sendmmsg(socket.as_raw_fd(), &mut headers, &slices[..batch], [None; BATCH], [], MsgFlags::empty()) {
            Ok(results) => sent += results.count() as u64,
            // The queue of the link is full: not sent, not lost either.
            Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn receive(socket: &UdpSocket, size: usize, ended: &AtomicBool) -> io::Result<u64> {
    let mut buffers = vec![vec![0; size]; BATCH];
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut arrived = 0;
    while !ended.load(Ordering::Relaxed) {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None) {
            Ok(results) => arrived += results.count() as u64,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(arrived)
}
