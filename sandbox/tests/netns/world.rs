//! The state of a new world.

use std::collections::BTreeMap;

use libtest_mimic::Trial;
use reqwest::Method;
use sandbox::namespace::{Link, Namespace};
use sandbox::traffic::{Ping, ProbeFailure, Reflector, Sniffer, ping, tcp_probe, udp_probe};
use sandbox::world::{
    BASTION_MAC, Interfaces, Laptop, Metadata, PrivateNic, PublicAddress, SecondNetwork, Settings, UPSTREAM_METADATA,
    World, addresses as at,
};

use crate::api::Api;
use crate::private::nat_by_hand;
use crate::{Outcome, SILENCE, TIMEOUT, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        the_bastion_starts_as_a_fresh_hetzner_server,
        the_cloud_shows_the_bastions_real_addresses,
        interfaces_have_the_names_of_the_settings,
        the_public_address_can_be_configured_late,
        the_private_interface_can_be_attached_late,
        the_metadata_service_can_start_late,
        the_metadata_address_beyond_the_bastion_is_another_servers,
        packets_for_private_addresses_arrive_at_the_bastions_public_interface,
        a_laptop_behind_nat_is_seen_with_its_routers_address,
        two_worlds_do_not_affect_each_other,
        four_worlds_start_at_once,
    ]
}

/// The interfaces without link-local addresses.
fn links(namespace: &Namespace) -> Result<BTreeMap<String, Link>, sandbox::namespace::Error> {
    let mut links = namespace.links()?;
    for link in links.values_mut() {
        link.addresses.retain(|address| !address.to_string().starts_with("fe80::"));
    }
    Ok(links)
}

fn link(name: &str, mac: &str, mtu: u32, addresses: &[&str]) -> (String, Link) {
    let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    (name.to_owned(), Link { name: name.to_owned(), mac: mac.to_owned(), mtu, up: true, addresses })
}

fn the_bastion_starts_as_a_fresh_hetzner_server() -> Outcome {
    let world = World::start(Settings::default())?;
    let v6 = format!("{}/64", world.bastion_v6());
    let expected = BTreeMap::from([
        link("lo", "00:00:00:00:00:00", 65536, &["127.0.0.1/8", "169.254.169.254/32", "::1/128"]),
        link("eth0", BASTION_MAC, 1500, &["198.51.100.2/32", &v6]),
        link("eth1", "86:00:00:2a:00:02", 1450, &["10.0.0.2/32"]),
        link("eth2", "86:00:00:2a:02:02", 1450, &["10.2.0.2/32"]),
    ]);
    assert_eq!(links(world.bastion())?, expected);
    let routes: Vec<_> = world.bastion().ip("route show")?.lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(
        routes,
        [
            "default via 172.31.1.1 dev eth0 onlink",
            "10.0.0.0/16 via 10.0.0.1 dev eth1",
            "10.0.0.1 dev eth1 scope link",
            "10.2.0.0/16 via 10.2.0.1 dev eth2",
            "10.2.0.1 dev eth2 scope link",
        ]
    );
    let settings = ["net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0.rp_filter"];
    let values: Result<Vec<_>, _> = settings.iter().map(|key| world.bastion().read_sysctl(key)).collect();
    assert_eq!(values?, ["0", "0", "2"]);
    assert_eq!(world.bastion().nft("list ruleset")?, "");
    Ok(())
}

