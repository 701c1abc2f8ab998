//! Frames of the smallest size, as many as one core can send, counted where they arrive.

use std::io::{self, IoSlice};
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use etherparse::{Ethernet2Header, Ipv4Header, UdpHeader, ether_type, ip_number};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrLike as _, bind, sendmmsg, socket,
};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::namespace::{self, Namespace};

/// The smallest Ethernet frame without its checksum, which virtual links do not have: 64 bytes on a wire (IEEE 802.3).
const FRAME: usize = 60;
/// The UDP length of every frame, by which a [`Sink`] recognizes them.
#[expect(clippy::cast_possible_truncation, reason = "60 fits into 16 bits")]
const UDP_LENGTH: u16 = (FRAME - Ethernet2Header::LEN - Ipv4Header::MIN_LEN) as u16;
/// Frames in one system call: so many that the cost of the call does not matter.
const BATCH: usize = 64;

/// A packet socket that sends the frames of UDP flows over one link.
#[derive(Debug)]
pub struct PacketGenerator {
    socket: OwnedFd,
    source: [u8; 6],
    router: [u8; 6],
}

/// What a [`PacketGenerator`] sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorReport {
    /// Frames that the link accepted.
    pub frames: u64,
    /// Time from the first to the last frame.
    pub elapsed: Duration,
    /// The processor time of the sending thread, in which the frames are forwarded and received too. Other load of the
    /// machine does not add to it.
    pub processor_time: Duration,
}

impl PacketGenerator {
    /// Sends from `link` of `namespace` to the neighbour with the hardware address `router`.
    ///
    /// On a veth pair the core that sends a frame also forwards and receives it, one by one: the rate is the inverse of
    /// the cost of a packet.
    pub fn open(namespace: &Namespace, link: &str, router: [u8; 6]) -> io::Result<Self> {
        let (socket, source) = open_packet_socket(namespace, link)?;
        Ok(Self { socket, source, router })
    }

    /// Sends one frame for each flow, in turn.
    pub fn once(&self, flows: impl IntoIterator<Item = Flow>) -> io::Result<GeneratorReport> {
        let frames: Vec<Frame> = flows.into_iter().map(|flow| self.frame(flow)).collect();
        let (start, worked) = (Instant::now(), processor_time()?);
        self.send(&frames)?;
        let processor_time = processor_time()?.saturating_sub(worked);
        Ok(GeneratorReport { frames: frames.len() as u64, elapsed: start.elapsed(), processor_time })
    }

    /// Sends the flows' frames in turn, repeatedly, for `duration`.
    ///
    /// # Panics
    /// `flows` is empty.
    pub fn repeat(&self, flows: &[Flow], duration: Duration) -> io::Result<GeneratorReport> {
        assert!(!flows.is_empty(), "at least one flow must send");
        let frames = flows.len().next_multiple_of(BATCH);
        let frames: Vec<Frame> = flows.iter().cycle().take(frames).map(|&flow| self.frame(flow)).collect();
        let (start, worked, mut rounds) = (Instant::now(), processor_time()?, 0);
        while start.elapsed() < duration {
            self.send(&frames)?;
            rounds += 1;
        }
        let processor_time = processor_time()?.saturating_sub(worked);
        Ok(GeneratorReport { frames: rounds * frames.len() as u64, elapsed: start.elapsed(), processor_time })
    }

    fn frame(&self, flow: Flow) -> Frame {
        Frame::new(self.source, self.router, flow)
    }

    fn send(&self, frames: &[Frame]) -> io::Result<()> {
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        for batch in frames.chunks(BATCH) {
            let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|frame| [IoSlice::new(&frame.0)]).collect();
            let mut left = &slices[..];
            while !left.is_empty() {
                // Without addresses the frames go to the link that the socket is bound to.
                let addresses = [None; BATCH];
                let sent = sendmmsg(self.socket.as_raw_fd(), &mut headers, left, addresses, [], MsgFlags::empty())?;
                left = &left[sent.count()..];
            }
        }
        Ok(())
    }
}

/// The processor time of this thread.
fn processor_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// A socket that sends frames over `link` of `namespace`, and the link's hardware address.
pub(super) fn open_packet_socket(namespace: &Namespace, link: &str) -> io::Result<(OwnedFd, [u8; 6])> {
    namespace.run(|| {
        let address = link_address(link)?;
        // Protocol 0 means that the socket receives nothing; otherwise the kernel would copy every frame to it.
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &address)?;
        Ok((socket, address.addr().unwrap_or_default()))
    })
}

