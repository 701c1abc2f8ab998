//! Source addresses that a link cannot have: the packets are dropped before connection tracking sees them, and counted
//! by reason.

use std::net::{Ipv4Addr, SocketAddr};

use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Direction, Fragmentation, Ping, Reflector, Sniffer};
use sandbox::world::{Settings, World, addresses as at};

use super::{counted, gateway};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_private_source_from_outside_is_dropped_before_it_is_tracked", || {
            from_outside(at::WEB, "dropped_spoofed")
        }),
        trial("a_tenants_source_from_outside_is_dropped_before_it_is_tracked", || {
            from_outside(at::TENANT, "dropped_spoofed")
        }),
        trial("a_bogon_source_from_outside_is_dropped_before_it_is_tracked", || from_outside(BOGON, "dropped_bogon")),
        trial("a_carrier_grade_nat_source_from_outside_is_dropped_before_it_is_tracked", || {
            from_outside(CARRIERS, "dropped_bogon")
        }),
        trial("another_tenants_source_from_inside_is_dropped_before_it_is_tracked", || {
            from_inside(at::TENANT, "dropped_spoofed")
        }),
        trial("an_internet_source_from_inside_is_dropped_before_it_is_tracked", || {
            from_inside(at::SERVER, "dropped_bogon")
        }),
        trial("a_private_host_cannot_send_with_the_clouds_own_addresses", clouds_addresses),
        trial("an_icmp_error_of_a_router_with_a_private_address_reaches_the_private_host", private_router),
        trial("a_dhcp_answer_is_accepted_on_each_link_and_never_forwarded", dhcp),
    ]
}

const BOGON: Ipv4Addr = Ipv4Addr::new(192, 168, 44, 4);
const CARRIERS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 9);
/// The UDP port of the datagrams that the tests send.
const PORT: u16 = 5353;

/// Counts datagrams just before and just after our chain `early`. The priority of `early` is -300, that of connection
/// tracking -200.
const OBSERVERS: &str = "table inet observers {
    counter before {}
    counter after {}
    set ports { type inet_service; elements = { 53, 67, 68, 5353, 51820 }; }
    chain before { type filter hook prerouting priority -310; udp dport @ports counter name before; }
    chain after { type filter hook prerouting priority -290; udp dport @ports counter name after; }
}";

fn observed(world: &World, name: &str) -> Result<u64> {
    let listing: serde_json::Value = world.bastion().nft_json(&format!("list counter inet observers {name}"))?;
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    Ok(objects.iter().filter_map(|object| object["counter"]["packets"].as_u64()).sum())
}

/// Sends a datagram with a false source, and checks that it arrives at the bastion and that `early` drops it.
fn is_dropped_early(world: &World, from: &Namespace, source: Ipv4Addr, target: SocketAddr, counter: &str) -> Result {
    from.ip(&format!("addr add {source}/32 dev lo"))?;
    world.bastion().nft(OBSERVERS)?;
    let before = counted(world, counter)?;
    let met = traffic::udp_probe_from(from, (source, 40_000), target, NEVER);
    ensure(met.is_err(), format!("{source} got an answer: {met:?}"))?;
    ensure_eq((observed(world, "before")?, observed(world, "after")?), (1, 0))?;
    ensure_eq(counted(world, counter)?, before + 1)
}

/// A probe is a datagram of one of the observed ports.
const WITHOUT_PROBES: &str = "[health]\nenabled = false\n";

fn from_outside(source: Ipv4Addr, counter: &str) -> Result {
    let world = World::start(Settings::default())?;
    let wireguard = Reflector::udp(world.bastion(), (at::BASTION, 51_820))?;
    let (_installation, _daemon) = gateway(&world, WITHOUT_PROBES)?;
    is_dropped_early(&world, world.internet(), source, wireguard.address(), counter)?;
    ensure_eq(wireguard.seen(), vec![])
}

