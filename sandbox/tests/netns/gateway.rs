//! The virtual gateway behaves like Hetzner's.

use std::net::Ipv4Addr;

use libtest_mimic::Trial;
use sandbox::traffic::{
    Direction, Packet, Ping, ProbeFailure, Reflector, Reply, Sniffer, ping, tcp_probe, udp_probe, udp_probe_from,
};
use sandbox::world::{NextHop, Settings, World, addresses as at};

use crate::private::nat_by_hand;
use crate::{Outcome, SILENCE, TIMEOUT, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        servers_of_a_network_reach_each_other_in_one_hop,
        a_spoofed_source_is_dropped_and_counted,
        a_server_may_use_its_alias_ips_and_routed_sources,
        the_gateway_of_the_default_route_may_not_use_a_neighbours_address,
        no_server_receives_the_arp_of_another,
        the_gateway_answers_arp_for_every_address,
        networks_cannot_reach_each_other,
        a_route_to_an_alias_ip_follows_the_alias_ip,
        a_route_to_an_unused_gateway_is_unreachable,
        an_unused_private_address_does_not_follow_the_default_route,
    ]
}

fn servers_of_a_network_reach_each_other_in_one_hop() -> Outcome {
    let world = World::start(Settings::default())?;
    for (from, to) in [(world.web(), at::WORKER), (world.worker(), at::WEB), (world.bastion(), at::WORKER)] {
        assert_eq!(ping(from, to, Ping::default())?.replies, [Reply { sequence: 1, ttl: 63 }]);
    }
    // The gateway itself is on the link.
    let gateway = world.gateway(world.private_network_id()).address();
    assert_eq!(ping(world.web(), gateway, Ping::default())?.replies, [Reply { sequence: 1, ttl: 64 }]);
    Ok(())
}

fn a_spoofed_source_is_dropped_and_counted() -> Outcome {
    let world = World::start(Settings::default())?;
    let gateway = world.gateway(world.private_network_id());
    let reflector = Reflector::udp(world.worker(), (at::WORKER, 7))?;
    for (count, other) in
        [Ipv4Addr::new(203, 0, 113, 99), Ipv4Addr::new(10, 0, 0, 77), at::BASTION_PRIVATE].into_iter().enumerate()
    {
        world.web().ip(&format!("addr add {other}/32 dev lo"))?;
        assert_eq!(gateway.spoofed_packets()?, u64::try_from(count)?);
        let probe = udp_probe_from(world.web(), (other, 0), reflector.address(), SILENCE);
        assert_eq!(probe, Err(ProbeFailure::Timeout), "from {other}");
        assert_eq!(gateway.spoofed_packets()?, u64::try_from(count + 1)?);
    }
    assert_eq!(reflector.seen(), []);
    // No other packet was dropped.
    assert_eq!(udp_probe(world.web(), reflector.address(), TIMEOUT)?.ip(), at::WEB);
    assert_eq!(gateway.spoofed_packets()?, 3);
    Ok(())
}

fn a_server_may_use_its_alias_ips_and_routed_sources() -> Outcome {
    let world = World::start(Settings::default())?;
    let network = world.private_network_id();
    let (alias, tunnel) = (Ipv4Addr::new(10, 0, 0, 3), Ipv4Addr::new(10, 8, 0, 5));
    world.cloud().set_alias_ips(world.bastion_id(), network, &[alias]);
    world.put_route("10.8.0.0/24".parse()?, at::BASTION_PRIVATE);
    let reflector = Reflector::udp(world.web(), (at::WEB, 7))?;
    for source in [alias, tunnel] {
        world.bastion().ip(&format!("addr add {source}/32 dev lo"))?;
        let seen = udp_probe_from(world.bastion(), (source, 0), reflector.address(), TIMEOUT)?;
        assert_eq!(seen.ip(), source);
    }
    assert_eq!(world.gateway(network).spoofed_packets()?, 0);
    Ok(())
}

fn the_gateway_of_the_default_route_may_not_use_a_neighbours_address() -> Outcome {
    let world = World::start(Settings::default())?;
    let gateway = world.gateway(world.private_network_id());
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    let other = Ipv4Addr::new(192, 0, 2, 99);
    world.bastion().ip(&format!("addr add {other}/32 dev lo\naddr add {}/32 dev lo", at::WORKER))?;
    let reflector = Reflector::udp(world.web(), (at::WEB, 7))?;
    assert_eq!(udp_probe_from(world.bastion(), (other, 0), reflector.address(), TIMEOUT)?.ip(), other);
    let as_worker = udp_probe_from(world.bastion(), (at::WORKER, 0), reflector.address(), SILENCE);
    assert_eq!(as_worker, Err(ProbeFailure::Timeout));
    assert_eq!(gateway.spoofed_packets()?, 1);
    Ok(())
}

fn is_arp(packet: &Packet) -> bool {
    packet.arp().is_some()
}

