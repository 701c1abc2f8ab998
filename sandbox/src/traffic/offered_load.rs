//! So many small datagrams a second, and how many of them arrive.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};

use super::wait_briefly;
use crate::namespace::Namespace;

/// Datagrams for one system call.
const BATCH: usize = 64;
/// How long the sender sleeps when it is ahead: short against the queues on the way (a TUN link's holds 500 packets).
const NAP: Duration = Duration::from_micros(50);
/// What the receiver's socket may hold: nothing is to be lost there.
const BUFFER: usize = 16 << 20;
/// How long datagrams may be under way when the last has been sent.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// What is offered (RFC 2285, section 3.5.1): `rate` datagrams a second with `size` bytes of data, for `duration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedLoad {
    /// Datagrams a second.
    pub rate: u32,
    /// Bytes of data in each.
    pub size: usize,
    /// How long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveredLoad {
    /// Datagrams that left the sender; fewer than offered if it could not keep up.
    pub sent: u64,
    /// Datagrams that an application at the other end has read.
    pub arrived: u64,
    /// From the first to the last that was sent.
    pub elapsed: Duration,
}

impl DeliveredLoad {
    /// The share of those sent that was lost, 0 to 1; 1 if nothing was sent.
    #[expect(clippy::cast_precision_loss, reason = "2^52 datagrams take a century")]
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 1.0 } else { 1.0 - self.arrived.min(self.sent) as f64 / self.sent as f64 }
    }

    /// Datagrams a second that arrived.
    #[expect(clippy::cast_precision_loss, reason = "2^52 datagrams take a century")]
    pub fn rate(&self) -> f64 {
        self.arrived as f64 / self.elapsed.as_secs_f64()
    }
}

/// Sends datagrams of one flow at an even pace from one namespace to `target` in another, where a plain socket reads them.
///
/// A sender that is held up for a moment sends on at the pace that was asked for, at most `BATCH` at once: it would else
/// make up for it in a burst that no queue holds. Without privileges over the machine the receiver's buffer stays as small
/// as `net.core.rmem_max`, and what is lost there counts as lost.
///
/// # Panics
/// One of its threads did, or the rate is 0.
pub fn offer_load(
    from: &Namespace,
    to: &Namespace,
    target: SocketAddrV4,
    offered: OfferedLoad,
) -> io::Result<DeliveredLoad> {
    assert_ne!(offered.rate, 0, "somebody must send");
    let receiver = to.run(|| UdpSocket::bind(target))?;
    // Refused without CAP_NET_ADMIN over the machine.
    if setsockopt(&receiver, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&receiver, sockopt::RcvBuf, &BUFFER)?;
    }
    wait_briefly(&receiver)?;
    let sender = from.run(|| UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)))?;
    sender.connect(SocketAddr::from(target))?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&receiver, offered.size, &ended));
        let sent = scope.spawn(|| send(&sender, offered)).join().expect("the sender does not panic");
        thread::sleep(STRAGGLERS);
        ended.store(true, Ordering::Relaxed);
        let arrived = receiver.join().expect("the receiver does not panic")?;
        let (sent, elapsed) = sent?;
        Ok(DeliveredLoad { sent, arrived, elapsed })
    })
}

fn send(socket: &UdpSocket, offered: OfferedLoad) -> io::Result<(u64, Duration)> {
    // The default of 50 us would double each nap (prctl(2), PR_SET_TIMERSLACK).
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
            thread::sleep(NAP.max(due - now));
            continue;
        }
        let missing = usize::try_from(late.as_nanos() / interval.as_nanos().max(1)).unwrap_or(usize::MAX);
        let batch = missing.clamp(1, BATCH);
        // What is later than a batch is given up.
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
