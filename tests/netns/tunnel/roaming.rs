//! Where a peer is: it follows what is authentic, and nothing else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bastiond_tunnel::internals::message::{self, Kind};
use libtest_mimic::Trial;
use sandbox::star::{Family, Host, Star};
use sandbox::traffic::{Direction, Sniffer};
use sandbox::tunnel::Program;

use super::site::{PORT, Reach, Site, join, ours};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("the_endpoint_follows_a_peer_to_another_address_port_and_family", peer_moves),
        trial("a_peer_follows_our_change_of_address", we_move),
        trial("replayed_datagrams_do_not_change_the_endpoint", recorded),
        trial("a_replayed_initiation_does_not_change_the_endpoint_after_a_restart", recorded_before),
    ]
}

fn peer_moves() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    join(&peer, &us)?;
    let handshake = us.peer(&peer)?.latest_handshake;
    let is_at = |endpoint: SocketAddr| -> Result {
        ensure(peer.reaches(&us)?, format!("nothing passes after the peer has moved to {endpoint}"))?;
        ensure_eq(us.peer(&peer)?.endpoint, Some(endpoint))?;
        ensure(us.reaches(&peer)?, format!("nothing passes to the peer at {endpoint}"))
    };
    is_at(peer.outside(Family::V4))?;
    let elsewhere = Ipv4Addr::new(198, 18, 1, 77);
    peer.host.renumber(peer.host.v4(), elsewhere)?;
    // wireguard-go keeps sending from the address that is gone until the endpoint is set again.
    peer.changes(&us, &format!("endpoint {}", us.outside(Family::V4)))?;
    is_at((elsewhere, PORT).into())?;
    peer.interface.set("listen-port 4444")?;
    is_at((elsewhere, 4444).into())?;
    peer.changes(&us, &format!("endpoint {}", us.outside(Family::V6)))?;
    is_at((peer.host.v6(), 4444).into())?;
    // All of that within one session.
    ensure_eq(us.peer(&peer)?.latest_handshake, handshake)
}

fn we_move() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::boringtun())?);
    join(&us, &peer)?;
    let elsewhere = Ipv4Addr::new(198, 18, 0, 77);
    us.host.renumber(us.host.v4(), elsewhere)?;
    // The first packet may still leave from the address that is gone: the kernel refuses it, and chooses the next
    // one's.
    ensure(us.reaches(&peer)? || us.reaches(&peer)?, "nothing passes after we have moved")?;
    ensure_eq(peer.peer(&us)?.endpoint, Some((elsewhere, PORT).into()))?;
    ensure(peer.reaches(&us)?, "nothing passes from the peer after we have moved")
}

/// Everything that a site sends by WireGuard.
fn tap(star: &Star, site: &Site<'_>) -> Result<Sniffer> {
    let wanted = |packet: &sandbox::traffic::Packet| {
        packet.direction == Direction::In && packet.udp_payload().is_some_and(|bytes| message::kind(bytes).is_some())
    };
    Ok(Sniffer::start(star.router(), &site.host.link(), wanted)?)
}

/// Sends datagrams from a host, and tells how many answers come.
fn replay(from: &Host, target: SocketAddr, datagrams: &[Vec<u8>]) -> Result<usize> {
    let socket: UdpSocket = from.namespace().bind_udp((from.v4(), 0))?;
    for datagram in datagrams {
        socket.send_to(datagram, target)?;
    }
    socket.set_read_timeout(Some(NEVER))?;
    let mut answers = 0;
    while socket.recv(&mut [0; 2048]).is_ok() {
        answers += 1;
        // An answer a datagram is all that there can be.
        ensure(answers <= datagrams.len(), "answers without end")?;
    }
    Ok(answers)
}

fn payloads(tap: Sniffer) -> Vec<Vec<u8>> {
    tap.stop().iter().filter_map(|packet| Some(packet.udp_payload()?.to_vec())).collect()
}

fn of_kind(datagrams: &[Vec<u8>], kind: Kind) -> usize {
    datagrams.iter().filter(|datagram| message::kind(datagram) == Some(kind)).count()
}

fn recorded() -> Result {
    let star = Star::with_hosts(3)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    let attacker = star.host(2);
    let tap = tap(&star, &peer)?;
    join(&peer, &us)?;
    for _ in 0..10 {
        ensure(peer.reaches(&us)?, "nothing passes")?;
    }
    let recorded = payloads(tap);
    let kinds = (of_kind(&recorded, Kind::Initiation), of_kind(&recorded, Kind::Data) > 10);
    ensure_eq(kinds, (1, true))?;
    let before = us.peer(&peer)?;
    for _ in 0..3 {
        ensure_eq(replay(attacker, us.outside(Family::V4), &recorded)?, 0)?;
    }
    let after = us.peer(&peer)?;
    ensure_eq((after.endpoint, after.latest_handshake, after.received), {
        (before.endpoint, before.latest_handshake, before.received)
    })?;
    ensure(us.reaches(&peer)? && peer.reaches(&us)?, "nothing passes after the replay")
}

fn recorded_before() -> Result {
    let star = Star::with_hosts(3)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    let attacker = star.host(2);
    let tap = tap(&star, &peer)?;
    join(&peer, &us)?;
    let recorded = payloads(tap);
    ensure_eq(of_kind(&recorded, Kind::Initiation), 1)?;
    let us = us.restart(&ours())?;
    us.meets(&peer, Reach::At(Family::V4))?;
    // Who has forgotten the time of the last initiation cannot but answer it.
    let answers = replay(attacker, us.outside(Family::V4), &recorded)?;
    ensure(answers <= 1, format!("{answers} answers to one initiation"))?;
    ensure_eq(us.peer(&peer)?.endpoint, Some(peer.outside(Family::V4)))?;
    ensure_eq(us.peer(&peer)?.latest_handshake, None)?;
    let _: Duration = crate::gateway::wait_for("a session with the real peer", 3 * SOON, || us.reaches(&peer))?;
    ensure_eq(us.peer(&peer)?.endpoint, Some(peer.outside(Family::V4)))
}
