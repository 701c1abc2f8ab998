//! Which packets the gateway forwards.

use std::net::Ipv4Addr;
use std::time::Duration;

use libtest_mimic::Trial;
use sandbox::traffic::{self, Direction, HeldConnection, ProbeFailure, Reflector, Sniffer};
use sandbox::world::{Interfaces, Settings, World, addresses as at};

use crate::gateway::{
    Egress, FAST, NEVER, REPAIR, Result, SOON, Server, egress, ensure, ensure_eq, healthy, installation, is_shut, open,
    table, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_private_host_reaches_the_internet_from_the_bastions_address", reaches_the_internet),
        trial("every_network_of_the_bastion_reaches_the_internet", tenants_reach_the_internet),
        trial("interfaces_are_found_whatever_their_names", names_are_never_guessed),
        trial("without_the_daemon_or_without_the_cloud_route_nothing_passes", nothing_passes_without),
        trial("the_internet_cannot_reach_private_hosts", internet_reaches_nobody),
        trial("one_network_cannot_reach_another", tenants_are_apart),
        trial("a_source_of_another_network_is_not_forwarded", spoofed_source),
        trial("a_download_into_the_smaller_mtu_completes_without_icmp", download_without_icmp),
        trial("private_hosts_cannot_reach_the_bastions_metadata", metadata_is_out_of_reach),
        trial("ipv6_is_not_forwarded", ipv6_is_not_forwarded),
        trial("an_icmp_error_about_a_flow_comes_back_in", icmp_errors_come_back),
        trial("a_short_loss_of_the_address_ends_no_flow", address_flaps),
        trial("new_flows_have_the_new_public_address_when_it_changes", address_changes),
        trial("source_ports_are_random_unless_the_configuration_keeps_them", source_ports),
    ]
}

fn reaches_the_internet() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "something passes before there is a gateway")?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    for host in [world.web(), world.worker()] {
        ensure_eq(egress(host, &server, SOON)?, open())?;
    }
    Ok(())
}

/// The effect of a restart of the network configuration: `masquerade` would delete every flow.
fn address_flaps() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let mut held = HeldConnection::open(world.web(), server.tcp.address(), SOON)?;
    held.exchange(SOON)?;
    world.bastion().ip("addr flush dev eth0\nlink set eth0 down")?;
    ensure(is_shut(&egress(world.worker(), &server, NEVER)?), "something passes a link that is down")?;
    world.bastion().ip("link set eth0 up")?;
    world.configure_public_address()?;
    held.exchange(SOON)?;
    wait_for("new flows pass", SOON, || Ok(egress(world.worker(), &server, SOON)? == open()))?;
    Ok(())
}

fn address_changes() -> Result {
    let new = Ipv4Addr::new(198, 51, 100, 77);
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    world.internet().ip(&format!("route add {new}/32 dev bastion scope link"))?;
    let gateway = at::PUBLIC_GATEWAY;
    world.bastion().ip(&format!(
        "addr flush dev eth0\naddr add {new}/32 dev eth0\n\
         route add {gateway} dev eth0 scope link\nroute add default via {gateway} dev eth0"
    ))?;
    wait_for("new flows have the new address", REPAIR, || {
        Ok(egress(world.web(), &server, SOON)?.tcp == Ok(new.into()))
    })?;
    ensure_eq(egress(world.web(), &server, SOON)?, Egress { tcp: Ok(new.into()), udp: Ok(new.into()), ping: true })
}

fn tenants_reach_the_internet() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    ensure_eq(egress(world.tenant(), &server, SOON)?, open())?;
    let route = world.cloud().routes(world.second_network_id());
    ensure_eq(route.iter().map(|route| route.gateway).collect::<Vec<_>>(), vec![at::BASTION_SECOND])
}

fn names_are_never_guessed() -> Result {
    // The private interface has the usual name of a public one, and vice versa.
    let interfaces = Interfaces { public: "enp7s0".to_owned(), private: "eth0".to_owned(), second: "ens10".to_owned() };
    let world = World::start(Settings { interfaces, ..Settings::default() })?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    ensure_eq(egress(world.tenant(), &server, SOON)?, open())
}

