//! Each outage breaks one part of the world alone, and ends without a trace.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use sandbox::cloud::Fault;
use sandbox::namespace::Namespace;
use sandbox::traffic::{Ping, ProbeFailure, Reflector, download, ping, udp_probe_from};
use sandbox::world::{Outage, Settings, World, addresses as at};

use crate::api::Api;
use crate::private::nat_by_hand;
use crate::{Outcome, SILENCE, TIMEOUT, trials};

/// A second public address of the bastion.
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        an_outage_of_the_uplink_stops_public_packets_only,
        a_lost_way_back_hits_one_address,
        a_dead_host_does_not_hit_its_neighbours,
        a_route_can_differ_in_the_data_plane_from_the_api,
        an_outage_of_a_private_link_does_not_hit_the_other_network,
        a_narrow_network_swallows_long_packets,
        the_metadata_service_can_be_slow_empty_unavailable_and_silent,
        the_api_can_fail_and_recover,
    ]
}

/// What works: from web, worker and tenant to the internet, between web and worker, from the bastion to the internet.
fn working(world: &World) -> Result<[bool; 5], Box<dyn std::error::Error>> {
    let answers = |from: &Namespace, to: Ipv4Addr| -> Result<bool, Box<dyn std::error::Error>> {
        Ok(!ping(from, to, Ping { timeout: SILENCE, ..Ping::default() })?.replies.is_empty())
    };
    Ok([
        answers(world.web(), at::SERVER)?,
        answers(world.worker(), at::SERVER)?,
        answers(world.tenant(), at::SERVER)?,
        answers(world.web(), at::WORKER)?,
        answers(world.bastion(), at::SERVER)?,
    ])
}

/// A world whose private hosts reach the internet.
fn gateway_by_hand() -> Result<World, Box<dyn std::error::Error>> {
    let world = World::start(Settings::default())?;
    nat_by_hand(&world)?;
    world.put_route("0.0.0.0/0".parse()?, at::BASTION_PRIVATE);
    world.cloud().put_route(world.second_network_id(), "0.0.0.0/0".parse()?, at::BASTION_SECOND);
    world.gateway(world.second_network_id()).wait_for_route("0.0.0.0/0".parse()?, Some(at::BASTION_SECOND), TIMEOUT)?;
    assert_eq!(working(&world)?, [true; 5]);
    Ok(world)
}

/// Begins an outage, compares what works, and ends it, twice.
fn breaks(world: &World, outage: &Outage, expected: [bool; 5]) -> Outcome {
    for _ in 0..2 {
        world.begin(outage)?;
        assert_eq!(working(world)?, expected, "{outage:?}");
        world.end(outage)?;
        // Hosts that asked for an Ethernet address in vain ask again after a second.
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline && working(world)? != [true; 5] {}
        assert_eq!(working(world)?, [true; 5], "after {outage:?}");
    }
    Ok(())
}

fn an_outage_of_the_uplink_stops_public_packets_only() -> Outcome {
    let world = gateway_by_hand()?;
    let routes = |world: &World| world.internet().ip("route show");
    let before = routes(&world)?;
    breaks(&world, &Outage::Uplink, [false, false, false, true, false])?;
    breaks(&world, &Outage::PublicCarrier, [false, false, false, true, false])?;
    assert_eq!(routes(&world)?, before);
    Ok(())
}

fn a_lost_way_back_hits_one_address() -> Outcome {
    let world = gateway_by_hand()?;
    world.add_public_address(SECOND_ADDRESS)?;
    let reflector = Reflector::udp(world.server(), (at::SERVER, 7))?;
    let from = |address: Ipv4Addr| {
        udp_probe_from(world.bastion(), (address, 0), reflector.address(), SILENCE).map(|seen| seen.ip())
    };
    for (lost, other) in [(SECOND_ADDRESS, at::BASTION), (at::BASTION, SECOND_ADDRESS)] {
        world.begin(&Outage::WayBack(lost))?;
        assert_eq!((from(lost), from(other)), (Err(ProbeFailure::Timeout), Ok(other.into())));
        world.end(&Outage::WayBack(lost))?;
        assert_eq!((from(lost), from(other)), (Ok(lost.into()), Ok(other.into())));
    }
    Ok(())
}

