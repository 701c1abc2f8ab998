//! Limits for private hosts: unroutable destinations, new flows a second, flows at once.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Direction, HeldConnection, Reflector, Sniffer, flush_conntrack};
use sandbox::world::{Settings, World, addresses as at};

use super::{contents, counted, gateway, reload, tcp, udp};
use crate::bpf;
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("packets_to_unroutable_ranges_do_not_leave", unroutable),
        trial("without_the_guard_only_packets_to_link_local_addresses_are_kept_in", unguarded),
        trial("a_flow_whose_route_is_gone_does_not_leave_by_the_public_link", astray),
        trial("the_bastion_itself_sends_nothing_to_unroutable_ranges", own),
        trial("a_host_that_opens_too_many_flows_a_second_is_limited_and_another_is_not", new_flows),
        trial("a_host_at_its_flow_limit_opens_no_more_until_some_end", max_flows),
        trial("an_unanswered_flow_counts_once_however_many_packets_it_has", one_way),
    ]
}

/// Private (RFC 1918), carrier-grade NAT, benchmark, reserved and link-local addresses.
const UNROUTABLE: [Ipv4Addr; 9] = [
    Ipv4Addr::new(10, 77, 0, 1),
    Ipv4Addr::new(172, 16, 5, 5),
    Ipv4Addr::new(172, 31, 1, 1),
    Ipv4Addr::new(192, 168, 7, 7),
    Ipv4Addr::new(100, 64, 1, 1),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(240, 1, 1, 1),
    Ipv4Addr::new(192, 0, 0, 8),
    LINK_LOCAL,
];
const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 7);
/// The kernel forwards no multicast unless a multicast router runs.
const MULTICAST: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 9);

/// One datagram to each of the destinations, and one TCP connection.
fn scan(from: &Namespace) -> Result {
    let socket = from.bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    for destination in UNROUTABLE.into_iter().chain([MULTICAST]) {
        // Err: the datagram is not sent, and the counts below show it.
        let _ = socket.send_to(b"anybody?", (destination, 9));
    }
    let _ = traffic::tcp_connects(from, (UNROUTABLE[0], 22), NEVER);
    Ok(())
}

/// Captures what leaves or arrives on a link for [`UNROUTABLE`] and [`MULTICAST`].
fn watch(world: &World, link: &str, direction: Direction) -> Result<Sniffer> {
    let is_unroutable = |packet: &traffic::Packet| {
        let destination = packet.ip().map(|ip| ip.destination);
        destination.is_some_and(|to| UNROUTABLE.iter().chain(&[MULTICAST]).any(|address| to == *address))
    };
    Ok(Sniffer::start(world.bastion(), link, move |packet| packet.direction == direction && is_unroutable(packet))?)
}

/// The destinations of the captured packets, each once.
fn destinations(sniffer: Sniffer) -> Vec<std::net::IpAddr> {
    let caught = sniffer.stop();
    let all: std::collections::BTreeSet<_> =
        caught.iter().filter_map(|packet| packet.ip().map(|ip| ip.destination)).collect();
    all.into_iter().collect()
}

fn unroutable() -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, _daemon) = gateway(&world, "")?;
    let (came, left) = (watch(&world, "eth1", Direction::In)?, watch(&world, "eth0", Direction::Out)?);
    let before = counted(&world, "dropped_unroutable")?;
    scan(world.web())?;
    ensure(came.wait_for(UNROUTABLE.len() + 1, SOON), "not all packets of the scan arrived at the bastion")?;
    ensure_eq(destinations(left), Vec::new())?;
    // One more for the connection's SYN, which may have been sent twice.
    let dropped = counted(&world, "dropped_unroutable")? - before;
    ensure(
        dropped > UNROUTABLE.len() as u64,
        format!("{dropped} packets were dropped, but more than {} were expected", UNROUTABLE.len()),
    )?;
    ensure(contents(&world, "set", "scanning")?.contains("10.0.0.4"), "the scanner is not recorded")
}

