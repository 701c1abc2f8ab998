//! What two devices and an eavesdropper do at one moment.

use std::sync::atomic::Ordering;

use super::super::message::{self, Kind};
use super::super::sample::{Flow, Sample};
use super::super::simulation::Datagram;
use super::world::{World, node, packet, peer, psk};
use crate::key::PrivateKey;
use crate::model::PeerUpdate;

#[test]
fn the_first_packet_starts_a_handshake_and_is_delivered_after_it() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    assert_eq!(world.kinds_overheard()[..2], [Kind::Initiation, Kind::Response]);
    assert!(world.crosses_back("answer"));
    let bob = world.alice.peer(&world.bob.public_key).unwrap();
    assert!(bob.last_handshake.is_some());
    assert!(bob.rx_bytes > 0 && bob.tx_bytes > 0);
}

#[test]
fn packets_that_waited_for_the_handshake_arrive_in_order() {
    let mut world = World::new();
    let packets: Vec<_> = (0..50).map(|number| packet("10.0.0.1", "10.0.0.2", &format!("number {number}"))).collect();
    for packet in &packets {
        world.alice.inside.put(packet);
    }
    world.settle();
    assert_eq!(world.bob.inside.take(), packets);
}

#[test]
fn packets_are_unreadable_on_the_path_and_their_length_is_padded_to_sixteen_bytes() {
    let mut world = World::new();
    assert!(world.crosses("a marker that must not be seen"));
    let marker = b"must not be seen";
    assert!(
        world.overheard.iter().all(|datagram| !datagram.bytes.windows(marker.len()).any(|window| window == marker))
    );
    let data = world.overheard.iter().filter(|datagram| message::kind(&datagram.bytes) == Some(Kind::Data));
    assert!(data.into_iter().all(|datagram| datagram.bytes.len() % 16 == 0));
}

#[test]
fn a_repeated_datagram_is_delivered_once_and_a_late_one_still_is() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    let packets: Vec<_> = (0..3).map(|number| packet("10.0.0.1", "10.0.0.2", &format!("number {number}"))).collect();
    for packet in &packets {
        world.alice.inside.put(packet);
    }
    world.alice.run_once(world.now());
    let mut sent = world.alice.take_sent();
    sent.reverse();
    let twice = sent.iter().chain(&sent).cloned();
    world.bob.deliver(twice);
    world.bob.run_once(world.now());
    assert_eq!(world.bob.inside.take(), [&packets[2], &packets[1], &packets[0]].map(Clone::clone));
    assert_eq!(world.bob.shared.counters.rejected.load(Ordering::Relaxed), 3);
}

/// The kernel's window is 8192 (drivers/net/wireguard/messages.h, `COUNTER_WINDOW_SIZE`), the core's 1024: a packet
/// that was overtaken by more is lost here and not there. It cannot be changed from outside.
#[test]
fn a_packet_that_more_than_a_thousand_others_overtook_is_rejected() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    for number in 0..1500 {
        world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", &format!("number {number}")));
    }
    for _ in 0..10 {
        world.alice.run_once(world.now());
    }
    let sent = world.alice.take_sent();
    assert_eq!(sent.len(), 1500);
    let overtaken = |by: usize| sent[1499 - by].clone();
    world.bob.deliver([sent[1499].clone(), overtaken(1000), overtaken(1100)]);
    world.bob.run_once(world.now());
    assert_eq!(world.bob.inside.take().len(), 2);
}

#[test]
fn only_an_authentic_packet_changes_the_endpoint() {
    let mut world = World::new();
    assert!(world.crosses("from the first place"));
    let alice = world.alice.public_key;
    assert_eq!(world.bob.peer(&alice).unwrap().endpoint, Some("203.0.113.1:1000".parse().unwrap()));

    *world.alice.socket.address.lock() = "198.51.100.7:3000".parse().unwrap();
    assert!(world.crosses("from the second place"));
    assert_eq!(world.bob.peer(&alice).unwrap().endpoint, Some("198.51.100.7:3000".parse().unwrap()));
    assert!(world.crosses_back("to the second place"));

    // Every datagram so far, and the same with a changed bit, sent again by an unknown host.
    let unknown = "192.0.2.66:666".parse().unwrap();
    let replayed: Vec<Datagram> =
        world.overheard.iter().cloned().map(|datagram| Datagram { from: unknown, ..datagram }).collect();
    let forged = replayed.iter().cloned().map(|mut datagram| {
        let last = datagram.bytes.len() - 1;
        datagram.bytes[last] ^= 1;
        datagram
    });
    world.bob.deliver(forged.chain(replayed.clone()));
    world.settle();
    assert_eq!(world.bob.peer(&alice).unwrap().endpoint, Some("198.51.100.7:3000".parse().unwrap()));
    assert!(world.crosses("still there"));
}