fn the_cloud_shows_the_bastions_real_addresses() -> Outcome {
    let world = World::start(Settings::default())?;
    let answer = Api::of(&world).call(Method::GET, &format!("/servers/{}", world.bastion_id()), None, 200);
    let server = &answer["server"];
    assert_eq!(server["public_net"]["ipv4"]["ip"], "198.51.100.2");
    let macs: Vec<_> = server["private_net"]
        .as_array()
        .ok_or("private_net is a list")?
        .iter()
        .map(|net| (net["ip"].as_str().unwrap_or_default(), net["mac_address"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(macs, [("10.0.0.2", "86:00:00:2a:00:02"), ("10.2.0.2", "86:00:00:2a:02:02")]);
    let v6: ipnet::Ipv6Net = server["public_net"]["ipv6"]["ip"].as_str().ok_or("it has IPv6")?.parse()?;
    assert!(v6.contains(&world.bastion_v6()), "{v6}");
    let reply = ping(world.server(), world.bastion_v6(), Ping::default())?;
    assert_eq!(reply.replies.len(), 1, "{reply:?}");
    Ok(())
}

fn interfaces_have_the_names_of_the_settings() -> Outcome {
    let interfaces = Interfaces { public: "ens3".into(), private: "enp7s0".into(), second: "ens11".into() };
    let world = World::start(Settings { interfaces, ..Settings::default() })?;
    let names: Vec<_> = world.bastion().links()?.into_keys().collect();
    assert_eq!(names, ["enp7s0", "ens11", "ens3", "lo"]);
    assert_eq!(ping(world.bastion(), at::WEB, Ping::default())?.replies.len(), 1);
    assert_eq!(ping(world.bastion(), at::SERVER, Ping::default())?.replies.len(), 1);
    Ok(())
}

fn the_public_address_can_be_configured_late() -> Outcome {
    let world = World::start(Settings { public_address: PublicAddress::Pending, ..Settings::default() })?;
    assert_eq!(links(world.bastion())?["eth0"], link("eth0", BASTION_MAC, 1500, &[]).1);
    let reflector = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    assert_eq!(tcp_probe(world.bastion(), reflector.address(), TIMEOUT), Err(ProbeFailure::Unreachable));
    world.configure_public_address()?;
    let seen = tcp_probe(world.bastion(), reflector.address(), TIMEOUT)?;
    assert_eq!(seen.ip(), at::BASTION);
    Ok(())
}

/// The answer of the metadata service to a program in the namespace.
fn metadata(namespace: &Namespace, path: &str) -> Result<String, ProbeFailure> {
    use std::io::{Read, Write};
    namespace.run(|| {
        let mut stream = std::net::TcpStream::connect_timeout(&(at::METADATA, 80).into(), TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /hetzner/v1/metadata/{path} HTTP/1.0\r\nHost: 169.254.169.254\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    })
}

fn the_private_interface_can_be_attached_late() -> Outcome {
    let settings =
        Settings { private_nic: PrivateNic::Absent, second_network: SecondNetwork::Absent, ..Settings::default() };
    let world = World::start(settings)?;
    assert_eq!(world.bastion().links()?.into_keys().collect::<Vec<_>>(), ["eth0", "lo"]);
    assert_eq!(metadata(world.bastion(), "private-networks")?.trim(), "[]");
    world.attach_private_nic()?;
    assert_eq!(links(world.bastion())?["eth1"], link("eth1", "86:00:00:2a:00:02", 1450, &["10.0.0.2/32"]).1);
    let listed = metadata(world.bastion(), "private-networks")?;
    assert!(listed.contains("mac_address: 86:00:00:2a:00:02\n"), "{listed}");
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    assert_eq!(ping(world.bastion(), at::WEB, Ping::default())?.replies.len(), 1);
    Ok(())
}

fn the_metadata_service_can_start_late() -> Outcome {
    let world = World::start(Settings { metadata: Metadata::Absent, ..Settings::default() })?;
    assert_eq!(metadata(world.bastion(), "instance-id"), Err(ProbeFailure::Refused));
    world.serve_metadata()?;
    assert_eq!(metadata(world.bastion(), "instance-id")?.trim(), world.bastion_id().to_string());
    Ok(())
}

fn the_metadata_address_beyond_the_bastion_is_another_servers() -> Outcome {
    let world = World::start(Settings::default())?;
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    nat_by_hand(&world)?;
    // A gateway that forwards these requests would reveal its own user-data.
    assert_eq!(metadata(world.web(), "instance-id")?.trim(), world.bastion_id().to_string());
    world.bastion().ip("addr del 169.254.169.254/32 dev lo")?;
    assert_eq!(metadata(world.web(), "instance-id")?, UPSTREAM_METADATA);
    Ok(())
}

fn packets_for_private_addresses_arrive_at_the_bastions_public_interface() -> Outcome {
    let world = World::start(Settings::default())?;
    let to_web = |packet: &sandbox::traffic::Packet| packet.ip().is_some_and(|ip| ip.destination == at::WEB);
    let public = Sniffer::start(world.bastion(), "eth0", to_web)?;
    let private = Sniffer::start(world.web(), "eth0", to_web)?;
    assert_eq!(udp_probe(world.server(), (at::WEB, 7), SILENCE), Err(ProbeFailure::Timeout));
    assert_eq!(public.stop().len(), 1);
    assert_eq!(private.stop(), []);
    Ok(())
}

fn a_laptop_behind_nat_is_seen_with_its_routers_address() -> Outcome {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let reflector = Reflector::tcp(world.bastion(), (at::BASTION, 22))?;
    assert_eq!(tcp_probe(world.laptop(), reflector.address(), TIMEOUT)?.ip(), at::HOME);
    assert_eq!(ping(world.laptop(), at::SERVER, Ping::default())?.replies.len(), 1);
    // No way in.
    assert_eq!(ping(world.server(), at::LAPTOP, Ping::default())?.replies, []);
    assert_eq!(world.home().links()?.into_keys().collect::<Vec<_>>(), ["lan", "lo", "wan"]);
    Ok(())
}

fn two_worlds_do_not_affect_each_other() -> Outcome {
    let (one, other) = (World::start(Settings::default())?, World::start(Settings::default())?);
    one.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    nat_by_hand(&one)?;
    let reflectors =
        [Reflector::tcp(one.server(), (at::SERVER, 80))?, Reflector::tcp(other.server(), (at::SERVER, 80))?];
    assert_eq!(tcp_probe(one.web(), (at::SERVER, 80), TIMEOUT)?.ip(), at::BASTION);
    assert_eq!(tcp_probe(other.web(), (at::SERVER, 80), TIMEOUT), Err(ProbeFailure::Unreachable));
    assert_eq!(reflectors.each_ref().map(|reflector| reflector.seen().len()), [1, 0]);
    assert_eq!(other.cloud().routes(other.private_network_id()), []);
    drop(one);
    assert_eq!(ping(other.bastion(), at::WEB, Ping::default())?.replies.len(), 1);
    Ok(())
}

fn four_worlds_start_at_once() -> Outcome {
    let worlds = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(|| World::start(Settings::default()))).collect();
        starting.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
    })?;
    for world in &worlds {
        assert_eq!(ping(world.web(), at::WORKER, Ping::default())?.replies.len(), 1);
    }
    let names: Vec<_> = worlds.iter().flat_map(World::namespaces).map(Namespace::name).collect();
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len());
    Ok(())
}