fn unguarded() -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, _daemon) = gateway(&world, "[egress]\nguard = false")?;
    let (came, left) = (watch(&world, "eth1", Direction::In)?, watch(&world, "eth0", Direction::Out)?);
    scan(world.web())?;
    ensure(came.wait_for(UNROUTABLE.len() + 1, SOON), "not all packets of the scan arrived at the bastion")?;
    let left = destinations(left);
    ensure(
        left.contains(&UNROUTABLE[0].into()) && left.contains(&UNROUTABLE[3].into()),
        format!("only {left:?} left"),
    )?;
    ensure(!left.contains(&LINK_LOCAL.into()) && !left.contains(&MULTICAST.into()), format!("{left:?} left"))
}

fn astray() -> Result {
    let world = World::start(Settings::default())?;
    let service = Reflector::tcp(world.tenant(), (at::TENANT, 5432))?;
    let (_installation, _daemon) =
        gateway(&world, "[tenants]\nallow = [{ from = [\"10.0.0.0/16\"], to = [\"10.2.0.0/16\"] }]")?;
    let mut held = HeldConnection::open(world.web(), service.address(), SOON)?;
    held.exchange(SOON)?;
    let left = Sniffer::start(world.bastion(), "eth0", |packet| {
        packet.direction == Direction::Out && packet.ip().is_some_and(|ip| ip.destination == at::TENANT)
    })?;
    let before = counted(&world, "dropped_forward")?;
    // Now the default route applies.
    world.bastion().ip("route del 10.2.0.0/16")?;
    let lost = world.bastion().ip(&format!("route get {}", at::TENANT))?;
    ensure(lost.contains("dev eth0"), lost)?;
    bpf::let_foreign_change_hold();
    ensure(held.exchange(NEVER).is_err(), "the flow continues without its route")?;
    ensure_eq(left.stop().len(), 0)?;
    ensure(counted(&world, "dropped_forward")? > before, "nothing of the flow was dropped")
}

/// Whether the bastion itself can send a datagram there: sending fails at once if the rules drop it.
fn sends(world: &World, to: Ipv4Addr) -> Result<bool> {
    Ok(world.bastion().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?.send_to(b"anybody?", (to, 9)).is_ok())
}

fn own() -> Result {
    let world = World::start(Settings::default())?;
    let (installation, mut daemon) = gateway(&world, "")?;
    let before = counted(&world, "dropped_unroutable")?;
    for address in [UNROUTABLE[0], UNROUTABLE[1], UNROUTABLE[3], UNROUTABLE[4], UNROUTABLE[5]] {
        ensure(!sends(&world, address)?, format!("the bastion sends to {address}"))?;
    }
    ensure_eq(counted(&world, "dropped_unroutable")? - before, 5)?;
    // The internet, private hosts, and addresses on the link itself.
    for address in [at::SERVER, at::WEB, at::TENANT, Ipv4Addr::new(172, 31, 1, 1), LINK_LOCAL, MULTICAST] {
        ensure(sends(&world, address)?, format!("the bastion cannot send to {address}"))?;
    }
    reload(&installation, &mut daemon, "[egress]\nguard = false")?;
    ensure(sends(&world, UNROUTABLE[0])?, "the guard is off, and the bastion still cannot send")
}

/// Opens `count` UDP flows to `target` as fast as possible, with one datagram each. The sockets keep their ports.
fn open_flows(from: &Namespace, target: SocketAddr, count: usize) -> Result<Vec<UdpSocket>> {
    (0..count)
        .map(|_| {
            let socket = from.bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.send_to(b"hello", target)?;
            Ok(socket)
        })
        .collect()
}

/// The number of datagrams that a reflector has seen, once no more arrive.
fn settled(reflector: &Reflector) -> usize {
    let mut seen = reflector.seen().len();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = reflector.seen().len();
        if now == seen {
            return now;
        }
        seen = now;
    }
}

