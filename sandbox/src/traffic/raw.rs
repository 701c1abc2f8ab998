//! Exchanges in protocols that the machine's kernel need not have, by raw sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use etherparse::Ipv4HeaderSlice;
use rustix::net::{AddressFamily, Protocol, SocketType};

use super::probe::ProbeFailure;
use super::served::Served;
use super::wait::{is_poll_timeout, set_poll_interval};
use crate::namespace::Namespace;
use crate::timeouts::scaled;

/// What an echo adds to a packet. A packet that ends so is an answer, and gets none.
const ANSWERED: &[u8] = b" answered";

/// A host that answers the packets of one protocol inside IPv4. While it runs, its kernel does not answer that the
/// protocol is unreachable.
#[derive(Debug)]
pub struct RawReflector(Served<Ipv4Addr>);

impl RawReflector {
    /// Answers each packet with its own bytes and a few more.
    pub fn echo(namespace: &Namespace, protocol: u8) -> io::Result<Self> {
        Self::start(namespace, protocol, |packet| (!packet.ends_with(ANSWERED)).then(|| [packet, ANSWERED].concat()))
    }

    /// Answers packets, given without their IP header, by `answer`. Those that it does not answer do not count as seen.
    pub fn start(
        namespace: &Namespace,
        protocol: u8,
        answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> io::Result<Self> {
        let socket = namespace.run(|| open(protocol))?;
        let served = Served::start(namespace, move |seen, stop| {
            let mut buffer = [0; 2000];
            while !stop.load(Ordering::Relaxed) {
                let Ok((source, packet)) = receive(&socket, &mut buffer) else { continue };
                let Some(answer) = answer(packet) else { continue };
                seen.lock().push(source);
                let _ = socket.send_to(&answer, (source, 0));
            }
        });
        Ok(Self(served))
    }

    /// The sources of the packets that were answered, in the order of arrival.
    pub fn seen(&self) -> Vec<Ipv4Addr> {
        self.0.seen()
    }
}

/// A client of one protocol inside IPv4, without a kernel that speaks it.
#[derive(Debug)]
pub struct RawClient(UdpSocket);

impl RawClient {
    /// Opens it in a namespace.
    pub fn open(namespace: &Namespace, protocol: u8) -> io::Result<Self> {
        namespace.run(|| open(protocol)).map(Self)
    }

    /// Sends a packet without its IP header, and returns the first packet that comes back from the same host.
    pub fn exchange(&self, to: Ipv4Addr, packet: &[u8], timeout: Duration) -> Result<Vec<u8>, ProbeFailure> {
        self.0.send_to(packet, (to, 0))?;
        let end = Instant::now() + scaled(timeout);
        let mut buffer = [0; 2000];
        while Instant::now() < end {
            match receive(&self.0, &mut buffer) {
                Ok((source, answer)) if source == to => return Ok(answer.to_vec()),
                Ok(_) => {}
                Err(error) if is_poll_timeout(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ProbeFailure::Timeout)
    }
}

/// One exchange with [`RawReflector::echo`].
pub fn raw_probe(
    from: &Namespace,
    protocol: u8,
    to: Ipv4Addr,
    packet: &[u8],
    timeout: Duration,
) -> Result<(), ProbeFailure> {
    let answer = RawClient::open(from, protocol)?.exchange(to, packet, timeout)?;
    let expected = [packet, ANSWERED].concat();
    if answer == expected { Ok(()) } else { Err(ProbeFailure::UnexpectedAnswer(format!("{answer:?}"))) }
}

/// Sends one packet without its IP header.
pub fn send_raw(from: &Namespace, protocol: u8, to: Ipv4Addr, packet: &[u8]) -> io::Result<()> {
    from.run(|| open(protocol))?.send_to(packet, (to, 0)).map(drop)
}

/// A socket for all packets of a protocol. The standard library's type fits: both send and receive datagrams.
fn open(protocol: u8) -> io::Result<UdpSocket> {
    let protocol = NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, protocol)?;
    set_poll_interval(&socket)?;
    Ok(UdpSocket::from(socket))
}

/// The next packet without its IP header, and its source.
fn receive<'b>(socket: &UdpSocket, buffer: &'b mut [u8]) -> io::Result<(Ipv4Addr, &'b [u8])> {
    let (length, source) = socket.recv_from(buffer)?;
    let packet = &buffer[..length];
    let header = Ipv4HeaderSlice::from_slice(packet).map_err(io::Error::other)?.slice().len();
    match source {
        SocketAddr::V4(source) => Ok((*source.ip(), &packet[header..])),
        SocketAddr::V6(source) => Err(io::Error::other(format!("{} is no IPv4 address", IpAddr::from(*source.ip())))),
    }
}
