//! A pretended world: a wire that keeps what is sent until somebody carries it on, and an inside that is two queues. Whole
//! devices run on it in one thread, with an eavesdropper between them who may lose, repeat, delay and forge.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use parking_lot::Mutex;

use super::packet::VNET_HEADER_LEN;
use super::transport::{Batch, Endpoint, RECEIVE_BATCH, Receive, Received, Run, Send, Sent, Tun};

/// One datagram on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, as the receiver sees it.
    pub from: SocketAddr,
    /// Whom it is for.
    pub to: SocketAddr,
    /// The outer type of service.
    pub tos: u8,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// One end's socket: what it sent and nobody has carried on, and what was brought to it.
#[derive(Debug)]
pub struct Socket {
    /// Its own address.
    pub address: Mutex<SocketAddr>,
    /// What it has sent.
    pub sent: Mutex<VecDeque<Datagram>>,
    /// What is there to be received.
    pub arrived: Mutex<VecDeque<Datagram>>,
    /// What a path to anywhere takes whole, bytes.
    pub path_mtu: Mutex<Option<usize>>,
}

impl Socket {
    /// A socket that nothing has passed yet.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address: Mutex::new(address),
            sent: Mutex::default(),
            arrived: Mutex::default(),
            path_mtu: Mutex::default(),
        }
    }
}

impl Send for Socket {
    fn send(&self, run: &Run<'_>) -> io::Result<Sent> {
        let from = *self.address.lock();
        let datagrams = run.bytes.chunks(run.segment.max(1)).map(|bytes| Datagram {
            from,
            to: run.endpoint.address,
            tos: run.tos,
            bytes: bytes.to_vec(),
        });
        self.sent.lock().extend(datagrams);
        Ok(Sent::Whole)
    }

    fn path_mtu(&self, _: &Endpoint) -> Option<usize> {
        *self.path_mtu.lock()
    }
}

impl Receive for &Socket {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        let mut arrived = self.arrived.lock();
        if arrived.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (buffers, received) = batch.refill();
        let count = arrived.len().min(RECEIVE_BATCH);
        for (buffer, datagram) in buffers.zip(arrived.drain(..count)) {
            let len = datagram.bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&datagram.bytes[..len]);
            let endpoint = Endpoint { address: datagram.from, local: Some(datagram.to.ip()) };
            received.push(Received { endpoint, len, segment: len.max(1), tos: datagram.tos });
        }
        Ok(())
    }
}

/// One end's inside.
#[derive(Debug, Default)]
pub struct Inside {
    /// Packets for the device, with or without an offload's header in front.
    pub outgoing: Mutex<VecDeque<Vec<u8>>>,
    /// Packets from the device, without their header.
    pub delivered: Mutex<Vec<Vec<u8>>>,
}

impl Inside {
    /// Gives the device a plain packet.
    pub fn put(&self, packet: &[u8]) {
        let mut bytes = vec![0; VNET_HEADER_LEN];
        bytes.extend_from_slice(packet);
        self.outgoing.lock().push_back(bytes);
    }

    /// Takes what the device has delivered.
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.delivered.lock())
    }
}

impl Tun for Inside {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.outgoing.lock().pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().skip(1).flat_map(|slice| slice.iter().copied()).collect();
        self.delivered.lock().push(bytes);
        Ok(())
    }
}