#[test]
fn a_replayed_initiation_does_not_change_an_endpoint_even_without_a_session() {
    let mut world = World::new();
    assert!(world.crosses("hello"));
    let alice = world.alice.public_key;
    let initiation = world.overheard[0].clone();
    // As after a restart: the newest timestamp is forgotten.
    world.bob.shared.table.read().by_key(&alice).unwrap().lock().end_sessions();
    world.elapsed += std::time::Duration::from_secs(1);
    world.bob.deliver([Datagram { from: "192.0.2.66:666".parse().unwrap(), ..initiation }]);
    world.bob.run_once(world.now());
    assert_eq!(world.bob.take_sent().len(), 1, "the core answers: it cannot know better");
    assert_eq!(world.bob.peer(&alice).unwrap().endpoint, Some("203.0.113.1:1000".parse().unwrap()));
}

#[test]
fn a_peer_cannot_send_from_the_address_of_another_peer() {
    let mut world = World::new();
    let admin = PrivateKey::generate().public();
    world.bob.change(peer(world.alice.public_key, None, &["10.0.0.0/8"]));
    world.bob.change(peer(admin, None, &["10.0.0.99/32"]));
    world.alice.inside.put(&packet("10.0.0.99", "10.0.0.2", "I am the admin"));
    world.settle();
    assert_eq!(world.bob.inside.take(), Vec::<Vec<u8>>::new());
    assert_eq!(world.bob.shared.counters.spoofed.load(Ordering::Relaxed), 1);
    world.alice.inside.put(&packet("10.0.0.98", "10.0.0.2", "I am not"));
    world.settle();
    assert_eq!(world.bob.inside.take().len(), 1);
}

#[test]
fn a_preshared_key_has_to_be_the_same_at_both_ends() {
    let mut world = World::new();
    let (alice, bob) = (world.alice.public_key, world.bob.public_key);
    world.alice.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(bob) });
    assert!(!world.crosses("with a key that Bob does not have"));
    world.bob.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(alice) });
    // A new handshake: the old one's initiation was answered with the other key.
    world.alice.shared.table.read().by_key(&bob).unwrap().lock().end_sessions();
    world.elapsed += std::time::Duration::from_secs(1);
    assert!(world.crosses("with the same key"));
}

#[test]
fn a_new_preshared_key_keeps_the_present_session() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    let (alice, bob) = (world.alice.public_key, world.bob.public_key);
    world.alice.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(bob) });
    assert!(world.crosses("while Bob has the old key"));
    world.bob.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(alice) });
    assert!(world.crosses("while both have the new one"));
    assert!(world.crosses_back("and back"));
    assert_eq!(world.kinds_overheard().iter().filter(|kind| **kind == Kind::Initiation).count(), 1);

    world.elapsed += std::time::Duration::from_secs(1);
    world.alice.shared.initiate(bob);
    world.settle();
    assert!(world.crosses("with the new key's session"));
    assert!(world.crosses_back("and back with it"));
}

#[test]
fn nothing_is_received_from_or_sent_to_a_removed_peer() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    let alice = world.alice.public_key;
    world.bob.change(PeerUpdate { remove: true, ..PeerUpdate::new(alice) });
    assert!(!world.crosses("after"));
    assert!(!world.crosses_back("neither"));
    world.bob.change(peer(alice, None, &["10.0.0.1/32"]));
    assert!(!world.crosses("its former session is gone"));
}

#[test]
fn the_change_of_another_peer_does_not_affect_a_session() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    let other = PrivateKey::generate().public();
    world.bob.change(peer(other, Some("192.0.2.9:9".parse().unwrap()), &["10.0.0.3/32"]));
    world.bob.change(PeerUpdate { preshared_key: Some(psk(7)), ..PeerUpdate::new(other) });
    world.bob.change(PeerUpdate { remove: true, ..PeerUpdate::new(other) });
    assert!(world.crosses("after"));
    assert_eq!(world.kinds_overheard().iter().filter(|kind| **kind == Kind::Initiation).count(), 1);
}

#[test]
fn a_new_private_key_ends_every_session() {
    let mut world = World::new();
    assert!(world.crosses("before"));
    world.bob.shared.table.write().set_private_key(Some(PrivateKey::generate()));
    assert!(!world.crosses("to who Bob was"));
}