fn from_inside(source: Ipv4Addr, counter: &str) -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, _daemon) = gateway(&world, WITHOUT_PROBES)?;
    // Hetzner's gateway drops this already; the bastion must not rely on it.
    world.gateway(world.private_network_id()).namespace().nft("delete table inet gateway")?;
    let left = Sniffer::start(world.bastion(), "eth0", |packet| packet.udp().is_some_and(|(_, to)| to == PORT))?;
    // To the API's address rather than the server's: `source` may be the server's own, which a host does not send to.
    is_dropped_early(&world, world.web(), source, (at::API, PORT).into(), counter)?;
    ensure_eq(left.stop().len(), 0)
}

fn clouds_addresses() -> Result {
    for source in [at::PUBLIC_GATEWAY, at::METADATA] {
        let world = World::start(Settings::default())?;
        let (_installation, _daemon) = gateway(&world, "")?;
        world.gateway(world.private_network_id()).namespace().nft("delete table inet gateway")?;
        world.web().ip(&format!("addr add {source}/32 dev lo"))?;
        let out = |packet: &traffic::Packet| {
            packet.direction == Direction::Out && packet.udp().is_some_and(|(_, to)| to == PORT)
        };
        let left = Sniffer::start(world.bastion(), "eth0", out)?;
        let _ = traffic::udp_probe_from(world.web(), (source, 40_000), (at::SERVER, PORT), NEVER);
        ensure(left.stop().is_empty(), format!("a private host sends to the internet as {source}"))?;
    }
    Ok(())
}

fn private_router() -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, _daemon) = gateway(&world, "")?;
    // The internet's router has a link with a smaller MTU to the server. Its ICMP error has a private source.
    let router = Ipv4Addr::new(10, 99, 0, 1);
    world.internet().ip(&format!(
        "addr add {router}/32 dev lo
         link set server mtu 1300
         route replace {}/32 dev bastion scope link src {router}",
        at::BASTION
    ))?;
    let how = Ping { size: 1372, fragmentation: Fragmentation::Forbidden, count: 2, timeout: SOON, ..Ping::default() };
    let report = traffic::ping(world.web(), at::SERVER, how)?;
    let is_reported = report.icmp_errors.iter().any(|error| error.contains("mtu = 1300"));
    ensure(is_reported, format!("web gets no ICMP error about the smaller MTU: {report:?}"))?;
    // The error belongs to a flow, so it is not counted as a bogon.
    ensure_eq(counted(&world, "dropped_bogon")?, 0)
}

fn dhcp() -> Result {
    let world = World::start(Settings::default())?;
    let client = Reflector::udp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 68))?;
    let port = client.address().port();
    // As DHCP clients set them.
    for (link, address) in [("eth0", at::BASTION), ("eth1", at::BASTION_PRIVATE)] {
        world.bastion().ip(&format!("addr change {address}/32 dev {link} valid_lft 3600 preferred_lft 3600"))?;
    }
    let (_installation, _daemon) = gateway(&world, "")?;
    let server = SocketAddr::from((at::PUBLIC_GATEWAY, 67));
    let answer = traffic::udp_probe_from(world.internet(), server, (at::BASTION, port), SOON);
    ensure(answer.is_ok(), format!("Hetzner's DHCP server does not reach eth0: {answer:?}"))?;
    // On a private link the DHCP server is the network's gateway, or Hetzner's.
    let gateway = world.gateway(world.private_network_id()).namespace();
    gateway.nft("delete table inet gateway")?;
    gateway.ip(&format!("addr add {}/32 dev lo", at::PUBLIC_GATEWAY))?;
    let seen = client.seen().len();
    let _ = traffic::udp_probe_from(gateway, server, (at::BASTION_PRIVATE, port), NEVER);
    ensure_eq(client.seen().len(), seen + 1)?;
    // The bastion forwards nothing of a private host that sends like a DHCP server.
    world.web().ip(&format!("addr add {}/32 dev lo", at::TENANT))?;
    let left = Sniffer::start(world.bastion(), "eth0", |packet| packet.udp().is_some_and(|(_, to)| to == 68))?;
    let _ = traffic::udp_probe_from(world.web(), (at::TENANT, 67), (at::SERVER, 68), NEVER);
    let left = left.stop();
    ensure(left.is_empty(), format!("{left:?} left on eth0 with a false source"))
}
