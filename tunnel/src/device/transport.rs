//! What the data plane needs from the world: something to read packets from and write them to, and something to send
//! datagrams with and receive them by. [`super::tun`] and [`super::udp`] are the kernel's; a test puts a pretended one there,
//! so that whole devices run in a plain test.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

/// The most datagrams of one [`Run`]: what the kernel cuts one send into (`UDP_MAX_SEGMENTS`, linux/udp.h, before Linux 6.9).
pub const MAX_SEGMENTS: usize = 64;
/// The most bytes of one [`Run`]: an IPv4 packet less its header and UDP's.
pub const MAX_RUN: usize = 65_507;
/// One receive buffer: the largest run that the kernel joins (`UDP_GRO`).
pub const RECEIVE_BUFFER: usize = 65_536;
/// Receive buffers that one system call may fill.
pub const RECEIVE_BATCH: usize = 16;

/// Where a peer is, and which of our addresses it speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Its address and port.
    pub address: SocketAddr,
    /// Our address that it spoke to: answers leave from there, or a stateful firewall on the way drops them.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { address, local: None }
    }
}

/// Datagrams of one size (the last may be shorter) for one peer, to be sent in one system call.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Where to.
    pub endpoint: Endpoint,
    /// The outer type of service or traffic class: ECN, and DSCP for handshakes.
    pub tos: u8,
    /// The datagrams, one behind the other. Never empty.
    pub bytes: &'a [u8],
    /// The size of each but the last; 1 to `bytes.len()`.
    pub segment: usize,
}

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It left as it was.
    Whole,
    /// Our address that the peer spoke to is gone; it left from another one.
    FromElsewhere,
    /// The path takes smaller datagrams only; it left in fragments.
    Fragmented,
}

/// One receive buffer's contents: datagrams of one size (the last may be shorter) from one sender.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// From where, and to which of our addresses.
    pub endpoint: Endpoint,
    /// Bytes in the buffer.
    pub len: usize,
    /// The size of each datagram but the last; at least 1.
    pub segment: usize,
    /// The outer type of service or traffic class.
    pub tos: u8,
}

/// Buffers for one receiving system call, and what it filled them with.
#[derive(Debug)]
pub struct Batch {
    buffers: Box<[u8]>,
    received: Vec<Received>,
}

impl Batch {
    /// Buffers that cost memory only once they are filled.
    pub fn new() -> Self {
        Self {
            buffers: vec![0; RECEIVE_BUFFER * RECEIVE_BATCH].into_boxed_slice(),
            received: Vec::with_capacity(RECEIVE_BATCH),
        }
    }

    /// The buffers, and the list to tell in order what each was filled with. The list is empty, and takes up to
    /// [`RECEIVE_BATCH`] entries.
    pub fn refill(&mut self) -> (std::slice::ChunksExactMut<'_, u8>, &mut Vec<Received>) {
        self.received.clear();
        (self.buffers.chunks_exact_mut(RECEIVE_BUFFER), &mut self.received)
    }

    /// What the last call brought.
    pub fn received(&self) -> impl Iterator<Item = (&[u8], &Received)> {
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

/// The inside: whole IP packets, each behind a virtio-net header ([`super::packet::VnetHeader`]; zeroed where nothing is
/// offloaded).
pub trait Tun {
    /// Reads one packet, header first; gives the number of bytes. `WouldBlock` when there is none.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes one packet; the first slice is the header.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()>;
}

/// The outside, as one sends into it.
pub trait Send {
    /// Sends a run. May wait for the kernel to take it.
    fn send(&self, run: &Run<'_>) -> io::Result<Sent>;
    /// The largest IP packet that gets to this endpoint whole, as far as it is known now.
    fn path_mtu(&self, endpoint: &Endpoint) -> Option<usize>;
}

/// The outside, as one receives from it.
pub trait Receive {
    /// Fills the batch with what is there; `WouldBlock` when there is nothing.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()>;
}
