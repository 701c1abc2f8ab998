//! The interfaces of the data plane to the outside world: [`Tun`] reads and writes packets, [`UdpSend`] and
//! [`UdpReceive`] send and receive datagrams. [`super::tun`] and [`super::udp`] implement them with the kernel,
//! [`super::simulation`] without, so that whole devices run in a plain test.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

/// The most datagrams of one [`Run`]: what the kernel cuts one send into (`UDP_MAX_SEGMENTS`, linux/udp.h, before Linux
/// 6.9).
pub(crate) const MAX_SEGMENTS: usize = 64;
/// The most bytes of one [`Run`]: an IPv4 packet less its header and UDP's.
pub(crate) const MAX_RUN: usize = 65_507;
/// One receive buffer: the largest run that the kernel joins (`UDP_GRO`).
pub(crate) const RECEIVE_BUFFER: usize = 65_536;
/// The most receive buffers that one system call fills.
pub(crate) const RECEIVE_BATCH: usize = 16;

/// A peer's address, and our address to which it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Its address and port.
    pub address: SocketAddr,
    /// Our address to which it sent: answers leave from there, or a stateful firewall on the way drops them.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, local: None }
    }
}

/// Datagrams of one size (the last may be shorter) for one peer, to be sent in one system call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    /// The receiver.
    pub endpoint: Endpoint,
    /// The outer type of service or traffic class: ECN, and DSCP for handshakes.
    pub tos: u8,
    /// The datagrams, one after the other. Never empty.
    pub bytes: &'a [u8],
    /// The size of each but the last; 1 to `bytes.len()`.
    pub segment: usize,
}

/// How a run was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// As it was.
    Whole,
    /// From another address, since the one to which the peer sent is gone.
    FromOtherAddress,
    /// In fragments, since the path takes smaller datagrams only.
    Fragmented,
}

/// One receive buffer's contents: datagrams of one size (the last may be shorter) from one sender.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// The sender, and our address to which it sent.
    pub endpoint: Endpoint,
    /// Bytes in the buffer.
    pub len: usize,
    /// The size of each datagram but the last; at least 1.
    pub segment: usize,
    /// The outer type of service or traffic class.
    pub tos: u8,
}

/// Buffers for one receiving system call, and what they contain.
#[derive(Debug)]
pub(crate) struct Batch {
    buffers: Box<[u8]>,
    received: Vec<Received>,
}

impl Batch {
    /// Buffers that use memory only once they are filled.
    pub(crate) fn new() -> Self {
        Self {
            buffers: vec![0; RECEIVE_BUFFER * RECEIVE_BATCH].into_boxed_slice(),
            received: Vec::with_capacity(RECEIVE_BATCH),
        }
    }

    /// The buffers, and the list for what each is filled with, in order. The list is empty, and takes up to
    /// [`RECEIVE_BATCH`] entries.
    pub(crate) fn refill(&mut self) -> (std::slice::ChunksExactMut<'_, u8>, &mut Vec<Received>) {
        self.received.clear();
        (self.buffers.chunks_exact_mut(RECEIVE_BUFFER), &mut self.received)
    }

    /// What the last call received.
    pub(crate) fn received(&self) -> impl Iterator<Item = (&[u8], &Received)> {
        self.buffers
            .chunks_exact(RECEIVE_BUFFER)
            .zip(&self.received)
            .map(|(buffer, received)| (&buffer[..received.len.min(RECEIVE_BUFFER)], received))
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// The inside: complete IP packets, each behind a virtio-net header ([`super::packet::VnetHeader`]; zeroes without an
/// offload).
pub(crate) trait Tun {
    /// Reads one packet, header first; the number of bytes. `WouldBlock` if there is none.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes one packet; the first slice is the header.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Sends an ICMP message, without its IP header, from this host to an address inside; whether it could.
    fn send_icmp(&self, _to: IpAddr, _icmp: &[u8]) -> bool {
        false
    }
    /// The address of this host from which packets to this address leave, if it is known.
    fn source_towards(&self, _to: IpAddr) -> Option<IpAddr> {
        None
    }
}

/// The sending side of the outside.
pub(crate) trait UdpSend {
    /// Sends a run. May wait for the kernel to take it.
    fn send(&self, run: &Run<'_>) -> io::Result<Sent>;
    /// The largest IP packet, in bytes, that reaches this endpoint without fragmentation, if it is known.
    fn path_mtu(&self, endpoint: &Endpoint) -> Option<usize>;
}

/// The receiving side of the outside.
pub(crate) trait UdpReceive {
    /// Fills the batch with what waits; `WouldBlock` if nothing does.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;
}
