//! Changes by wg(8) of an interface that carries traffic: only sessions that a change concerns end.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bastiond_tunnel::key::PrivateKey;
use libtest_mimic::Trial;
use sandbox::star::{Family, Star};
use sandbox::traffic::{Flood, Reflector};
use sandbox::tunnel::Program;

use super::site::{PORT, Reach, Site, Transfer, join, ours};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, text, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("wg_set_of_an_active_peer_loses_no_packet_of_any_peer", set),
        trial("a_removed_peer_gets_no_answer_and_the_others_keep_their_sessions", remove),
        trial("a_new_preshared_key_is_used_without_a_lost_packet", preshared_key),
        trial("a_new_private_key_ends_the_sessions_with_peers_that_do_not_know_it", private_key),
        trial("wg_syncconf_keeps_sessions_and_counters", syncconf),
        trial("a_thousand_peers_are_added_by_wg_setconf_and_one_of_them_connects", setconf),
        trial("the_port_changes_without_a_restart_and_peers_learn_it", port),
        trial("a_port_in_use_is_reported_and_the_old_one_stays", port_in_use),
        trial("every_sent_datagram_has_the_firewall_mark", mark),
    ]
}

/// Datagrams a second of a flood that must lose none.
const RATE: u32 = 500;

/// Us with two peers that have sessions, and a flood to each.
struct Busy<'s> {
    us: Site<'s>,
    peers: [Site<'s>; 2],
    reflectors: [Reflector; 2],
    floods: [Flood; 2],
}

impl<'s> Busy<'s> {
    fn start(star: &'s Star, programs: [&Program; 2]) -> Result<Self> {
        let us = Site::start(star, 0, &ours())?;
        let peers = [Site::start(star, 1, programs[0])?, Site::start(star, 2, programs[1])?];
        for peer in &peers {
            join(peer, &us)?;
        }
        let reflector = |peer: &Site<'_>| Reflector::udp(peer.namespace(), (peer.v4(), 7));
        let reflectors = [reflector(&peers[0])?, reflector(&peers[1])?];
        let flood = |reflector: &Reflector| Flood::start(us.namespace(), reflector.address(), RATE);
        let floods = [flood(&reflectors[0])?, flood(&reflectors[1])?];
        let busy = Self { us, peers, reflectors, floods };
        busy.goes_on()?;
        Ok(busy)
    }

    /// Waits until more has come back from everybody.
    fn goes_on(&self) -> Result {
        self.floods.iter().try_for_each(goes_on)
    }

    /// Stops, and fails if a single datagram was lost.
    fn stop(self) -> Result {
        self.goes_on()?;
        let lost = self.floods.map(|flood| flood.stop().lost);
        drop(self.reflectors);
        ensure_eq(lost, [vec![], vec![]])
    }
}

fn goes_on(flood: &Flood) -> Result {
    let before = flood.received();
    wait_for("the flood goes on", SOON, || Ok(flood.received() > before + 20))?;
    Ok(())
}

fn set() -> Result {
    let star = Star::with_hosts(3)?;
    let busy = Busy::start(&star, [&Program::wireguard_go(), &Program::boringtun()])?;
    let (us, [peer, other]) = (&busy.us, &busy.peers);
    let handshakes = [us.peer(peer)?.latest_handshake, us.peer(other)?.latest_handshake];
    let change = |words: &str| -> Result {
        us.changes(peer, words)?;
        busy.goes_on()
    };
    change("persistent-keepalive 25")?;
    change(&format!("endpoint {}", peer.outside(Family::V6)))?;
    change(&format!("allowed-ips {}/32", peer.v4()))?;
    change(&format!("allowed-ips 10.78.0.0/16,{}/32,fd77::/64", peer.v4()))?;
    change("persistent-keepalive off")?;
    change(&format!("endpoint {}", peer.outside(Family::V4)))?;
    us.interface.set("fwmark 7")?;
    busy.goes_on()?;
    ensure_eq([us.peer(peer)?.latest_handshake, us.peer(other)?.latest_handshake], handshakes)?;
    busy.stop()
}

