//! Whatever a stranger sends to the UDP port of a device that has a session with somebody: nothing of it is delivered unless
//! it was said by the peer, the session goes on, and the peer stays where it is.
//!
//! The input is a list of datagrams: a byte that chooses a recorded message to start from (or none), two of length, two of
//! offset, and what is written there.
#![no_main]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime};

use bastiond::wireguard::device::clock::Now;
use bastiond::wireguard::device::coalesce::Offloads;
use bastiond::wireguard::device::inbound::Inbound;
use bastiond::wireguard::device::memory::{Datagram, Inside, Socket};
use bastiond::wireguard::device::model::{AllowedIp, PeerUpdate};
use bastiond::wireguard::device::outbound::Outbound;
use bastiond::wireguard::device::protocol::Protocol;
use bastiond::wireguard::device::shared::{Call, MAX_QUEUED_HANDSHAKES, Shared};
use bastiond::wireguard::key::{PrivateKey, PublicKey};
use libfuzzer_sys::fuzz_target;

struct Node {
    public: PublicKey,
    shared: Arc<Shared>,
    inside: Inside,
    socket: Socket,
    calls: Receiver<Call>,
    outbound: Outbound,
    inbound: Inbound,
    protocol: Protocol,
}

impl Node {
    fn new(key: u8, address: &str) -> Self {
        let (sender, calls) = sync_channel(MAX_QUEUED_HANDSHAKES);
        let shared = Arc::new(Shared::new(7, 1420, sender));
        let key = PrivateKey::from_bytes([key; 32]);
        let public = key.public();
        shared.table.write().set_private_key(Some(key));
        Self {
            public,
            inside: Inside::default(),
            socket: Socket::at(address.parse().expect("an address")),
            calls,
            outbound: Outbound::new(Arc::clone(&shared)),
            inbound: Inbound::new(Arc::clone(&shared), Offloads { tcp: true, udp: true }),
            protocol: Protocol::new(Arc::clone(&shared)),
            shared,
        }
    }

    fn knows(&self, other: &Node, allowed_ip: &str) {
        let net = allowed_ip.parse().expect("a network");
        self.shared.table.write().change(PeerUpdate {
            endpoint: Some(*other.socket.address.lock()),
            allowed_ips: vec![AllowedIp { net, remove: false }],
            ..PeerUpdate::of(other.public)
        });
    }

    fn turn(&mut self, now: Now) {
        self.outbound.pump(&self.inside, &self.socket, now).expect("the pretended inside gives no errors");
        self.inbound.pump(&mut &self.socket, &self.socket, &self.inside, now).expect("nor does the outside");
        while let Ok(call) = self.calls.try_recv() {
            match call {
                Call::Handshake(message) => {
                    let waiting = self.shared.taken();
                    self.protocol.receive(&message, waiting, &self.socket, now);
                }
                Call::Look => self.protocol.look(now),
            }
            for key in self.shared.asked() {
                self.protocol.initiate(&key, &self.socket, now);
            }
        }
        self.protocol.tick(&self.socket, now);
    }
}

fn ipv4(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 24, 0, 1, 0x40, 0, 64, 253, 0, 0];
    packet.extend([from, to].concat());
    packet.extend(b"true");
    packet
}

const ALICE: [u8; 4] = [10, 0, 0, 1];
const BOB: [u8; 4] = [10, 0, 0, 2];

fuzz_target!(|input: &[u8]| {
    let mut alice = Node::new(1, "203.0.113.1:1000");
    let mut bob = Node::new(2, "203.0.113.2:2000");
    alice.knows(&bob, "10.0.0.2/32");
    bob.knows(&alice, "10.0.0.1/32");
    let mut now = Now { elapsed: Duration::from_secs(1), wall: SystemTime::UNIX_EPOCH };
    let mut recorded: Vec<Vec<u8>> = Vec::new();
    alice.inside.put(&ipv4(ALICE, BOB));
    for _ in 0..4 {
        alice.turn(now);
        let sent: Vec<Datagram> = alice.socket.sent.lock().drain(..).collect();
        recorded.extend(sent.iter().map(|datagram| datagram.bytes.clone()));
        bob.socket.arrived.lock().extend(sent);
        bob.turn(now);
        let sent: Vec<Datagram> = bob.socket.sent.lock().drain(..).collect();
        recorded.extend(sent.iter().map(|datagram| datagram.bytes.clone()));
        alice.socket.arrived.lock().extend(sent);
    }
    assert_eq!(std::mem::take(&mut *bob.inside.delivered.lock()), [ipv4(ALICE, BOB)]);

    let stranger = "192.0.2.66:666".parse().expect("an address");
    let mut rest = input;
    while let Some((&[choice, len_low, len_high, at_low, at_high], tail)) = rest.split_first_chunk::<5>() {
        let len = usize::from(u16::from_le_bytes([len_low, len_high])).min(tail.len());
        let (written, tail) = tail.split_at(len);
        rest = tail;
        let mut bytes = recorded.get(usize::from(choice)).cloned().unwrap_or_default();
        let at = usize::from(u16::from_le_bytes([at_low, at_high])).min(bytes.len());
        bytes.truncate(bytes.len().max(at));
        bytes.splice(at..(at + len).min(bytes.len()), written.iter().copied());
        now.elapsed += Duration::from_millis(100);
        let to = *bob.socket.address.lock();
        bob.socket.arrived.lock().push_back(Datagram { from: stranger, to, tos: choice, bytes });
        bob.turn(now);
        assert_eq!(*bob.inside.delivered.lock(), Vec::<Vec<u8>>::new(), "a stranger was heard");
    }

    let snapshot = bob.shared.table.read().snapshot();
    assert_eq!(snapshot.peers[0].endpoint, Some(*alice.socket.address.lock()), "a stranger has moved the peer");
    bob.socket.sent.lock().clear();
    alice.inside.put(&ipv4(ALICE, BOB));
    alice.turn(now);
    bob.socket.arrived.lock().extend(alice.socket.sent.lock().drain(..));
    bob.turn(now);
    assert_eq!(*bob.inside.delivered.lock(), [ipv4(ALICE, BOB)], "the session is gone");
});