fn nothing_passes_without() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    // The route alone does not make the bastion a gateway.
    let everywhere = "0.0.0.0/0".parse()?;
    world.put_route(everywhere, at::BASTION_PRIVATE);
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "something passes without the daemon")?;
    world.remove_route(everywhere);
    // The daemon alone adds no route without a token.
    let installation = installation(&world)?.env("HCLOUD_TOKEN", "");
    let mut daemon = installation.start()?;
    daemon.wait_until_ready();
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "something passes without the cloud route")?;
    world.put_route(everywhere, at::BASTION_PRIVATE);
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    world.remove_route(everywhere);
    ensure(is_shut(&egress(world.web(), &server, NEVER)?), "something passes after the route was withdrawn")
}

fn internet_reaches_nobody() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let listeners = [(world.web(), at::WEB), (world.tenant(), at::TENANT)];
    for (host, address) in listeners {
        let _tcp = Reflector::tcp(host, (address, 80))?;
        let _udp = Reflector::udp(host, (address, 53))?;
        let arrived = Sniffer::start(host, "eth0", |packet| packet.ip().is_some_and(|ip| ip.source == at::SERVER))?;
        ensure_eq(traffic::tcp_probe(world.server(), (address, 80), NEVER), Err(ProbeFailure::Timeout))?;
        ensure_eq(traffic::udp_probe(world.server(), (address, 53), NEVER), Err(ProbeFailure::Timeout))?;
        ensure(traffic::ping(world.server(), address, ping(NEVER))?.replies.is_empty(), "a ping was answered")?;
        ensure_eq(arrived.stop().len(), 0)?;
    }
    // The packets arrived at the bastion. Otherwise the test would prove nothing.
    let seen =
        Sniffer::start(world.bastion(), "eth0", |packet| packet.ip().is_some_and(|ip| ip.destination == at::WEB))?;
    let _ = traffic::tcp_probe(world.server(), (at::WEB, 80), NEVER);
    ensure(!seen.stop().is_empty(), "the attacker's packets never came to the bastion")
}

fn ping(timeout: Duration) -> traffic::Ping {
    traffic::Ping { timeout, ..traffic::Ping::default() }
}

fn tenants_are_apart() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let _tenant = Reflector::tcp(world.tenant(), (at::TENANT, 80))?;
    ensure(traffic::tcp_probe(world.tenant(), (at::WEB, 80), NEVER).is_err(), "the tenant reaches the other network")?;
    ensure(traffic::tcp_probe(world.web(), (at::TENANT, 80), NEVER).is_err(), "the other network reaches the tenant")?;
    // The bastion does not affect traffic within a network.
    let worker = traffic::tcp_probe(world.worker(), (at::WEB, 80), SOON).map(|seen| seen.ip());
    ensure_eq(worker, Ok(at::WORKER.into()))
}

fn spoofed_source() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    // Hetzner's gateway drops this too, but the bastion must not rely on it.
    world.gateway(world.second_network_id()).namespace().nft("delete table inet gateway")?;
    world.tenant().ip(&format!("addr add {}/32 dev lo", at::WEB))?;
    let from = |port| std::net::SocketAddr::from((at::WEB, port));
    let arrived = Sniffer::start(world.server(), "eth0", |packet| packet.udp().is_some_and(|(_, to)| to == 5353))?;
    let came = Sniffer::start(world.bastion(), "eth2", |packet| packet.ip().is_some_and(|ip| ip.source == at::WEB))?;
    let answer = traffic::udp_probe_from(world.tenant(), from(40000), server.udp.address(), NEVER);
    ensure(answer.is_err(), "a spoofed source was answered")?;
    ensure(!came.stop().is_empty(), "the spoofed packet never came to the bastion")?;
    ensure_eq(arrived.stop().len(), 0)
}

fn download_without_icmp() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    for place in world.namespaces() {
        place.nft(
            "table inet no_icmp {
                chain c { type filter hook prerouting priority raw - 10; meta l4proto { 1, 58 } drop; }
            }",
        )?;
    }
    let source = traffic::DownloadServer::start(world.server(), (at::SERVER, 8000))?;
    let inside = traffic::sniff_syns(world.web(), "eth0")?;
    let outside = traffic::sniff_syns(world.server(), "eth0")?;
    let download = traffic::download(world.web(), source.address(), 5_000_000, Duration::from_secs(20))?;
    ensure_eq((download.bytes, download.intact), (5_000_000, true))?;
    // The MSS that each side receives: 1450 bytes minus 40 of headers.
    let sizes = |sniffer: Sniffer| -> Vec<Option<u16>> {
        let packets = sniffer.stop();
        let incoming = packets.iter().filter(|packet| packet.direction == Direction::In);
        incoming.filter_map(|packet| packet.tcp().map(|tcp| tcp.mss)).collect()
    };
    ensure_eq((sizes(inside), sizes(outside)), (vec![Some(1410)], vec![Some(1410)]))
}

