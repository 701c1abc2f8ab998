//! What can be seen on the way between two sites, and what happens to packets there.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bastiond_tunnel::internals::message::{self, Kind};
use libtest_mimic::Trial;
use nix::sys::socket::{setsockopt, sockopt};
use sandbox::star::{Family, Star};
use sandbox::traffic::{self, Direction, DownloadServer, Fragmentation, Packet, Ping, Reflector, Sniffer};
use sandbox::tunnel::Program;

use super::site::{MIB, Reach, Site, exchange, fetch, join, ours};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, text, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("plaintext_of_the_tunnel_is_never_seen_outside", ciphertext),
        trial("persistent_keepalives_are_sent_at_their_interval_until_they_are_switched_off", keepalive),
        trial("an_outer_congestion_mark_is_copied_to_the_inner_packet", congestion),
        trial("a_packet_too_big_for_our_link_gets_an_icmp_error_and_tcp_passes", small_link),
        trial("tcp_passes_a_distant_link_with_a_smaller_mtu_and_the_sender_learns_the_mtu", small_link_far_away),
        trial("without_ipv6_peers_connect_over_ipv4", without_ipv6),
    ]
}

const MARKER: &[u8] = b"in clear text to be read by everybody";

fn holds_marker(packet: &Packet) -> bool {
    packet.bytes.windows(MARKER.len()).any(|window| window == MARKER)
}

fn ciphertext() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    let tap = |link: &str| Sniffer::start(star.router(), link, |packet| packet.udp().is_some() || holds_marker(packet));
    let outside = [tap(&us.host.link())?, tap(&peer.host.link())?];
    let inside = Sniffer::start(us.namespace(), us.interface.name(), holds_marker)?;
    join(&peer, &us)?;
    let reflector = Reflector::udp(us.namespace(), (us.v4(), 7))?;
    let socket = peer.namespace().bind_udp((peer.v4(), 0))?;
    socket.set_read_timeout(Some(SOON))?;
    // Of many lengths, so that it starts at every place of a block, and the same one again.
    for padding in (0..64).chain([0; 16]) {
        let text = [vec![b' '; padding], MARKER.to_vec()].concat();
        socket.send_to(&text, reflector.address())?;
        let mut answer = [0; 2048];
        let length = socket.recv(&mut answer)?;
        ensure(answer[..length].ends_with(&text), "another answer")?;
    }
    let seen_inside = inside.stop().len();
    ensure(seen_inside >= 160, format!("only {seen_inside} were seen inside, where all of them are"))?;
    let mut bodies = std::collections::HashSet::new();
    for tap in outside {
        let packets = tap.stop();
        ensure(packets.len() >= 160, format!("only {} datagrams were seen outside", packets.len()))?;
        ensure(!packets.iter().any(holds_marker), "the text was seen outside")?;
        for packet in packets.iter().filter(|packet| packet.direction == Direction::In) {
            let body = packet.udp_payload().ok_or("no datagram")?;
            let kind = message::kind(body).ok_or_else(|| format!("no message: {body:02x?}"))?;
            // The packets' lengths are hidden by what fills them up to 16.
            ensure(kind != Kind::Data || body.len() % 16 == 0, format!("{} bytes are not padded", body.len()))?;
            ensure(bodies.insert(body.get(16..).unwrap_or_default().to_vec()), "twice the same was sent")?;
        }
    }
    Ok(())
}

fn keepalive() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    let is_keepalive = |packet: &Packet| {
        packet.direction == Direction::In
            && packet.udp_payload().is_some_and(|bytes| bytes.len() == message::DATA_OVERHEAD)
    };
    let tap = Sniffer::start(star.router(), &us.host.link(), is_keepalive)?;
    peer.meets(&us, Reach::Unknown)?;
    us.interface.set(&format!("{} persistent-keepalive 1", peer.as_peer(Reach::At(Family::V4))))?;
    // Nothing is sent through: the keepalive alone begins, and is the first message of the session.
    ensure(tap.wait_for(1, SOON), "the keepalive does not begin")?;
    let start = Instant::now();
    ensure(tap.wait_for(4, 3 * SOON), "no further keepalives")?;
    let took = start.elapsed();
    // Timers run each second, so an interval of one may take nearly two.
    ensure((2500..6000).contains(&took.as_millis()), format!("three intervals took {took:?}"))?;
    ensure(us.peer(&peer)?.latest_handshake.is_some(), "no handshake")?;
    us.changes(&peer, "persistent-keepalive off")?;
    let until_then = tap.packets().len();
    std::thread::sleep(Duration::from_millis(2500));
    let since = tap.stop().len() - until_then;
    ensure(since <= 1, format!("{since} keepalives after they were switched off"))
}

