//! What two devices do as time passes: the protocol's timers, its own and ours, on a clock that the test turns. The
//! figures are the whitepaper's (§6), in seconds: Rekey-After-Time 120, Reject-After-Time 180, Rekey-Attempt-Time 90,
//! Rekey-Timeout 5, Keepalive-Timeout 10.

use std::time::Duration;

use super::super::message::{self, Kind};
use super::super::shared::{HandshakeMessage, MAX_QUEUED_HANDSHAKES};
use super::super::simulation::Datagram;
use super::super::transport::Endpoint;
use super::world::{World, packet, psk};
use crate::model::PeerUpdate;

const SECOND: Duration = Duration::from_secs(1);

/// When each message of this kind passed, in whole seconds since `start`.
fn times(world: &mut World, kind: Kind, time: Duration) -> Vec<u64> {
    let start = world.elapsed;
    let mut seen = Vec::new();
    world.pass_with(time, |datagram, now| {
        if message::kind(&datagram.bytes) == Some(kind) {
            seen.push(now.saturating_sub(start).as_secs());
        }
        true
    });
    seen
}

fn is_data(datagram: &Datagram) -> bool {
    message::kind(&datagram.bytes) == Some(Kind::Data)
}

#[test]
fn a_session_is_renewed_under_load_without_a_lost_packet() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    let mut number = 0;
    for _ in 0..150 {
        for _ in 0..20 {
            number += 1;
            world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", &format!("there {number}")));
            world.bob.inside.put(&packet("10.0.0.2", "10.0.0.1", &format!("back {number}")));
        }
        world.pass(SECOND);
    }
    assert_eq!((world.bob.inside.take().len(), world.alice.inside.take().len()), (3000, 3000));
    let handshakes = world.kinds_overheard().iter().filter(|kind| **kind == Kind::Initiation).count();
    assert_eq!(handshakes, 2, "one at the start, one after 120 seconds");
}

#[test]
fn a_session_carries_nothing_after_180_seconds() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", "kept back"));
    world.alice.run_once(world.now());
    let late = world.alice.take_sent();
    world.pass(181 * SECOND);
    world.bob.inside.take();
    world.bob.deliver(late);
    world.settle();
    assert_eq!(world.bob.inside.take(), Vec::<Vec<u8>>::new());
    // The next packet starts a new handshake.
    assert!(world.crosses("new"));
}

#[test]
fn keys_are_wiped_after_three_times_their_lifetime() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    let (alice, bob) = (world.alice.public_key, world.bob.public_key);
    assert!(world.alice.is_awake(&bob) && world.bob.is_awake(&alice));
    world.pass(545 * SECOND);
    assert!(!world.alice.is_awake(&bob) && !world.bob.is_awake(&alice));
    assert!(world.crosses("and are made again when they are needed"));
}

#[test]
fn a_lost_initiation_is_repeated_after_five_seconds_and_given_up_after_ninety() {
    let mut world = World::new();
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", "is there anybody?"));
    let start = world.elapsed;
    let mut tried = Vec::new();
    world.pass_with(200 * SECOND, |datagram, now| {
        assert_eq!(message::kind(&datagram.bytes), Some(Kind::Initiation));
        tried.push(now.saturating_sub(start).as_secs());
        false
    });
    assert!((16..=18).contains(&tried.len()), "{tried:?}");
    assert!(tried.windows(2).all(|pair| (5..=6).contains(&(pair[1] - pair[0]))), "{tried:?}");
    assert!(*tried.last().unwrap() < 91, "{tried:?}");
    assert!(world.crosses("a new packet tries again"));
}

#[test]
fn a_handshake_succeeds_on_a_path_that_loses_two_of_three_datagrams() {
    let mut world = World::new();
    let lost = packet("10.0.0.1", "10.0.0.2", "in spite of all");
    world.alice.inside.put(&lost);
    // A linear congruential generator: the same losses in each run.
    let mut random = 1_u32;
    world.pass_with(80 * SECOND, |_, _| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 16 & 0xff < 85
    });
    world.settle();
    let mut crossed = world.bob.inside.take().contains(&lost);
    // The packet that waited may be among the lost ones; the session stands in any case.
    crossed |= world.crosses("now");
    assert!(crossed);
}

