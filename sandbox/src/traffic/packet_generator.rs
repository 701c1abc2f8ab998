//! The smallest frames, as many as one core can make, counted where they arrive.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrLike as _, bind, sendmmsg, socket,
};
use serde_json::Value;

use crate::namespace::{self, Namespace};

/// The smallest Ethernet frame without its checksum, which virtual links do not have: 64 bytes on a wire (IEEE 802.3).
const FRAME: usize = 60;
const ETHERNET: usize = 14;
const IPV4: usize = 20;
/// The UDP length of every frame, by which a [`Sink`] knows them.
const UDP: usize = FRAME - ETHERNET - IPV4;
/// Frames for one system call: enough that its price vanishes.
const BATCH: usize = 64;

/// Where a packet socket is told to send frames, and the frames' own way to the first router.
#[derive(Debug)]
pub struct PacketGenerator {
    socket: OwnedFd,
    source: [u8; 6],
    router: [u8; 6],
}

/// How much left a [`PacketGenerator`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorReport {
    /// Frames handed to the link.
    pub frames: u64,
    /// Time between the first and the last.
    pub elapsed: Duration,
}

impl PacketGenerator {
    /// Sends from `link` of `namespace` to the neighbour with the hardware address `router`.
    ///
    /// On a pair of virtual links the frames are carried, forwarded and received by the core that sends them, one by one: the
    /// rate is the inverse of what a packet costs.
    pub fn open(namespace: &Namespace, link: &str, router: [u8; 6]) -> io::Result<Self> {
        let open = || -> io::Result<_> {
            let address = link_address(link)?;
            // Protocol 0: it only sends; a listener would get, and pay for, a copy of every frame.
            let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &address)?;
            Ok((socket, address.addr().unwrap_or_default()))
        };
        let (socket, source) = namespace.run(open)?;
        Ok(Self { socket, source, router })
    }

    /// Sends one frame for each flow, in turn.
    pub fn once(&self, flows: impl IntoIterator<Item = Flow>) -> io::Result<GeneratorReport> {
        let frames: Vec<Frame> = flows.into_iter().map(|flow| self.frame(flow)).collect();
        let start = Instant::now();
        self.send(&frames)?;
        Ok(GeneratorReport { frames: frames.len() as u64, elapsed: start.elapsed() })
    }

    /// Sends the flows' frames in turn, again and again for so long.
    ///
    /// # Panics
    /// There is no flow.
    pub fn repeat(&self, flows: &[Flow], duration: Duration) -> io::Result<GeneratorReport> {
        assert!(!flows.is_empty(), "somebody must send");
        let frames = flows.len().next_multiple_of(BATCH);
        let frames: Vec<Frame> = flows.iter().cycle().take(frames).map(|&flow| self.frame(flow)).collect();
        let (start, mut rounds) = (Instant::now(), 0);
        while start.elapsed() < duration {
            self.send(&frames)?;
            rounds += 1;
        }
        Ok(GeneratorReport { frames: rounds * frames.len() as u64, elapsed: start.elapsed() })
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
                // To where the socket is bound.
                let nowhere = [None; BATCH];
                let sent = sendmmsg(self.socket.as_raw_fd(), &mut headers, left, nowhere, [], MsgFlags::empty())?;
                left = &left[sent.count()..];
            }
        }
        Ok(())
    }
}

/// The link's hardware address, with its index.
fn link_address(link: &str) -> io::Result<LinkAddr> {
    getifaddrs()?
        .filter(|found| found.interface_name == link)
        .find_map(|found| found.address?.as_link_addr().copied())
        .filter(|address| address.family() == Some(AddressFamily::Packet))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no link {link}")))
}

/// A UDP flow, from its sender's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// From.
    pub source: SocketAddrV4,
    /// To.
    pub target: SocketAddrV4,
}

/// A whole frame with a UDP datagram of zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame([u8; FRAME]);

impl Frame {
    fn new(source: [u8; 6], router: [u8; 6], flow: Flow) -> Self {
        let mut bytes = [0; FRAME];
        bytes[..6].copy_from_slice(&router);
        bytes[6..12].copy_from_slice(&source);
        bytes[12..ETHERNET].copy_from_slice(&[0x08, 0x00]);
        bytes[ETHERNET..ETHERNET + IPV4].copy_from_slice(&ipv4_header(*flow.source.ip(), *flow.target.ip()));
        let udp = &mut bytes[ETHERNET + IPV4..];
        udp[..2].copy_from_slice(&flow.source.port().to_be_bytes());
        udp[2..4].copy_from_slice(&flow.target.port().to_be_bytes());
        udp[4..6].copy_from_slice(&short(UDP).to_be_bytes());
        // The checksum stays 0: none (RFC 768).
        Self(bytes)
    }
}

/// A header for a datagram of [`UDP`] bytes (RFC 791).
fn ipv4_header(source: Ipv4Addr, target: Ipv4Addr) -> [u8; IPV4] {
    let mut header = [0; IPV4];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&short(IPV4 + UDP).to_be_bytes());
    // Do not fragment; 64 hops; UDP.
    header[6] = 0x40;
    header[8] = 64;
    header[9] = 17;
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&target.octets());
    let words = header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded to 16 bits");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("a frame is short")
}

/// Takes the frames of a [`PacketGenerator`] off a link as soon as they arrive, and counts them.
///
/// Everything else passes: the flows can be opened beforehand, by datagrams of another length.
#[derive(Debug)]
pub struct Sink<'n> {
    namespace: &'n Namespace,
}

impl<'n> Sink<'n> {
    /// On `link` of `namespace`, until it is dropped.
    pub fn install(namespace: &'n Namespace, link: &str) -> Result<Self, namespace::Error> {
        namespace.nft(&format!(
            "table netdev sink {{
                 counter frames {{ }}
                 chain arrivals {{
                     type filter hook ingress device \"{link}\" priority 0; policy accept;
                     udp length {UDP} counter name frames drop
                 }}
             }}"
        ))?;
        Ok(Self { namespace })
    }

    /// Frames that have arrived so far.
    ///
    /// # Panics
    /// Somebody has deleted the sink's table.
    pub fn frames(&self) -> Result<u64, namespace::Error> {
        let listing: Value = self.namespace.nft_json("list counter netdev sink frames")?;
        let mut objects = listing["nftables"].as_array().into_iter().flatten();
        let counter = objects.find_map(|object| object["counter"]["packets"].as_u64());
        Ok(counter.expect("the counter is listed"))
    }

    /// The same, once no more come: those under way wait in queues for milliseconds. It gives up on a stream without end
    /// after about a second.
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
        // Err: it is gone already, or goes with its namespace.
        let _ = self.namespace.nft("delete table netdev sink");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_the_standards_have_it() {
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
