//! The packets that cross a link, read from a packet socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::libc;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::packet::{Direction, Packet};
use super::wait::{set_poll_interval, widen_receive_buffer};
use crate::namespace::Namespace;

/// How long a sniffer reads after it was stopped, on a link that is never idle.
const STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Collects the packets of one link that match a filter, from [`Sniffer::start`] on.
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
        self.packets.lock()
    }
}

/// Collects the SYN and SYN-ACK segments on a link, which carry the MSS option of each side.
pub fn sniff_syns(namespace: &Namespace, link: &str) -> io::Result<Sniffer> {
    Sniffer::start(namespace, link, |packet| packet.tcp().is_some_and(|tcp| tcp.syn))
}

impl Sniffer {
    /// Starts to collect the packets of a link of a namespace.
    ///
    /// Arriving packets are collected before all nftables rules, leaving packets after all of them.
    pub fn start(
        namespace: &Namespace,
        link: &str,
        filter: impl Fn(&Packet) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (socket, index) = namespace.run(|| open(link))?;
        let (caught, stop) = (Arc::<Caught>::default(), Arc::<AtomicBool>::default());
        let shared = (caught.clone(), stop.clone());
        let thread = thread::spawn(move || listen(&socket, index, &filter, &shared.0, &shared.1));
        Ok(Self { caught, stop, thread: Some(thread) })
    }

    /// The packets collected so far.
    pub fn packets(&self) -> Vec<Packet> {
        self.caught.packets().clone()
    }

    /// Waits until so many packets are collected; returns whether that happened in time.
    pub fn wait_for(&self, count: usize, timeout: Duration) -> bool {
        let mut packets = self.caught.packets();
        let waited = self.caught.arrived.wait_while_for(&mut packets, |packets| packets.len() < count, timeout);
        !waited.timed_out()
    }

    /// Stops and returns the packets, including all that crossed the link before the call.
    pub fn stop(mut self) -> Vec<Packet> {
        self.end();
        std::mem::take(&mut *self.caught.packets())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the filter is on stderr already.
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
    // A datagram socket removes the link header, which tunnels do not have.
    let socket = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    widen_receive_buffer(&socket)?;
    set_poll_interval(&socket)?;
    Ok((socket, index))
}

fn listen(socket: &OwnedFd, index: usize, filter: &impl Fn(&Packet) -> bool, caught: &Caught, stop: &AtomicBool) {
    // Segmentation offload makes packets of up to 64 KiB on virtual links.
    let mut buffer = vec![0; 1 << 16];
    // Packets that crossed the link before the stop count, so the loop ends when the queue is empty, or after
    // STOP_TIMEOUT.
    let mut end = None;
    while end.is_none_or(|end| Instant::now() < end) {
        if stop.load(Ordering::Relaxed) {
            end.get_or_insert(Instant::now() + STOP_TIMEOUT);
        }
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.ifindex() == index => {
                let direction = if from.pkttype() == libc::PACKET_OUTGOING { Direction::Out } else { Direction::In };
                let ethertype = u16::from_be(from.protocol());
                let packet = Packet { direction, ethertype, bytes: buffer[..length].to_vec() };
                if filter(&packet) {
                    caught.packets().push(packet);
                    caught.arrived.notify_all();
                }
            }
            Err(_) if end.is_some() => return,
            // A packet of another link, or the poll interval was over.
            _ => {}
        }
    }
}
