//! Unusual moments, and what a peer or an unknown host may try.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;

use super::super::message::{self, Kind};
use super::super::packet::{GSO_NONE, VnetHeader};
use super::super::sample::{Flow, Sample};
use super::super::shared::{HandshakeMessage, MAX_QUEUED_HANDSHAKES};
use super::super::simulation::{Datagram, Node};
use super::super::transport::Endpoint;
use super::world::{World, node, packet, peer, psk};
use crate::model::PeerUpdate;

/// A world in which the addresses of [`Flow`] are Alice's (source) and Bob's (destination), too.
fn world_with_flows() -> World {
    let world = World::new();
    let (alice, bob) = (world.alice.public_key, world.bob.public_key);
    world.alice.change(peer(bob, None, &["10.0.0.2/32", "10.2.0.1/32", "fd00:2::1/128"]));
    world.bob.change(peer(alice, None, &["10.0.0.1/32", "10.1.0.1/32", "fd00:1::1/128"]));
    world
}

fn put(node: &Node, header: VnetHeader, packet: &[u8]) {
    node.inside.outgoing.lock().push_back([&header.to_bytes(), packet].concat());
}

/// Packets that do not join into few runs: each that follows a shorter one begins another.
fn uneven() -> Vec<Vec<u8>> {
    let text = |number: usize| format!("{number}{}", "x".repeat((1 - number % 2) * 300));
    (0..60).map(|number| packet("10.0.0.1", "10.0.0.2", &text(number))).collect()
}

#[test]
fn sessions_that_end_while_a_large_packet_is_sealed_lose_only_that_packet() {
    let mut world = world_with_flows();
    assert!(world.crosses("before"));
    let bob = Arc::clone(world.alice.shared.table.read().by_key(&world.bob.public_key).unwrap());
    let (header, large) = Sample::tcp(Flow::v4(1)).with_payload(60_000).offloaded(1000);
    let now = world.now();
    let over = AtomicBool::new(false);
    let survived = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                bob.lock().end_sessions();
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let survived = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..300 {
                put(&world.alice, header, &large);
                world.alice.run_once(now);
            }
        }));
        over.store(true, Ordering::Relaxed);
        survived
    });
    assert!(survived.is_ok());
}

#[test]
fn a_packet_larger_than_any_datagram_is_dropped() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    world.alice.shared.mtu.store(65_535, Ordering::Relaxed);
    let mut may_be_fragmented = packet("10.0.0.1", "10.0.0.2", &"x".repeat(65_490));
    may_be_fragmented[6] = 0;
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", &"x".repeat(65_490)));
    world.alice.inside.put(&may_be_fragmented);
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", &"x".repeat(65_440)));
    let (done, turned) = channel();
    std::thread::spawn(move || {
        world.settle();
        done.send(Box::new(world))
    });
    let mut world = turned.recv_timeout(Duration::from_secs(30)).expect("the way to the outside goes on");
    assert_eq!(world.bob.inside.take().len(), 1);
    assert_eq!(world.alice.shared.counters.too_big.load(Ordering::Relaxed), 2);
    assert!(world.crosses("after"));
}

#[test]
fn an_ipv6_packet_that_every_link_has_to_take_crosses_a_path_that_does_not_take_it_whole() {
    let mut world = world_with_flows();
    *world.alice.socket.path_mtu.lock() = Some(1300);
    assert!(world.crosses("small"));
    world.elapsed += Duration::from_secs(2);
    world.settle();
    // RFC 8200 section 5: a host ignores an MTU below 1280.
    let smallest_mtu = Sample::udp(Flow::v6(1)).with_payload(1280 - 48).bytes();
    world.alice.inside.put(&smallest_mtu);
    world.alice.inside.put(&Sample::udp(Flow::v6(1)).with_payload(1281 - 48).bytes());
    world.settle();
    assert_eq!(world.bob.inside.take(), [smallest_mtu]);
    let icmp_errors = world.alice.inside.take();
    assert_eq!((icmp_errors.len(), icmp_errors[0][40], &icmp_errors[0][44..48]), (1, 2, &1280_u32.to_be_bytes()[..]));
}

#[test]
fn a_packet_that_is_fragmented_outside_has_the_right_checksum() {
    let mut world = world_with_flows();
    *world.alice.socket.path_mtu.lock() = Some(1300);
    assert!(world.crosses("small"));
    world.elapsed += Duration::from_secs(2);
    world.settle();
    let sample = Sample { df: false, ..Sample::udp(Flow::v4(1)) }.with_payload(1350);
    let (header, bytes) = sample.offloaded(0);
    put(&world.alice, VnetHeader { gso_type: GSO_NONE, ..header }, &bytes);
    world.settle();
    assert_eq!(world.bob.inside.take(), [sample.bytes()]);
}