fn no_server_receives_the_arp_of_another() -> Outcome {
    let world = World::start(Settings::default())?;
    let asking = Sniffer::start(world.web(), "eth0", is_arp)?;
    let others = [Sniffer::start(world.worker(), "eth0", is_arp)?, Sniffer::start(world.bastion(), "eth1", is_arp)?];
    world.web().ip("neigh flush all")?;
    // For the gateway, for a host behind it, and for a neighbour that the gateway does not know.
    world.web().ip("route add 10.0.0.77/32 dev eth0")?;
    let reply = ping(world.web(), world.gateway(world.private_network_id()).address(), Ping::default())?;
    assert_eq!(reply.replies.len(), 1);
    let _ = udp_probe(world.web(), (Ipv4Addr::new(10, 0, 0, 77), 7), SILENCE);
    let questions: Vec<_> = asking
        .stop()
        .iter()
        .filter(|packet| packet.direction == Direction::Out)
        .filter_map(|packet| packet.arp().map(|arp| arp.target))
        .collect();
    assert!(questions.contains(&Ipv4Addr::new(10, 0, 0, 1)), "{questions:?}");
    assert!(questions.contains(&Ipv4Addr::new(10, 0, 0, 77)), "{questions:?}");
    assert_eq!(others.map(Sniffer::stop), [vec![], vec![]]);
    Ok(())
}

fn the_gateway_answers_arp_for_every_address() -> Outcome {
    let world = World::start(Settings::default())?;
    // A host with a /16 on its interface sends ARP requests for the whole network.
    world.web().ip("route del 10.0.0.0/16\nroute add 10.0.0.0/16 dev eth0")?;
    assert_eq!(ping(world.web(), at::WORKER, Ping::default())?.replies, [Reply { sequence: 1, ttl: 63 }]);
    let mac_of = |address: Ipv4Addr| -> Result<String, libtest_mimic::Failed> {
        let neighbour = world.web().ip(&format!("neigh show {address} dev eth0"))?;
        let mac = neighbour.split_once("lladdr ").and_then(|(_, rest)| rest.split(' ').next());
        Ok(mac.ok_or_else(|| format!("no neighbour {address}: {neighbour}"))?.to_owned())
    };
    let gateway = world.gateway(world.private_network_id()).address();
    assert_eq!(ping(world.web(), gateway, Ping::default())?.replies.len(), 1);
    assert_eq!(mac_of(at::WORKER)?, mac_of(gateway)?);
    Ok(())
}

fn networks_cannot_reach_each_other() -> Outcome {
    let world = World::start(Settings::default())?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let tenant = Reflector::tcp(world.tenant(), (at::TENANT, 80))?;
    assert_eq!(tcp_probe(world.tenant(), web.address(), TIMEOUT), Err(ProbeFailure::Unreachable));
    assert_eq!(tcp_probe(world.web(), tenant.address(), TIMEOUT), Err(ProbeFailure::Unreachable));
    // The bastion is in both networks and does not forward.
    assert_eq!(tcp_probe(world.bastion(), web.address(), TIMEOUT)?.ip(), at::BASTION_PRIVATE);
    assert_eq!(tcp_probe(world.bastion(), tenant.address(), TIMEOUT)?.ip(), at::BASTION_SECOND);
    assert_ne!(world.private_network_id(), world.second_network_id());
    Ok(())
}

fn a_route_to_an_alias_ip_follows_the_alias_ip() -> Outcome {
    let world = World::start(Settings::default())?;
    let network = world.private_network_id();
    let gateway = world.gateway(network);
    let (everywhere, alias) = ("0.0.0.0/0".parse()?, Ipv4Addr::new(10, 0, 0, 3));
    nat_by_hand(&world)?;
    let reflector = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    world.cloud().set_alias_ips(world.bastion_id(), network, &[alias]);
    world.put_route(everywhere, alias);
    // The server does not have the address itself, but the gateway routes it to the server.
    assert_eq!(tcp_probe(world.web(), reflector.address(), TIMEOUT)?.ip(), at::BASTION);
    assert_eq!(gateway.routes()[&everywhere], NextHop::Via(world.bastion_id(), at::BASTION_PRIVATE));

    world.cloud().set_alias_ips(world.bastion_id(), network, &[]);
    gateway.wait_for_route(alias.into(), None, TIMEOUT)?;
    assert_eq!(gateway.routes()[&everywhere], NextHop::Unreachable);
    assert_eq!(tcp_probe(world.web(), reflector.address(), TIMEOUT), Err(ProbeFailure::Unreachable));
    Ok(())
}

fn a_route_to_an_unused_gateway_is_unreachable() -> Outcome {
    let world = World::start(Settings::default())?;
    let gateway = world.gateway(world.private_network_id());
    let (everywhere, unused) = ("0.0.0.0/0".parse()?, Ipv4Addr::new(10, 0, 0, 200));
    world.put_route(everywhere, unused);
    assert_eq!(gateway.routes()[&everywhere], NextHop::Unreachable);
    assert_eq!(tcp_probe(world.web(), (at::SERVER, 80), TIMEOUT), Err(ProbeFailure::Unreachable));
    // A correct route replaces the wrong one.
    world.put_route(everywhere, at::BASTION_PRIVATE);
    assert_eq!(gateway.routes()[&everywhere], NextHop::Via(world.bastion_id(), at::BASTION_PRIVATE));
    Ok(())
}

fn an_unused_private_address_does_not_follow_the_default_route() -> Outcome {
    let world = World::start(Settings::default())?;
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    let from_web = |packet: &Packet| packet.ip().is_some_and(|ip| ip.source == at::WEB);
    let arrived = Sniffer::start(world.bastion(), "eth1", from_web)?;
    let probe = udp_probe(world.web(), (Ipv4Addr::new(10, 0, 0, 77), 7), TIMEOUT);
    assert_eq!(probe, Err(ProbeFailure::Unreachable));
    assert_eq!(arrived.stop(), []);
    Ok(())
}
