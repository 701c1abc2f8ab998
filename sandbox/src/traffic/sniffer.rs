//! What crosses a link, seen on a packet socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};

use super::packet::{Direction, Packet};
use super::wait_briefly;
use crate::namespace::Namespace;

/// `PACKET_OUTGOING` (packet(7)).
const OUTGOING: u8 = 4;

/// Room for bursts, in bytes; what does not fit is not seen.
const BUFFER: usize = 8 << 20;

/// How long a sniffer that is to stop goes on reading on a link that is never silent.
const PATIENCE: Duration = Duration::from_millis(500);

/// Keeps the packets of one link that a filter likes, from [`Sniffer::start`] on.
#[derive(Debug)]
pub struct Sniffer {
    caught: Arc<Caught>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Caught {
    packets: Mutex<Vec<Packet>>,
    arrived: Condvar,
}

impl Caught {
    fn packets(&self) -> MutexGuard<'_, Vec<Packet>> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Catches the SYN and SYN-ACK segments on a link, whose MSS options tell what each side may send.
pub fn sniff_syns(namespace: &Namespace, link: &str) -> io::Result<Sniffer> {
    Sniffer::start(namespace, link, |packet| packet.tcp().is_some_and(|tcp| tcp.syn))
}

impl Sniffer {
    /// Listens on a link of a namespace; every later packet is seen.
    ///
    /// A packet that arrives is seen before any nftables rule, one that leaves after them all.
    pub fn start(
        namespace: &Namespace,
        link: &str,
        filter: impl Fn(&Packet) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (socket, index) = namespace.run(|| open(link))?;
        let (caught, stop) = (Arc::<Caught>::default(), Arc::<AtomicBool>::default());
        let theirs = (caught.clone(), stop.clone());
        let thread = thread::spawn(move || listen(&socket, index, &filter, &theirs.0, &theirs.1));
        Ok(Self { caught, stop, thread: Some(thread) })
    }

    /// What was caught so far.
    pub fn packets(&self) -> Vec<Packet> {
        self.caught.packets().clone()
    }

    /// Waits until so many packets are caught, and tells whether that happened in time.
    pub fn wait_for(&self, count: usize, timeout: Duration) -> bool {
        let packets = self.caught.packets();
        let waited = self.caught.arrived.wait_timeout_while(packets, timeout, |packets| packets.len() < count);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Stops and hands over the catch. Packets that crossed the link before are in it.
    pub fn stop(mut self) -> Vec<Packet> {
        self.end();
        std::mem::take(&mut *self.caught.packets())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A filter that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.end();
    }
}

fn open(link: &str) -> io::Result<(OwnedFd, usize)> {
    let index = usize::try_from(if_nametoindex(link)?).expect("an index fits");
    // Datagrams, so that the link header is off: tunnels have none.
    let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        // Older kernels ask for root of the machine; the ordinary limit must do.
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    }
    wait_briefly(&socket)?;
    Ok((socket, index))
}

fn listen(socket: &OwnedFd, index: usize, filter: &impl Fn(&Packet) -> bool, caught: &Caught, stop: &AtomicBool) {
    // Segmentation offload makes packets of up to 64 KiB on virtual links.
    let mut buffer = vec![0; 1 << 16];
    // What crossed the link before the end counts, so it ends with the queue empty, or late if it never is.
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end) {
        if stop.load(Ordering::Relaxed) {
            end.get_or_insert(Instant::now() + PATIENCE);
        }
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.ifindex() == index => {
                let direction = if from.pkttype() == OUTGOING { Direction::Out } else { Direction::In };
                let ethertype = u16::from_be(from.protocol());
                let packet = Packet { direction, ethertype, bytes: buffer[..length].to_vec() };
                if filter(&packet) {
                    caught.packets().push(packet);
                    caught.arrived.notify_all();
                }
            }
            Err(_) if end.is_some() => return,
            // Another link's packet, or nothing for a while.
            _ => {}
        }
    }
}