#[test]
fn a_persistent_keepalive_is_sent_at_once_and_after_each_silent_interval() {
    let mut world = World::new();
    let bob = world.bob.public_key;
    world.alice.change(PeerUpdate { persistent_keepalive: Some(25), ..PeerUpdate::new(bob) });
    world.pass(2 * SECOND);
    assert!(world.alice.peer(&bob).unwrap().last_handshake.is_some(), "the first one starts the session");
    let kept = times(&mut world, Kind::Data, 100 * SECOND);
    assert!((3..=5).contains(&kept.len()), "{kept:?}");
    world.alice.change(PeerUpdate { persistent_keepalive: Some(0), ..PeerUpdate::new(bob) });
    assert_eq!(times(&mut world, Kind::Data, 15 * SECOND), [0_u64; 0]);
}

#[test]
fn a_persistent_keepalive_continues_after_a_long_absence_of_the_peer() {
    let mut world = World::new();
    let bob = world.bob.public_key;
    world.alice.change(PeerUpdate { persistent_keepalive: Some(25), ..PeerUpdate::new(bob) });
    world.pass_with(2000 * SECOND, |_, _| false);
    world.pass(60 * SECOND);
    assert!(world.alice.peer(&bob).unwrap().last_handshake.is_some());
    assert!(world.crosses("and it works"));
}

#[test]
fn a_peer_that_only_receives_sends_a_keepalive_after_ten_seconds() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    let start = world.elapsed;
    let mut answered = Vec::new();
    world.pass_with(60 * SECOND, |datagram, now| {
        assert!(is_data(datagram), "no new handshake is needed");
        answered.push((now.saturating_sub(start).as_secs(), datagram.from.port()));
        true
    });
    assert_eq!(answered, [(10, 2000)]);
}

/// The kernel starts a handshake when a packet stays unanswered for fifteen seconds (timers.c, `wg_timers_data_sent`);
/// the core also when a packet is sent after fifteen seconds in which nothing came, answered or not. It costs one
/// handshake, and the session that stands carries on.
#[test]
fn the_first_packet_after_a_silence_renews_the_session_earlier_than_in_the_kernel() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    world.pass(60 * SECOND);
    world.overheard.clear();
    assert!(world.crosses("are you there?"));
    assert_eq!(world.kinds_overheard(), [Kind::Data]);
    world.pass(SECOND);
    assert_eq!(world.kinds_overheard(), [Kind::Data, Kind::Initiation, Kind::Response, Kind::Data]);
}

#[test]
fn a_silent_peer_gets_a_new_initiation_after_fifteen_seconds() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    let start = world.elapsed;
    let mut asked = None;
    // Bob is gone: nothing gets to him, and nothing comes from him.
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", "are you there?"));
    world.pass_with(20 * SECOND, |datagram, now| {
        if message::kind(&datagram.bytes) == Some(Kind::Initiation) {
            asked.get_or_insert(now.saturating_sub(start).as_secs());
        }
        false
    });
    assert!(asked.is_some_and(|after| (15..=16).contains(&after)), "{asked:?}");
}

#[test]
fn after_a_restart_the_device_itself_renews_the_session() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    let alice = world.alice.public_key;
    // Bob comes back with nothing but his configuration and where Alice was.
    world.bob.shared.table.read().by_key(&alice).unwrap().lock().end_sessions();
    world.bob.inside.put(&packet("10.0.0.2", "10.0.0.1", "the download goes on"));
    world.bob.shared.initiate(alice);
    world.settle();
    assert_eq!(world.alice.inside.take(), [packet("10.0.0.2", "10.0.0.1", "the download goes on")]);
    assert!(world.crosses("in both directions"));
}

