//! Who is refused, and that it is counted by address, key and reason.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::super::simulation::Datagram;
use super::world::{World, node, packet, peer, psk};
use crate::key::PublicKey;
use crate::model::{ForeignSource, PeerUpdate, RefusedCount, RefusedPeer, UnknownKey};

fn bob_at() -> SocketAddr {
    "203.0.113.2:2000".parse().unwrap()
}

/// The first message of somebody who takes Bob for the owner of `server_key`.
fn knock(from: &str, server_key: PublicKey, world: &World) -> (PublicKey, Datagram) {
    let mut stranger = node(from);
    stranger.change(peer(server_key, Some(bob_at()), &["10.0.0.2/32"]));
    stranger.inside.put(&packet("10.0.0.7", "10.0.0.2", "let me in"));
    stranger.run_once(world.now());
    (stranger.public_key, stranger.take_sent().remove(0))
}

#[test]
fn an_unknown_key_is_counted_with_its_address() {
    let mut world = World::new();
    let mut last = None;
    for _ in 0..12 {
        let (key, datagram) = knock("192.0.2.7:1000", world.bob.public_key, &world);
        world.bob.deliver([datagram]);
        world.bob.run_once(world.now());
        last = Some(key);
    }
    let expected = UnknownKey {
        address: "192.0.2.7".parse().unwrap(),
        public_key: last.unwrap(),
        times: 12,
        last: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
    };
    assert_eq!(world.bob.shared.refused().handshakes.unknown_keys, [expected]);
    assert_eq!(world.bob.take_sent(), [], "it gets no answer");
    assert!(world.crosses("known peers get in"));
}

#[test]
fn a_key_for_another_server_a_replay_and_a_wrong_answer_are_told_apart() {
    let mut world = World::new();
    assert!(world.crosses("hello"));
    let elsewhere: SocketAddr = "192.0.2.66:666".parse().unwrap();
    let (initiation, response) = (world.overheard[0].clone(), world.overheard[1].clone());
    let (_, misled) = knock("192.0.2.7:1000", PublicKey([9; 32]), &world);
    world.elapsed += Duration::from_secs(1);
    world.bob.deliver([misled, Datagram { from: elsewhere, ..initiation }]);
    world.alice.deliver([Datagram { from: elsewhere, ..response }]);
    world.settle();
    let at_bob = world.bob.shared.refused().handshakes;
    let once = |from: &str| RefusedCount { times: 1, last_from: Some(from.parse().unwrap()) };
    assert_eq!(at_bob.wrong_server_key, once("192.0.2.7:1000"));
    assert_eq!(at_bob.replayed, once("192.0.2.66:666"));
    assert_eq!((at_bob.unknown_keys, at_bob.wrong_answer, at_bob.under_load), (vec![], RefusedCount::default(), 0));
    assert_eq!(world.alice.shared.refused().handshakes.wrong_answer, once("192.0.2.66:666"));
}

#[test]
fn a_foreign_source_is_counted_with_its_peer_and_link_local_chatter_is_not() {
    let mut world = World::new();
    for source in ["10.0.0.1", "169.254.3.4", "10.8.8.8", "10.9.9.9", "10.9.9.9"] {
        world.alice.inside.put(&packet(source, "10.0.0.2", "text"));
    }
    world.settle();
    assert_eq!(world.bob.inside.take().len(), 1);
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let foreign_source = Some(ForeignSource { address: "10.9.9.9".parse().unwrap(), packets: 3, last });
    let public_key = world.alice.public_key;
    assert_eq!(world.bob.shared.refused().peers, [RefusedPeer { public_key, foreign_source, unconfirmed: 0 }]);
}

#[test]
fn a_peer_with_another_preshared_key_is_shown_as_one_that_completes_no_handshake() {
    let mut world = World::new();
    let (alice, bob) = (world.alice.public_key, world.bob.public_key);
    world.alice.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(bob) });
    for attempt in 0..4_u32 {
        world.alice.shared.table.read().by_key(&bob).unwrap().lock().end_sessions();
        assert!(!world.crosses("text"));
        world.elapsed += Duration::from_secs(5);
        let unconfirmed: Vec<u32> = world.bob.shared.refused().peers.iter().map(|peer| peer.unconfirmed).collect();
        assert_eq!(unconfirmed, if attempt < 2 { vec![] } else { vec![attempt + 1] });
    }
    assert_eq!(world.alice.shared.refused().handshakes.wrong_answer.times, 4);
    world.bob.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(alice) });
    world.alice.shared.table.read().by_key(&bob).unwrap().lock().end_sessions();
    assert!(world.crosses("text"));
    assert_eq!(world.bob.shared.refused().peers, []);
}