fn a_dead_host_does_not_hit_its_neighbours() -> Outcome {
    let world = gateway_by_hand()?;
    let other = Ipv4Addr::new(203, 0, 113, 11);
    world.server().ip(&format!("addr add {other}/32 dev eth0"))?;
    let outage = Outage::Host(other);
    world.begin(&outage)?;
    assert_eq!(working(&world)?, [true; 5]);
    assert_eq!(ping(world.web(), other, Ping { timeout: SILENCE, ..Ping::default() })?.replies, []);
    world.end(&outage)?;
    assert_eq!(ping(world.web(), other, Ping::default())?.replies.len(), 1);
    Ok(())
}

fn a_route_can_differ_in_the_data_plane_from_the_api() -> Outcome {
    let world = gateway_by_hand()?;
    let network = world.private_network_id();
    let listed = world.cloud().routes(network);
    for to in [None, Some(at::WORKER)] {
        let outage = Outage::DataPlaneRoute { network, destination: "0.0.0.0/0".parse()?, to };
        breaks(&world, &outage, [false, false, true, true, true])?;
        // It stays when the cloud changes something else.
        world.begin(&outage)?;
        world.put_route("10.8.0.0/24".parse()?, at::WEB);
        assert_eq!(working(&world)?, [false, false, true, true, true]);
        world.remove_route("10.8.0.0/24".parse()?);
        world.end(&outage)?;
        assert_eq!(world.cloud().routes(network), listed);
    }
    Ok(())
}

fn an_outage_of_a_private_link_does_not_hit_the_other_network() -> Outcome {
    let world = gateway_by_hand()?;
    let (private, second) = (world.private_network_id(), world.second_network_id());
    let cases = [(private, [false, false, true, true, true]), (second, [true, true, false, true, true])];
    for (network, expected) in cases {
        let before = world.gateway(network).routes();
        breaks(&world, &Outage::PrivateCarrier(network), expected)?;
        breaks(&world, &Outage::PrivateLink(network), expected)?;
        assert_eq!(world.gateway(network).routes(), before);
    }
    Ok(())
}

fn a_narrow_network_swallows_long_packets() -> Outcome {
    let world = gateway_by_hand()?;
    let server = sandbox::traffic::DownloadServer::start(world.server(), (at::SERVER, 8080))?;
    let outage = Outage::PathMtu(world.private_network_id(), 1300);
    let fetch = || download(world.web(), server.address(), 200_000, Duration::from_secs(1));
    world.begin(&outage)?;
    // Short packets pass.
    assert_eq!(working(&world)?, [true; 5]);
    assert!(fetch().is_err(), "a download passes the narrow network");
    world.end(&outage)?;
    assert!(fetch().is_ok(), "{:?}", fetch());
    Ok(())
}

fn the_metadata_service_can_be_slow_empty_unavailable_and_silent() -> Outcome {
    let world = World::start(Settings::default())?;
    let networks = || -> std::io::Result<(String, String)> {
        world.bastion().run(|| {
            let mut stream = TcpStream::connect((at::METADATA, 80))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let path = "/hetzner/v1/metadata/private-networks";
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", at::METADATA)?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
            Ok((head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned()))
        })
    };
    let good = networks()?;
    assert!(good.0 == "200" && good.1.contains("network_id"), "{good:?}");
    let delay = Duration::from_millis(300);
    world.begin(&Outage::MetadataSlow(delay))?;
    let begin = Instant::now();
    assert_eq!(networks()?, good);
    assert!(begin.elapsed() >= delay);
    world.end(&Outage::MetadataSlow(delay))?;
    world.begin(&Outage::MetadataEmpty)?;
    assert_eq!(networks()?, ("200".to_owned(), "[]\n".to_owned()));
    world.begin(&Outage::MetadataUnavailable)?;
    assert_eq!(networks()?.0, "503");
    world.begin(&Outage::MetadataSilent)?;
    assert!(networks().is_err());
    world.end(&Outage::MetadataSilent)?;
    assert_eq!(networks()?, good);
    Ok(())
}

fn the_api_can_fail_and_recover() -> Outcome {
    let world = World::start(Settings::default())?;
    let api = Api::of(&world);
    let outage = Outage::Api(Fault::Status { code: 503, json: true });
    world.begin(&outage)?;
    api.call(reqwest::Method::GET, "/networks", None, 503);
    world.end(&outage)?;
    api.call(reqwest::Method::GET, "/networks", None, 200);
    Ok(())
}