/// The hardware address and the index of a link of the calling thread's namespace.
pub(super) fn link_address(link: &str) -> io::Result<LinkAddr> {
    getifaddrs()?
        .filter(|found| found.interface_name == link)
        .find_map(|found| found.address?.as_link_addr().copied())
        .filter(|address| address.family() == Some(AddressFamily::Packet))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no link {link}")))
}

/// The addresses and ports of a UDP flow, seen from its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// The sender.
    pub source: SocketAddrV4,
    /// The receiver.
    pub target: SocketAddrV4,
}

/// An Ethernet frame with a UDP datagram of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame([u8; FRAME]);

impl Frame {
    fn new(source: [u8; 6], router: [u8; 6], flow: Flow) -> Self {
        let ethernet = Ethernet2Header { source, destination: router, ether_type: ether_type::IPV4 };
        let (from, to) = (flow.source.ip().octets(), flow.target.ip().octets());
        // `new` sets "do not fragment".
        let mut ip = Ipv4Header::new(UDP_LENGTH, 64, ip_number::UDP, from, to).expect("a short datagram fits");
        ip.header_checksum = ip.calc_header_checksum();
        let udp = UdpHeader {
            source_port: flow.source.port(),
            destination_port: flow.target.port(),
            length: UDP_LENGTH,
            // 0 means that there is none (RFC 768).
            checksum: 0,
        };
        let headers = [&ethernet.to_bytes()[..], &ip.to_bytes(), &udp.to_bytes()].concat();
        let mut bytes = [0; FRAME];
        bytes[..headers.len()].copy_from_slice(&headers);
        Self(bytes)
    }
}

/// Counts and drops the frames of a [`PacketGenerator`] as soon as they arrive on a link.
///
/// Other packets pass, so that a flow can be opened beforehand with datagrams of another length.
#[derive(Debug)]
pub struct Sink<'n> {
    namespace: &'n Namespace,
}

impl<'n> Sink<'n> {
    /// Installs it on `link` of `namespace` until the value is dropped.
    pub fn install(namespace: &'n Namespace, link: &str) -> Result<Self, namespace::Error> {
        namespace.nft(&format!(
            "table netdev sink {{
                 counter frames {{ }}
                 chain arrivals {{
                     type filter hook ingress device \"{link}\" priority 0; policy accept;
                     udp length {UDP_LENGTH} counter name frames drop
                 }}
             }}"
        ))?;
        Ok(Self { namespace })
    }

    /// The number of frames that have arrived so far.
    ///
    /// # Panics
    /// The table of the sink was deleted.
    pub fn frames(&self) -> Result<u64, namespace::Error> {
        let listing: Value = self.namespace.nft_json("list counter netdev sink frames")?;
        let mut objects = listing["nftables"].as_array().into_iter().flatten();
        let counter = objects.find_map(|object| object["counter"]["packets"].as_u64());
        Ok(counter.expect("the counter is listed"))
    }

    /// The number of frames once no more arrive, as some wait in queues for milliseconds. It gives up after about a
    /// second if frames keep arriving.
    pub fn settled_frames(&self) -> Result<u64, namespace::Error> {
        let mut frames = self.frames()?;
        for _ in 0..64 {
            std::thread::sleep(Duration::from_millis(10));
            let before = std::mem::replace(&mut frames, self.frames()?);
            if before == frames {
                break;
            }
        }
        Ok(frames)
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        // An error means that the table is gone already, or that its namespace is.
        let _ = self.namespace.nft("delete table netdev sink");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_frame_has_the_bytes_that_the_standards_require() {
        let flow = Flow {
            source: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 4), 20_000),
            target: SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 10), 9),
        };
        let mut expected = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 4, 0x08, 0x00];
        // The checksum by hand: the other words sum up to 0x1f980, folded 0xf981.
        expected.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0x6, 0x7e, 10, 0, 0, 4, 198, 51, 100, 10]);
        expected.extend([0x4e, 0x20, 0, 9, 0, 26, 0, 0]);
        expected.resize(60, 0);
        assert_eq!(Frame::new([2, 0, 0, 0, 0, 4], [2, 0, 0, 0, 0, 2], flow).0.to_vec(), expected);
    }
}