/// ECN's two bits (RFC 3168).
const NOT_ECT: u8 = 0;
const ECT_0: u8 = 2;
const CE: u8 = 3;
/// The DSCP for voice, which must not be visible outside.
const EXPEDITED: u8 = 46 << 2;

/// Sends a datagram with this traffic class from one site to another; the traffic class that it has outside and inside.
fn marks(star: &Star, from: &Site<'_>, to: &Site<'_>, target: IpAddr, class: u8) -> Result<(Option<u8>, Option<u8>)> {
    let is_data = |packet: &Packet| {
        packet.direction == Direction::In
            && packet.udp_payload().is_some_and(|bytes| message::kind(bytes) == Some(Kind::Data))
    };
    let outside = Sniffer::start(star.router(), &from.host.link(), is_data)?;
    let inside = Sniffer::start(to.namespace(), to.interface.name(), |packet| packet.udp().is_some())?;
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = from.namespace().bind_udp((any, 0))?;
    match target {
        IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4Tos, &class.into())?,
        IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6TClass, &class.into())?,
    }
    socket.send_to(&[0; 64], SocketAddr::from((target, 9)))?;
    ensure(outside.wait_for(1, SOON), "nothing was sent")?;
    inside.wait_for(1, NEVER);
    let class = |caught: Vec<Packet>| caught.first().and_then(|packet| packet.ip().map(|ip| ip.traffic_class));
    Ok((class(outside.stop()), class(inside.stop())))
}

fn congestion() -> Result {
    let star = Star::with_hosts(2)?;
    // Ours at both ends: the others know nothing of ECN.
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &ours())?);
    join(&us, &peer)?;
    for outside in [Family::V4, Family::V6] {
        us.changes(&peer, &format!("endpoint {}", peer.outside(outside)))?;
        let pass = |class: u8| -> Result<Vec<(Option<u8>, Option<u8>)>> {
            [IpAddr::from(peer.v4()), peer.v6().into()]
                .into_iter()
                .map(|target| marks(&star, &us, &peer, target, class))
                .collect()
        };
        ensure_eq(pass(EXPEDITED | ECT_0)?, vec![(Some(ECT_0), Some(EXPEDITED | ECT_0)); 2])?;
        ensure_eq(pass(EXPEDITED | NOT_ECT)?, vec![(Some(NOT_ECT), Some(EXPEDITED)); 2])?;
        star.router().nft(
            "table inet congestion {
                 chain forward {
                     type filter hook forward priority 0
                     meta nfproto ipv4 ip ecn set ce
                     meta nfproto ipv6 ip6 ecn set ce
                 }
             }",
        )?;
        ensure_eq(pass(EXPEDITED | ECT_0)?, vec![(Some(ECT_0), Some(EXPEDITED | CE)); 2])?;
        // The sender does not support congestion marks, so the packet is dropped instead.
        ensure_eq(pass(EXPEDITED | NOT_ECT)?, vec![(Some(NOT_ECT), None); 2])?;
        star.router().nft("delete table inet congestion")?;
    }
    Ok(())
}

/// The MTU of a link that is too small for the tunnel's own, which is 1420.
const NARROW: u32 = 1300;

fn narrow(star: &Star, site: &Site<'_>) -> Result {
    star.router().ip(&format!("link set {} mtu {NARROW}", site.host.link()))?;
    site.namespace().ip(&format!("link set eth0 mtu {NARROW}"))?;
    Ok(())
}

