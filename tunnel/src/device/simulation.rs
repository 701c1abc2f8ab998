//! A simulated world: a network that keeps what is sent until a test delivers it, and an inside that is two queues.
//! Whole devices run in it in one thread, and the test between them may lose, repeat, delay and forge datagrams.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};

use parking_lot::Mutex;

use super::clock::Now;
use super::coalesce::Offloads;
use super::inbound::{self, Inbound};
use super::outbound::{self, Outbound};
use super::packet::VNET_HEADER_LEN;
use super::protocol::Protocol;
use super::shared::{MAX_QUEUED_HANDSHAKES, ProtocolEvent, Shared};
use super::transport::{Batch, Endpoint, RECEIVE_BATCH, Received, Run, Sent, Tun, UdpReceive, UdpSend};
use crate::key::{PrivateKey, PublicKey};
use crate::model::{PeerSnapshot, PeerUpdate};

/// One datagram in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's address, as the receiver sees it.
    pub from: SocketAddr,
    /// The receiver's address.
    pub to: SocketAddr,
    /// The outer type of service.
    pub tos: u8,
    /// The UDP payload: a WireGuard message.
    pub bytes: Vec<u8>,
}

/// One device's socket: what it sent and was not delivered yet, and what was delivered to it.
#[derive(Debug)]
pub struct Socket {
    /// The address that the socket is bound to.
    pub address: Mutex<SocketAddr>,
    /// What it has sent and was not taken yet.
    pub sent: Mutex<VecDeque<Datagram>>,
    /// What waits to be received.
    pub arrived: Mutex<VecDeque<Datagram>>,
    /// The path MTU to every address, in bytes; `None`: unknown.
    pub path_mtu: Mutex<Option<usize>>,
}

impl Socket {
    /// A socket with empty queues.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address: Mutex::new(address),
            sent: Mutex::default(),
            arrived: Mutex::default(),
            path_mtu: Mutex::default(),
        }
    }
}

impl UdpSend for Socket {
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

impl UdpReceive for &Socket {
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

/// One device's inside.
#[derive(Debug, Default)]
pub struct Inside {
    /// Packets for the device, each behind its virtio-net header.
    pub outgoing: Mutex<VecDeque<Vec<u8>>>,
    /// Packets from the device, without their header.
    pub delivered: Mutex<Vec<Vec<u8>>>,
}

impl Inside {
    /// Queues a plain packet for the device.
    pub fn put(&self, packet: &[u8]) {
        let mut bytes = vec![0; VNET_HEADER_LEN];
        bytes.extend_from_slice(packet);
        self.outgoing.lock().push_back(bytes);
    }

    /// Takes the packets that the device has delivered.
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

/// A whole device without threads, which runs when [`Node::run_once`] is called.
#[derive(Debug)]
pub struct Node {
    /// The device's public key.
    pub public_key: PublicKey,
    /// What its threads would share.
    pub shared: Arc<Shared>,
    /// The simulated TUN interface.
    pub inside: Inside,
    /// The simulated UDP socket.
    pub socket: Socket,
    events: Receiver<ProtocolEvent>,
    outbound: Outbound,
    inbound: Inbound,
    protocol: Protocol,
}

impl Node {
    /// A device without peers.
    pub fn new(key: PrivateKey, address: SocketAddr, offloads: Offloads) -> Self {
        let (sender, events) = sync_channel(MAX_QUEUED_HANDSHAKES);
        // The same number in each run, so that a failure can be reproduced.
        let shared = Arc::new(Shared::new(0x1234_5678, 1420, sender));
        let public_key = key.public();
        shared.table.write().set_private_key(Some(key));
        Self {
            public_key,
            inside: Inside::default(),
            socket: Socket::new(address),
            events,
            outbound: Outbound::new(Arc::clone(&shared)),
            inbound: Inbound::new(Arc::clone(&shared), offloads),
            protocol: Protocol::new(Arc::clone(&shared)),
            shared,
        }
    }

    /// Changes a peer.
    pub fn change(&self, update: PeerUpdate) {
        let timed = self.shared.table.write().change(update);
        if let Some(peer) = timed {
            self.shared.start_timers(&peer);
        }
        self.shared.generation.fetch_add(1, Ordering::Release);
    }

    /// A peer as it is.
    pub fn peer(&self, key: &PublicKey) -> Option<PeerSnapshot> {
        let snapshot = self.shared.table.read().snapshot();
        snapshot.peers.into_iter().find(|peer| peer.public_key == *key)
    }

    /// Whether the device keeps a protocol core for this peer.
    pub fn is_awake(&self, key: &PublicKey) -> bool {
        self.shared.table.read().by_key(key).is_some_and(|peer| peer.lock().is_awake())
    }

    /// Carries and answers everything that waits.
    ///
    /// # Panics
    /// Never: the simulated world gives no errors.
    pub fn run_once(&mut self, now: Now) {
        self.outbound
            .pump(&self.inside, &self.socket, now, outbound::BUDGET)
            .expect("the simulated inside gives no errors");
        self.inbound
            .pump(&mut &self.socket, &self.socket, &self.inside, now, inbound::BUDGET)
            .expect("the simulated outside gives no errors");
        while let Ok(call) = self.events.try_recv() {
            match call {
                ProtocolEvent::Handshake(message) => {
                    let waiting = self.shared.take_queued();
                    self.protocol.receive(&message, waiting, &self.socket, now);
                }
                ProtocolEvent::Wake => self.protocol.tick_soon(now),
            }
            for key in self.shared.take_requested_handshakes() {
                self.protocol.initiate(&key, &self.socket, now);
            }
        }
        if self.protocol.next_tick().is_some_and(|at| at <= now.elapsed) {
            self.protocol.tick(&self.socket, now);
        }
    }

    /// Takes the datagrams that the device has sent.
    pub fn take_sent(&self) -> Vec<Datagram> {
        self.socket.sent.lock().drain(..).collect()
    }

    /// Delivers datagrams to the device.
    pub fn deliver(&self, datagrams: impl IntoIterator<Item = Datagram>) {
        self.socket.arrived.lock().extend(datagrams);
    }
}