fn remove() -> Result {
    let star = Star::with_hosts(3)?;
    let busy = Busy::start(&star, [&Program::wireguard_go(), &Program::boringtun()])?;
    let Busy { us, peers: [peer, other], reflectors: _reflectors, floods: [stays, goes] } = busy;
    let handshake = us.peer(&peer)?.latest_handshake;
    us.changes(&other, "remove")?;
    goes_on(&stays)?;
    let received = goes.stop().received;
    ensure(received > 0, "nothing was received before")?;
    ensure(other.is_cut_off_from(&us)?, "a removed peer is answered")?;
    let keys: Vec<_> = us.interface.status()?.peers.into_keys().collect();
    ensure_eq(keys, vec![peer.public_key().to_string()])?;
    // It is welcome again, with a new session. Its own retry would take it five seconds, so we begin.
    us.meets(&other, Reach::At(Family::V4))?;
    wait_for("a session with the peer that was removed", 3 * SOON, || us.reaches(&other))?;
    ensure_eq(us.peer(&peer)?.latest_handshake, handshake)?;
    ensure_eq(stays.stop().lost, vec![])
}

fn preshared_key() -> Result {
    let star = Star::with_hosts(3)?;
    let busy = Busy::start(&star, [&Program::wireguard_go(), &Program::boringtun()])?;
    let (us, [peer, other]) = (&busy.us, &busy.peers);
    let untouched = us.peer(other)?.latest_handshake;
    let key = PrivateKey::generate().to_base64();
    // They keep the session and use the new key for the next one, as the kernel does; so do we.
    peer.interface.set_with_key(&format!("peer {} preshared-key /dev/stdin", us.public_key()), &key)?;
    busy.goes_on()?;
    us.interface.set_with_key(&format!("peer {} preshared-key /dev/stdin", peer.public_key()), &key)?;
    busy.goes_on()?;
    ensure(us.peer(peer)?.preshared, "the key is not shown")?;
    us.changes(peer, "preshared-key /dev/null")?;
    busy.goes_on()?;
    ensure_eq((us.peer(peer)?.preshared, us.peer(other)?.latest_handshake), (false, untouched))?;
    busy.stop()
}

fn private_key() -> Result {
    let star = Star::with_hosts(2)?;
    let (mut us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    join(&us, &peer)?;
    let former = std::mem::replace(&mut us.key, PrivateKey::generate());
    us.interface.set_with_key("private-key /dev/stdin", &us.key.to_base64())?;
    ensure(us.is_cut_off_from(&peer)? && peer.is_cut_off_from(&us)?, "the former key still serves")?;
    // What is configured about the peer stays.
    let known = us.peer(&peer)?;
    ensure_eq((known.endpoint, known.allowed_ips.len()), (Some(peer.outside(Family::V4)), 2))?;
    peer.interface.set(&format!("peer {} remove", former.public()))?;
    peer.meets(&us, Reach::At(Family::V4))?;
    ensure(peer.reaches(&us)? && us.reaches(&peer)?, "nothing passes with the new key")
}

/// What `wg showconf` prints, which `wg syncconf` and `wg setconf` read.
fn configuration(site: &Site<'_>) -> Result<String> {
    Ok(site.interface.wg("showconf", &[], "")?)
}

fn syncconf() -> Result {
    let star = Star::with_hosts(3)?;
    let busy = Busy::start(&star, [&Program::wireguard_go(), &Program::boringtun()])?;
    let (us, [peer, other]) = (&busy.us, &busy.peers);
    let transfer = Transfer::start(us, peer)?;
    let before = [us.peer(peer)?, us.peer(other)?];
    let configuration = configuration(us)?;
    let newcomer = format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.99.0.0/16\n", PrivateKey::generate().public());
    let sync = |configuration: &str| -> Result {
        us.interface.wg("syncconf", &["/dev/stdin"], configuration)?;
        transfer.goes_on()?;
        busy.goes_on()
    };
    for _ in 0..2 {
        sync(&format!("{configuration}\n{newcomer}"))?;
        sync(&configuration)?;
    }
    let after = [us.peer(peer)?, us.peer(other)?];
    for (before, after) in before.iter().zip(&after) {
        ensure_eq((after.latest_handshake, after.endpoint), (before.latest_handshake, before.endpoint))?;
        ensure(after.received > before.received && after.sent > before.sent, "the counters were reset")?;
    }
    transfer.stop()?;
    busy.stop()
}

fn setconf() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    peer.meets(&us, Reach::At(Family::V4))?;
    us.meets(&peer, Reach::Unknown)?;
    let mut text = configuration(&us)?;
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        let mut key = [9; 32];
        key[..2].copy_from_slice(&[high, low]);
        let key = STANDARD.encode(key);
        write!(text, "\n[Peer]\nPublicKey = {key}\nAllowedIPs = 10.200.{high}.{low}/32, fd99::{number:x}/128\n")?;
    }
    let start = std::time::Instant::now();
    us.interface.wg("setconf", &["/dev/stdin"], &text)?;
    let took = start.elapsed();
    ensure(took < SOON, format!("it took {took:?}"))?;
    ensure_eq(us.interface.status()?.peers.len(), 1001)?;
    ensure(peer.reaches(&us)? && us.reaches(&peer)?, "nothing passes")?;
    // The same again: the session lives on, since nothing about it differs.
    let handshake = us.peer(&peer)?.latest_handshake;
    us.interface.wg("setconf", &["/dev/stdin"], &text)?;
    ensure(us.reaches(&peer)?, "nothing passes after the same once more")?;
    ensure_eq(us.peer(&peer)?.latest_handshake, handshake)?;
    ensure_eq(us.interface.status()?.peers.len(), 1001)
}

