//! Two devices, a wire between them, and a clock that the test turns.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use super::super::clock::Now;
use super::super::coalesce::Offloads;
use super::super::message::{self, Kind};
use super::super::simulation::{Datagram, Node};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::model::{AllowedIp, PeerUpdate};

/// A device with a key of its own, whose interface takes one packet at a time.
pub(super) fn node(address: &str) -> Node {
    Node::new(PrivateKey::generate(), address.parse().unwrap(), Offloads::default())
}

/// What an update of a peer says, in few words.
pub(super) fn peer(key: PublicKey, endpoint: Option<SocketAddr>, allowed_ips: &[&str]) -> PeerUpdate {
    let allowed_ips = allowed_ips.iter().map(|net| AllowedIp { net: net.parse().unwrap(), remove: false }).collect();
    PeerUpdate { endpoint, allowed_ips, replace_allowed_ips: true, ..PeerUpdate::new(key) }
}

/// Alice (10.0.0.1, who knows where Bob is) and Bob (10.0.0.2, who does not know where Alice is).
pub(super) struct World {
    pub(super) alice: Node,
    pub(super) bob: Node,
    pub(super) elapsed: Duration,
    /// Everything that was ever on the wire.
    pub(super) overheard: Vec<Datagram>,
}

impl World {
    pub(super) fn new() -> Self {
        let alice = node("203.0.113.1:1000");
        let bob = node("203.0.113.2:2000");
        alice.change(peer(bob.public_key, Some("203.0.113.2:2000".parse().unwrap()), &["10.0.0.2/32"]));
        bob.change(peer(alice.public_key, None, &["10.0.0.1/32"]));
        Self { alice, bob, elapsed: Duration::from_secs(1), overheard: Vec::new() }
    }

    pub(super) fn now(&self) -> Now {
        Now { elapsed: self.elapsed, wall: SystemTime::UNIX_EPOCH + self.elapsed }
    }

    /// Lets both ends work and carries everything that passes `keep` from one to the other, until nothing moves.
    pub(super) fn settle_with(&mut self, mut keep: impl FnMut(&Datagram) -> bool) {
        for _ in 0..1000 {
            let now = self.now();
            self.alice.run_once(now);
            self.bob.run_once(now);
            let mut moved: Vec<Datagram> = self.alice.take_sent();
            moved.extend(self.bob.take_sent());
            if moved.is_empty() {
                return;
            }
            self.overheard.extend(moved.iter().cloned());
            for datagram in moved.into_iter().filter(|datagram| keep(datagram)) {
                if datagram.to == *self.alice.socket.address.lock() {
                    self.alice.deliver([datagram]);
                } else if datagram.to == *self.bob.socket.address.lock() {
                    self.bob.deliver([datagram]);
                }
            }
        }
        panic!("two devices talk to each other without end");
    }

    pub(super) fn settle(&mut self) {
        self.settle_with(|_| true);
    }

    pub(super) fn kinds_overheard(&self) -> Vec<Kind> {
        self.overheard.iter().filter_map(|datagram| message::kind(&datagram.bytes)).collect()
    }

    /// A packet from Alice's inside to Bob's, and whether it got there as it was.
    pub(super) fn crosses(&mut self, text: &str) -> bool {
        let packet = packet("10.0.0.1", "10.0.0.2", text);
        self.alice.inside.put(&packet);
        self.settle();
        self.bob.inside.take() == [packet]
    }

    pub(super) fn crosses_back(&mut self, text: &str) -> bool {
        let packet = packet("10.0.0.2", "10.0.0.1", text);
        self.bob.inside.put(&packet);
        self.settle();
        self.alice.inside.take() == [packet]
    }

    #[cfg(feature = "virtual-clock")]
    pub(super) fn pass(&mut self, time: Duration) {
        self.pass_with(time, |_, _| true);
    }

    /// Lets time pass in steps of a quarter of a second, in which both ends do their work.
    #[cfg(feature = "virtual-clock")]
    pub(super) fn pass_with(&mut self, time: Duration, mut keep: impl FnMut(&Datagram, Duration) -> bool) {
        const STEP: Duration = Duration::from_millis(250);
        let end = self.elapsed + time;
        while self.elapsed < end {
            self.elapsed += STEP;
            mock_instant::MockClock::advance(STEP);
            let elapsed = self.elapsed;
            self.settle_with(|datagram| keep(datagram, elapsed));
        }
    }
}

/// A whole IPv4 packet (protocol 253, for experiments: RFC 3692) with this text in it.
pub(super) fn packet(from: &str, to: &str, text: &str) -> Vec<u8> {
    let (from, to): (Ipv4Addr, Ipv4Addr) = (from.parse().unwrap(), to.parse().unwrap());
    let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 253, 0, 0];
    bytes.extend_from_slice(&from.octets());
    bytes.extend_from_slice(&to.octets());
    bytes.extend_from_slice(text.as_bytes());
    let len = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    let mut sum: u32 = bytes[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[10..12].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    bytes
}

pub(super) fn psk(byte: u8) -> PresharedKey {
    PresharedKey([byte; 32])
}