#[test]
fn during_a_flood_a_peer_with_a_cookie_is_still_admitted() {
    let mut world = World::new();
    // Initiations of an unknown peer with a valid first MAC: each would cost a Diffie-Hellman calculation.
    let mut unknown = node("192.0.2.66:666");
    unknown.change(peer(world.bob.public_key, Some("203.0.113.2:2000".parse().unwrap()), &["10.0.0.2/32"]));
    unknown.inside.put(&packet("10.0.0.66", "10.0.0.2", "let me in"));
    unknown.run_once(world.now());
    let initiation = unknown.take_sent().remove(0);
    let flood = (0..900_u16).map(|port| Datagram { from: ([192, 0, 2, 66], port + 1).into(), ..initiation.clone() });
    world.bob.deliver(flood);
    for _ in 0..4 {
        world.bob.run_once(world.now());
    }
    let answers = world.bob.take_sent();
    let cookies = answers.iter().filter(|answer| message::kind(&answer.bytes) == Some(Kind::CookieReply)).count();
    assert!(cookies > 500, "{cookies} cookies");
    assert!(answers.iter().all(|answer| message::kind(&answer.bytes) == Some(Kind::CookieReply)));

    // Under load still. Alice is asked for a cookie too, and her next initiation carries it.
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", "in spite of it"));
    world.settle();
    assert_eq!(world.kinds_overheard(), [Kind::Initiation, Kind::CookieReply]);
    let bob = world.bob.public_key;
    let table = world.alice.shared.table.read();
    let mut out = [0; 148];
    let again = retry_now(&mut table.by_key(&bob).unwrap().lock(), &mut out);
    drop(table);
    world.bob.deliver([Datagram {
        from: "203.0.113.1:1000".parse().unwrap(),
        to: "203.0.113.2:2000".parse().unwrap(),
        tos: 0,
        bytes: again,
    }]);
    world.settle();
    assert_eq!(world.bob.inside.take(), [packet("10.0.0.1", "10.0.0.2", "in spite of it")]);
}

/// What the timers send after five seconds, at once.
fn retry_now(state: &mut super::super::peer::State, out: &mut [u8]) -> Vec<u8> {
    let len = state.retry(out).expect("a handshake is under way");
    out[..len].to_vec()
}

#[test]
fn a_packet_larger_than_the_path_mtu_is_answered_with_an_icmp_error() {
    let mut world = World::new();
    *world.alice.socket.path_mtu.lock() = Some(1300);
    assert!(world.crosses("small"));
    // The path is looked up with the next tick.
    world.elapsed += std::time::Duration::from_secs(2);
    world.settle();
    let large = packet("10.0.0.1", "10.0.0.2", &"x".repeat(1300));
    world.alice.inside.put(&large);
    world.settle();
    assert_eq!(world.bob.inside.take(), Vec::<Vec<u8>>::new());
    let icmp_errors = world.alice.inside.take();
    // RFC 792 and 1191: destination unreachable, fragmentation needed; 1300 less 60, to a multiple of 16.
    assert_eq!((icmp_errors[0][20], icmp_errors[0][21], &icmp_errors[0][26..28]), (3, 4, &1232_u16.to_be_bytes()[..]));
    assert!(world.crosses(&"x".repeat(1200)));
}

#[test]
fn a_packet_of_ipv6s_smallest_mtu_is_sent_over_every_path() {
    let mut world = World::new();
    let bob = world.bob.public_key;
    world.alice.change(peer(bob, None, &["10.0.0.2/32", "fd00:2::/64"]));
    *world.alice.socket.path_mtu.lock() = Some(1300);
    assert!(world.crosses("small"));
    world.elapsed += std::time::Duration::from_secs(2);
    world.settle();
    // RFC 8200 section 5: a link that cannot carry 1280 bytes whole has to fragment and join below IPv6.
    let of_length = |len: usize| Sample::udp(Flow::v6(1)).with_payload(len - 40 - 8).bytes();
    let sent = |world: &mut World, len| {
        world.overheard.clear();
        world.alice.inside.put(&of_length(len));
        world.settle();
        world.kinds_overheard().len()
    };
    assert_eq!((sent(&mut world, 1280), world.alice.inside.take()), (1, vec![]));
    assert_eq!(sent(&mut world, 1281), 0);
    let icmp_errors = world.alice.inside.take();
    // RFC 4443 section 3.2: packet too big.
    assert_eq!((icmp_errors.len(), icmp_errors[0][40], &icmp_errors[0][44..48]), (1, 2, &1280_u32.to_be_bytes()[..]));
}

#[test]
fn a_packet_without_a_peer_is_answered_with_an_icmp_error() {
    let mut world = World::new();
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.77", "is there anybody?"));
    world.settle();
    let icmp_errors = world.alice.inside.take();
    assert_eq!((icmp_errors.len(), icmp_errors[0][20], icmp_errors[0][21]), (1, 3, 1));
    assert_eq!(world.overheard, []);
}