fn new_flows() -> Result {
    const RATE: usize = 20;
    let world = World::start(Settings::default())?;
    let greedy = Reflector::udp(world.server(), (at::SERVER, 5001))?;
    let modest = Reflector::udp(world.server(), (at::SERVER, 5002))?;
    let service = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let (_installation, _daemon) = gateway(&world, &format!("[egress]\nnew_flows_per_second = {RATE}"))?;
    let start = Instant::now();
    let sockets = open_flows(world.web(), greedy.address(), 300)?;
    let other = open_flows(world.worker(), modest.address(), 30)?;
    let passed = settled(&greedy);
    // The burst is twice the rate.
    let most = 2 * RATE + start.elapsed().as_millis() as usize * RATE / 1000 + 1;
    ensure(
        (2 * RATE..=most).contains(&passed),
        format!("{passed} of {} flows passed, but at most {most} should", sockets.len()),
    )?;
    ensure_eq(settled(&modest), other.len())?;
    ensure_eq(counted(&world, "dropped_new_flows")?, (sockets.len() - passed) as u64)?;
    let offenders = contents(&world, "set", "over_new_flows")?;
    ensure(offenders.contains("10.0.0.4") && !offenders.contains("10.0.1.5"), offenders)?;
    // The limit does not apply to existing flows, and after a while new ones pass again.
    let first = &sockets[0];
    first.set_read_timeout(Some(SOON))?;
    for _ in 0..100 {
        first.send_to(b"more", greedy.address())?;
    }
    ensure_eq(settled(&greedy), passed + 100)?;
    wait_for("a new flow passes", SOON, || Ok(tcp(world.web(), (at::SERVER, 8080)).is_ok()))?;
    ensure(!service.seen().is_empty(), "a TCP connection passed without arriving")
}

fn max_flows() -> Result {
    const MOST: usize = 50;
    let world = World::start(Settings::default())?;
    let greedy = Reflector::udp(world.server(), (at::SERVER, 5001))?;
    let modest = Reflector::udp(world.server(), (at::SERVER, 5002))?;
    let _service = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let (installation, mut daemon) = gateway(&world, &format!("[egress]\nmax_flows = {MOST}"))?;
    let sockets = open_flows(world.web(), greedy.address(), MOST)?;
    ensure_eq(settled(&greedy), MOST)?;
    // The daemon learns of the flows within some hundredths of a second.
    let is_limited = || Ok(contents(&world, "set", "limited4")?.contains("10.0.0.4"));
    wait_for("the source is limited", SOON, is_limited)?;
    let further = open_flows(world.web(), greedy.address(), 30)?;
    ensure_eq(settled(&greedy), MOST)?;
    ensure_eq(counted(&world, "dropped_flows")?, further.len() as u64)?;
    ensure_eq(tcp(world.web(), (at::SERVER, 8080)), Err(traffic::ProbeFailure::Timeout))?;
    let other = open_flows(world.worker(), modest.address(), 30)?;
    ensure_eq(settled(&modest), other.len())?;
    let offenders = contents(&world, "set", "over_flows")?;
    ensure(offenders.contains("10.0.0.4") && !offenders.contains("10.0.1.5"), offenders)?;
    // Existing flows continue; a higher limit applies at once, and new flows pass when others have ended.
    sockets[0].send_to(b"more", greedy.address())?;
    ensure_eq(settled(&greedy), MOST + 1)?;
    reload(&installation, &mut daemon, "[egress]\nmax_flows = 400")?;
    wait_for("the source is not limited any more", SOON, || Ok(!is_limited()?))?;
    ensure_eq(udp(world.web(), (at::SERVER, 5002)), Ok(at::BASTION.into()))?;
    reload(&installation, &mut daemon, &format!("[egress]\nmax_flows = {MOST}"))?;
    wait_for("the source is limited again", SOON, is_limited)?;
    flush_conntrack(world.bastion())?;
    wait_for("the end of the flows is known", SOON, || Ok(!is_limited()?))?;
    ensure_eq(tcp(world.web(), (at::SERVER, 8080)), Ok(at::BASTION.into()))
}

fn one_way() -> Result {
    const PACKETS: usize = 200;
    let world = World::start(Settings::default())?;
    // A syslog server, for example, listens and sends nothing.
    let sink = Sniffer::start(world.server(), "eth0", |packet| packet.udp().is_some_and(|(_, to)| to == 514))?;
    let _silent = world.server().bind_udp((at::SERVER, 514))?;
    let (_installation, _daemon) = gateway(&world, "[egress]\nnew_flows_per_second = 5\nmax_flows = 5")?;
    let socket = world.web().bind_udp((Ipv4Addr::UNSPECIFIED, 0))?;
    for _ in 0..PACKETS {
        socket.send_to(b"<13>hello", (at::SERVER, 514))?;
    }
    sink.wait_for(PACKETS, SOON);
    let arrived = sink.stop().iter().filter(|packet| packet.direction == Direction::In).count();
    ensure_eq((arrived, counted(&world, "dropped_new_flows")?), (PACKETS, 0))
}