fn port() -> Result {
    let star = Star::with_hosts(3)?;
    let busy = Busy::start(&star, [&Program::wireguard_go(), &Program::boringtun()])?;
    let (us, [peer, other]) = (&busy.us, &busy.peers);
    let transfer = Transfer::start(us, peer)?;
    us.interface.set("listen-port 40404")?;
    transfer.goes_on()?;
    busy.goes_on()?;
    let moved = (us.host.v4(), 40404).into();
    ensure_eq([peer.peer(us)?.endpoint, other.peer(us)?.endpoint], [Some(moved), Some(moved)])?;
    ensure_eq(us.interface.status()?.listen_port, 40404)?;
    // The old one is free.
    drop(us.namespace().bind_udp(([0, 0, 0, 0], PORT))?);
    transfer.stop()?;
    // What was on its way to the old port is lost, as with the kernel's; the rest of the flood is not.
    let [first, second] = busy.floods.map(Flood::stop);
    for report in [first, second] {
        ensure(report.lost.len() < 50, format!("{} of {} were lost", report.lost.len(), report.sent))?;
        ensure(report.longest_gap < NEVER, format!("nothing passed for {:?}", report.longest_gap))?;
    }
    Ok(())
}

fn port_in_use() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    join(&peer, &us)?;
    let handshake = us.peer(&peer)?.latest_handshake;
    let refused = || -> Result {
        let output = us.interface.try_wg("set", &["listen-port", "40404"], "")?;
        let message = "Unable to modify interface: Address already in use\n".to_owned();
        ensure_eq((output.status.code(), text(&output.stderr)), (Some(1), message))?;
        ensure_eq(us.interface.status()?.listen_port, PORT)?;
        ensure(us.reaches(&peer)? && peer.reaches(&us)?, "nothing passes by the old port")
    };
    let held = us.namespace().bind_udp(([0, 0, 0, 0], 40404))?;
    refused()?;
    drop(held);
    // By IPv6 alone it is in use all the same.
    let held = us.namespace().bind_udp((us.host.v6(), 40404))?;
    refused()?;
    drop(held);
    us.interface.set("listen-port 40404")?;
    ensure(us.reaches(&peer)?, "nothing passes by the new port")?;
    ensure_eq(us.peer(&peer)?.latest_handshake, handshake)
}

fn mark() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    us.namespace().nft(
        "table inet marks {
             counter marked { }
             counter unmarked { }
             chain output {
                 type filter hook output priority 0
                 oifname eth0 meta l4proto udp meta mark 0x1234 counter name marked
                 oifname eth0 meta l4proto udp meta mark != 0x1234 counter name unmarked
             }
         }",
    )?;
    let counted = |counter: &str| -> Result<u64> {
        let listing: serde_json::Value = us.namespace().nft_json(&format!("list counter inet marks {counter}"))?;
        let mut objects = listing["nftables"].as_array().into_iter().flatten();
        objects.find_map(|object| object["counter"]["packets"].as_u64()).ok_or_else(|| "no such counter".into())
    };
    us.interface.set("fwmark 0x1234")?;
    for outside in [Family::V4, Family::V6] {
        peer.meets(&us, Reach::Unknown)?;
        us.meets(&peer, Reach::At(outside))?;
        ensure(us.reaches(&peer)? && peer.reaches(&us)?, "nothing passes")?;
    }
    // The sockets of another port are marked as well.
    us.interface.set("listen-port 40404")?;
    ensure(us.reaches(&peer)?, "nothing passes by the new port")?;
    let marked = counted("marked")?;
    ensure(marked >= 6, format!("{marked} were marked"))?;
    ensure_eq((counted("unmarked")?, us.interface.status()?.fwmark), (0, 0x1234))?;
    us.interface.set("fwmark off")?;
    ensure(us.reaches(&peer)?, "nothing passes without the mark")?;
    ensure_eq((counted("marked")?, us.interface.status()?.fwmark), (marked, 0))?;
    ensure(counted("unmarked")? > 0, "what is sent without a mark is not counted")
}