#[test]
fn waiting_packets_of_different_lengths_all_arrive_whichever_side_starts_the_handshake() {
    let mut world = World::new();
    let packets = uneven();
    for packet in &packets {
        world.alice.inside.put(packet);
    }
    world.settle();
    assert_eq!(world.bob.inside.take(), packets);

    let mut world = World::new();
    assert!(world.crosses("so that each knows where the other is"));
    let bob = world.bob.public_key;
    world.alice.shared.table.read().by_key(&bob).unwrap().lock().end_sessions();
    for packet in &packets {
        world.alice.inside.put(packet);
    }
    // Alice's own handshakes do not get through; Bob's does.
    let from_alice = "203.0.113.1:1000".parse().unwrap();
    world.settle_with(|datagram| datagram.from != from_alice);
    world.elapsed += Duration::from_secs(1);
    world.bob.shared.initiate(world.alice.public_key);
    world.settle();
    assert_eq!(world.bob.inside.take(), packets);
}

/// The kernel refuses such a number (receive.c, `counter_validate`). The core would count past the end: a panic where
/// overflows are checked, and a replay window that starts over where they are not.
#[test]
fn a_counter_beyond_the_last_message_of_a_session_is_refused_before_it_is_opened() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    let data = |datagram: &&Datagram| message::kind(&datagram.bytes) == Some(Kind::Data);
    let mut bytes = world.overheard.iter().rfind(data).unwrap().bytes.clone();
    let table = world.bob.shared.table.read();
    let mut state = table.by_key(&world.alice.public_key).unwrap().lock();
    let from = Endpoint::from(*world.alice.socket.address.lock());
    let mut open = |counter: u64| {
        bytes[8..16].copy_from_slice(&counter.to_le_bytes());
        state.open(&from, &bytes, &mut vec![0; bytes.len()], world.now())
    };
    let last = u64::MAX - (1 << 13) - 1;
    assert!(matches!(open(last), Err(WireGuardError::InvalidAeadTag)), "it would be opened if it were authentic");
    for counter in [last + 1, u64::MAX] {
        assert!(matches!(open(counter), Err(WireGuardError::InvalidCounter)), "{counter}");
    }
}

#[test]
fn a_preshared_key_that_changes_twice_keeps_the_present_session() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    let bob = world.bob.public_key;
    for byte in 1..4 {
        world.alice.change(PeerUpdate { preshared_key: Some(psk(byte)), ..PeerUpdate::new(bob) });
        assert!(world.crosses("there"), "key {byte}");
        assert!(world.crosses_back("back"), "key {byte}");
    }
}

#[test]
fn a_requested_handshake_does_not_wait_for_the_end_of_a_flood() {
    let mut world = World::new();
    for _ in 0..MAX_QUEUED_HANDSHAKES {
        let from = Endpoint::from(SocketAddr::from(([192, 0, 2, 66], 666)));
        world.alice.shared.queue_handshake(HandshakeMessage { from, len: 1, bytes: [0; message::INITIATION_LEN] });
    }
    let (shared, bob) = (Arc::clone(&world.alice.shared), world.bob.public_key);
    let (done, asked) = channel();
    std::thread::spawn(move || {
        shared.initiate(bob);
        done.send(())
    });
    asked.recv_timeout(Duration::from_secs(30)).expect("it does not wait");
    world.settle();
    assert_eq!(world.kinds_overheard()[..2], [Kind::Initiation, Kind::Response]);
}

#[test]
fn an_initiation_without_an_answer_makes_no_protocol_core() {
    let mut world = World::new();
    let carol = node("203.0.113.1:1000");
    let (alice, bob) = (world.alice.public_key, world.bob.public_key);
    assert!(world.crosses("Alice is known at this address"));
    world.bob.shared.table.read().by_key(&alice).unwrap().lock().end_sessions();
    // Carol has it now; Bob tries whether she is Alice.
    world.bob.change(peer(carol.public_key, None, &["10.0.0.3/32"]));
    carol.change(peer(bob, Some("203.0.113.2:2000".parse().unwrap()), &["10.0.0.2/32"]));
    carol.inside.put(&packet("10.0.0.3", "10.0.0.2", "I am not Alice"));
    let former = std::mem::replace(&mut world.alice, carol);
    world.elapsed += Duration::from_secs(1);
    world.settle();
    assert_eq!(world.bob.inside.take().len(), 1);
    assert!(world.bob.is_awake(&world.alice.public_key));
    assert!(!world.bob.is_awake(&former.public_key));
}