fn metadata_is_out_of_reach() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    let metadata = (at::METADATA, 80);
    ensure(traffic::tcp_connects(world.web(), metadata, NEVER).is_err(), "the bastion's own metadata service answers")?;
    // As on a real server, where it is one hop behind the public interface.
    world.bastion().ip(&format!("addr del {}/32 dev lo", at::METADATA))?;
    ensure_eq(traffic::tcp_connects(world.bastion(), metadata, SOON), Ok(()))?;
    let upstream =
        Sniffer::start(world.bastion(), "eth1", |packet| packet.ip().is_some_and(|ip| ip.destination == at::METADATA))?;
    ensure(
        traffic::tcp_connects(world.web(), metadata, NEVER).is_err(),
        "the metadata service answers through the bastion",
    )?;
    ensure(!upstream.stop().is_empty(), "the question never came to the bastion")
}

fn ipv6_is_not_forwarded() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    // Everything that could open the path by mistake: addresses, routes, forwarding.
    world.bastion().ip("addr add fd00::2/64 dev eth1 nodad")?;
    world.bastion().sysctl("net.ipv6.conf.all.forwarding", "1")?;
    world.web().sysctl("net.ipv6.conf.all.disable_ipv6", "0")?;
    let outside = world.bastion_v6();
    let gateway = world.gateway(world.private_network_id()).namespace();
    gateway.sysctl("net.ipv6.conf.all.disable_ipv6", "0")?;
    let drops_before = dropped_forward(&world)?;
    // A packet for a host behind eth1, from the internet.
    // A packet for a host behind eth1, from the internet.
    world.bastion().ip("neigh add fd00::4 lladdr 86:00:00:2a:00:04 dev eth1")?;
    world.internet().ip(&format!("route add fd00::/64 via {outside}"))?;
    world.server().ip(&format!("route add fd00::/64 via {}", at::ROUTER_V6))?;
    let leaked = Sniffer::start(world.bastion(), "eth1", |packet| {
        packet.ip().is_some_and(|ip| ip.destination == "fd00::4".parse::<std::net::Ipv6Addr>().expect("a literal"))
    })?;
    let target: std::net::Ipv6Addr = "fd00::4".parse()?;
    let _ = traffic::tcp_connects(world.server(), (target, 80), NEVER);
    wait_for("the packet is counted as dropped", SOON, || Ok(dropped_forward(&world)? > drops_before))?;
    ensure_eq(leaked.stop().len(), 0)
}

/// The counter of packets that the forward chain dropped.
fn dropped_forward(world: &World) -> Result<u64> {
    let listing: serde_json::Value = world.bastion().nft_json("list counter inet bastiond dropped_forward")?;
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    Ok(objects.iter().filter_map(|object| object["counter"]["packets"].as_u64()).sum())
}

fn icmp_errors_come_back() -> Result {
    let world = World::start(Settings::default())?;
    let installation = installation(&world)?;
    let _daemon = healthy(&installation)?;
    // No process listens there. The internet host answers with an ICMP error, which is related to the flow but not part
    // of it.
    ensure_eq(traffic::udp_probe(world.web(), (at::SERVER, 9), SOON), Err(ProbeFailure::Refused))
}

fn source_ports() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let installation = installation(&world)?;
    let daemon = healthy(&installation)?;
    let seen = |port: u16| -> Result<u16> {
        let from = std::net::SocketAddr::from((at::WEB, port));
        Ok(traffic::udp_probe_from(world.web(), from, server.udp.address(), SOON)?.port())
    };
    // One port may be the same by chance, but not three.
    let random = [seen(40001)?, seen(40002)?, seen(40003)?];
    ensure(random != [40001, 40002, 40003], format!("{random:?} were kept"))?;
    installation.write_config(&format!("{FAST}[nat]\nrandom_ports = false"))?;
    daemon.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_for("the new rules are loaded", SOON, || Ok(!table(&world, "inet bastiond")?.contains("fully-random")))?;
    ensure_eq([seen(40004)?, seen(40005)?, seen(40006)?], [40004, 40005, 40006])
}