/// What then passes: less the outer IP header, UDP (8) and WireGuard's own (32), rounded down to what is padded to 16.
fn inner_limit(outside: Family) -> u32 {
    let ip = if outside == Family::V4 { 20 } else { 40 };
    (NARROW - ip - 8 - 32) / 16 * 16
}

/// A ping that may not be fragmented, of so many bytes with its IPv4 header.
fn unfragmented(bytes: u32) -> Ping {
    Ping { size: bytes - 28, fragmentation: Fragmentation::Forbidden, timeout: NEVER, ..Ping::default() }
}

/// Whether the sender of a large packet has got an ICMP error with this limit, and uses it.
fn has_learned_mtu(from: &Site<'_>, to: &Site<'_>, limit: u32) -> Result<bool> {
    traffic::ping(from.namespace(), to.v4(), unfragmented(1400))?;
    let target = to.v4().to_string();
    let route = text(&from.namespace().command("ip").args(["route", "get", &target]).output()?.stdout);
    Ok(route.split_whitespace().collect::<Vec<_>>().windows(2).any(|pair| pair == ["mtu", &limit.to_string()]))
}

fn small_link() -> Result {
    let star = Star::with_hosts(2)?;
    let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
    narrow(&star, &us)?;
    join(&us, &peer)?;
    let limit = inner_limit(Family::V4);
    wait_for("the sender gets an ICMP error for a packet that is too big", 2 * SOON, || {
        has_learned_mtu(&us, &peer, limit)
    })?;
    ensure_eq(traffic::ping(us.namespace(), peer.v4(), unfragmented(limit))?.replies.len(), 1)?;
    exchange(&us, &peer)?;
    exchange(&peer, &us)?;
    // What may be fragmented passes all the same.
    let large = Ping { size: 1350, timeout: SOON, ..Ping::default() };
    ensure_eq(traffic::ping(us.namespace(), peer.v4(), large)?.replies.len(), 1)
}

fn small_link_far_away() -> Result {
    for outside in [Family::V4, Family::V6] {
        let star = Star::with_hosts(2)?;
        let (us, peer) = (Site::start(&star, 0, &ours())?, Site::start(&star, 1, &Program::wireguard_go())?);
        narrow(&star, &peer)?;
        peer.meets(&us, Reach::Unknown)?;
        us.meets(&peer, Reach::At(outside))?;
        ensure(us.reaches(&peer)?, "nothing passes")?;
        let transfer = |from: &Site<'_>, to: &Site<'_>| -> Result {
            let server = DownloadServer::start(to.namespace(), (to.v4(), 0))?;
            fetch(from, server.address(), 3 * MIB)
        };
        // What is longer than the link in one piece leaves without DF, so routers cut it and say nothing ...
        transfer(&us, &peer)?;
        transfer(&peer, &us)?;
        // ... but a single datagram is refused by the router; the kernel learns, and with the next burst we do.
        traffic::ping(us.namespace(), peer.v4(), unfragmented(1400))?;
        transfer(&us, &peer)?;
        transfer(&peer, &us)?;
        let limit = inner_limit(outside);
        wait_for("the sender gets an ICMP error for a packet that is too big", 2 * SOON, || {
            has_learned_mtu(&us, &peer, limit)
        })?;
    }
    Ok(())
}

fn without_ipv6() -> Result {
    let star = Star::with_hosts(3)?;
    let namespace = star.host(0).namespace();
    // On the loopback and the link; an interface that comes later, the tunnel's, has it.
    namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "0")?;
    let us = Site::start(&star, 0, &ours())?;
    let (peer, other) =
        (Site::start(&star, 1, &Program::wireguard_go())?, Site::start(&star, 2, &Program::boringtun())?);
    join(&us, &peer)?;
    other.meets(&us, Reach::Unknown)?;
    us.meets(&other, Reach::At(Family::V6))?;
    ensure(us.is_cut_off_from(&other)?, "IPv6 works, where it is switched off")?;
    exchange(&us, &peer)?;
    exchange(&peer, &us)?;
    us.changes(&other, &format!("endpoint {}", other.outside(Family::V4)))?;
    // The initiation that went nowhere is repeated after five seconds at the latest.
    wait_for("a session by IPv4", 4 * SOON, || us.reaches(&other))?;
    Ok(())
}
