//! Whatever an unknown host sends to the UDP port of a device that has a session with somebody: nothing of it is
//! delivered unless it was said by the peer, the session goes on, and the peer stays where it is.
//!
//! The input is a list of datagrams: a byte that chooses a recorded message to start from (or none), two of length, two
//! of offset, and what is written there.
#![no_main]

use std::time::{Duration, SystemTime};

use bastiond_tunnel::internals::clock::Now;
use bastiond_tunnel::internals::coalesce::Offloads;
use bastiond_tunnel::internals::simulation::{Datagram, Node};
use bastiond_tunnel::model::{AllowedIp, PeerUpdate};
use bastiond_tunnel::key::PrivateKey;
use libfuzzer_sys::fuzz_target;

fn node(key: u8, address: &str) -> Node {
    let address = address.parse().expect("an address");
    Node::new(PrivateKey::from_bytes([key; 32]), address, Offloads { tcp: true, udp: true })
}

fn meet(one: &Node, other: &Node, allowed_ip: &str) {
    one.change(PeerUpdate {
        endpoint: Some(*other.socket.address.lock()),
        allowed_ips: vec![AllowedIp { net: allowed_ip.parse().expect("a network"), remove: false }],
        ..PeerUpdate::new(other.public_key)
    });
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
    let mut alice = node(1, "203.0.113.1:1000");
    let mut bob = node(2, "203.0.113.2:2000");
    meet(&alice, &bob, "10.0.0.2/32");
    meet(&bob, &alice, "10.0.0.1/32");
    let mut now = Now { elapsed: Duration::from_secs(1), wall: SystemTime::UNIX_EPOCH };
    let mut recorded: Vec<Vec<u8>> = Vec::new();
    alice.inside.put(&ipv4(ALICE, BOB));
    for _ in 0..4 {
        alice.run_once(now);
        let sent: Vec<Datagram> = alice.socket.sent.lock().drain(..).collect();
        recorded.extend(sent.iter().map(|datagram| datagram.bytes.clone()));
        bob.socket.arrived.lock().extend(sent);
        bob.run_once(now);
        let sent: Vec<Datagram> = bob.socket.sent.lock().drain(..).collect();
        recorded.extend(sent.iter().map(|datagram| datagram.bytes.clone()));
        alice.socket.arrived.lock().extend(sent);
    }
    assert_eq!(std::mem::take(&mut *bob.inside.delivered.lock()), [ipv4(ALICE, BOB)]);

    let unknown = "192.0.2.66:666".parse().expect("an address");
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
        bob.socket.arrived.lock().push_back(Datagram { from: unknown, to, tos: choice, bytes });
        bob.run_once(now);
        assert_eq!(*bob.inside.delivered.lock(), Vec::<Vec<u8>>::new(), "a packet of an unknown host was delivered");
    }

    let snapshot = bob.shared.table.read().snapshot();
    assert_eq!(snapshot.peers[0].endpoint, Some(*alice.socket.address.lock()), "an unknown host has moved the peer");
    bob.socket.sent.lock().clear();
    alice.inside.put(&ipv4(ALICE, BOB));
    alice.run_once(now);
    bob.socket.arrived.lock().extend(alice.socket.sent.lock().drain(..));
    bob.run_once(now);
    assert_eq!(*bob.inside.delivered.lock(), [ipv4(ALICE, BOB)], "the session is gone");
});