#[test]
fn the_session_of_a_former_preshared_key_is_renewed_with_the_new_one() {
    let mut world = World::new();
    assert!(world.crosses("first"));
    let (alice, bob) = (world.alice.public_key, world.bob.public_key);
    world.alice.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(bob) });
    world.bob.change(PeerUpdate { preshared_key: Some(psk(1)), ..PeerUpdate::new(alice) });
    for number in 0..200 {
        assert!(world.crosses(&format!("there {number}")), "second {number}");
        assert!(world.crosses_back(&format!("back {number}")), "second {number}");
        world.pass(SECOND);
    }
    let handshakes = world.kinds_overheard().iter().filter(|kind| **kind == Kind::Initiation).count();
    assert!((2..=3).contains(&handshakes), "{handshakes} handshakes");
}

#[test]
fn an_initiation_with_a_demanded_cookie_is_admitted() {
    let mut world = World::new();
    let bob = world.bob.public_key;
    // Bob is under load for a second; Alice's retry, five seconds later, would not even need the cookie, which she
    // carries.
    let filler = Datagram {
        from: "192.0.2.66:666".parse().unwrap(),
        to: "203.0.113.2:2000".parse().unwrap(),
        tos: 0,
        bytes: {
            let mut forged = vec![0; message::INITIATION_LEN];
            forged[0] = 1;
            forged
        },
    };
    world.bob.deliver(std::iter::repeat_n(filler, 250));
    world.bob.run_once(world.now());
    assert!(!world.crosses("too early"));
    assert_eq!(world.kinds_overheard(), [Kind::Initiation, Kind::CookieReply]);
    world.pass(6 * SECOND);
    assert!(world.alice.peer(&bob).unwrap().last_handshake.is_some());
    let second =
        world.overheard.iter().filter(|datagram| message::kind(&datagram.bytes) == Some(Kind::Initiation)).nth(1);
    assert_ne!(second.unwrap().bytes[132..], [0; 16], "the second MAC is there");
}

#[test]
fn the_session_of_an_earlier_response_works_like_that_of_the_last() {
    let mut world = World::new();
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", "hello"));
    // Bob answers twice, and the second answer is lost; the first is only late.
    world.pass_with(6 * SECOND, |datagram, _| message::kind(&datagram.bytes) != Some(Kind::Response));
    let answers = world.overheard.iter().filter(|datagram| message::kind(&datagram.bytes) == Some(Kind::Response));
    assert_eq!(answers.clone().count(), 2);
    let first = answers.clone().next().cloned();
    world.alice.deliver(first);
    world.settle();
    assert_eq!(world.bob.inside.take(), [packet("10.0.0.1", "10.0.0.2", "hello")]);
    assert!(world.bob.peer(&world.alice.public_key).unwrap().last_handshake.is_some());
}

#[test]
fn a_lost_initiation_is_repeated_even_if_a_flood_filled_the_queue() {
    let mut world = World::new();
    let forged = HandshakeMessage {
        from: Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 66], 666))),
        len: message::INITIATION_LEN,
        bytes: {
            let mut bytes = [0; message::INITIATION_LEN];
            bytes[0] = 1;
            bytes
        },
    };
    for _ in 0..MAX_QUEUED_HANDSHAKES {
        world.alice.shared.queue_handshake(forged);
    }
    world.alice.inside.put(&packet("10.0.0.1", "10.0.0.2", "in spite of it"));
    world.settle_with(|_| false);
    assert_eq!(world.kinds_overheard(), [Kind::Initiation]);
    world.pass(6 * SECOND);
    assert_eq!(world.bob.inside.take(), [packet("10.0.0.1", "10.0.0.2", "in spite of it")]);
}

#[test]
fn keepalives_do_not_pile_up_while_there_is_no_session() {
    let mut world = World::new();
    let bob = world.bob.public_key;
    world.alice.change(PeerUpdate { persistent_keepalive: Some(1), ..PeerUpdate::new(bob) });
    world.pass_with(60 * SECOND, |_, _| false);
    let tried = world.kinds_overheard().iter().filter(|kind| **kind == Kind::Initiation).count();
    assert!((11..=13).contains(&tried), "{tried} initiations");
    world.overheard.clear();
    world.pass(6 * SECOND);
    let data = world.kinds_overheard().iter().filter(|kind| **kind == Kind::Data).count();
    assert!((2..=10).contains(&data), "{data} keepalives");
}
