//! A private host reaches the internet through the cloud's route and the bastion's NAT only.

use std::time::Duration;

use libtest_mimic::Trial;
use sandbox::cloud;
use sandbox::namespace;
use sandbox::traffic::{Ping, ProbeFailure, Reflector, Reply, ping, tcp_probe, udp_probe};
use sandbox::world::{Settings, World, addresses as at};

use crate::api::Api;
use crate::{Outcome, SILENCE, TIMEOUT, trials};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_private_host_reaches_the_internet_only_by_the_clouds_route,
        a_route_is_applied_at_the_end_of_its_action_and_not_before,
    ]
}

/// Makes the bastion a minimal NAT gateway.
pub(crate) fn nat_by_hand(world: &World) -> Result<(), namespace::Error> {
    world.bastion().sysctl("net.ipv4.ip_forward", "1")?;
    let public = &world.settings().interfaces.public;
    world.bastion().nft(&format!(
        "table ip by-hand {{
             chain postrouting {{
                 type nat hook postrouting priority srcnat; policy accept;
                 ip saddr 10.0.0.0/8 oifname \"{public}\" masquerade
             }}
         }}"
    ))?;
    Ok(())
}

fn a_private_host_reaches_the_internet_only_by_the_clouds_route() -> Outcome {
    let world = World::start(Settings::default())?;
    let api = Api::of(&world);
    let everywhere = "0.0.0.0/0".parse()?;
    nat_by_hand(&world)?;
    let tcp = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let udp = Reflector::udp(world.server(), (at::SERVER, 8080))?;

    for _ in 0..2 {
        assert_eq!(tcp_probe(world.web(), tcp.address(), TIMEOUT), Err(ProbeFailure::Unreachable));
        let refused = ping(world.web(), at::SERVER, Ping::default())?;
        assert_eq!(refused.icmp_errors, ["From 10.0.0.1 icmp_seq=1 Destination Net Unreachable"]);

        api.add_route(everywhere, at::BASTION_PRIVATE);
        for host in [world.web(), world.worker()] {
            assert_eq!(tcp_probe(host, tcp.address(), TIMEOUT)?.ip(), at::BASTION);
            assert_eq!(udp_probe(host, udp.address(), TIMEOUT)?.ip(), at::BASTION);
            // The server sends TTL 64. The internet, the bastion and the gateway each decrement it.
            assert_eq!(ping(host, at::SERVER, Ping::default())?.replies, [Reply { sequence: 1, ttl: 61 }]);
        }

        api.delete_route(everywhere, at::BASTION_PRIVATE);
    }
    assert_eq!(tcp_probe(world.web(), tcp.address(), SILENCE), Err(ProbeFailure::Unreachable));
    Ok(())
}

fn a_route_is_applied_at_the_end_of_its_action_and_not_before() -> Outcome {
    let action_duration = Duration::from_millis(400);
    let cloud = cloud::Settings { action_duration, ..cloud::Settings::default() };
    let world = World::start(Settings { cloud, ..Settings::default() })?;
    let api = Api::of(&world);
    let gateway = world.gateway(world.private_network_id());
    let before = gateway.routes();
    let action = api.change_route("add_route", "10.8.0.0/24".parse()?, at::WEB);
    // Long before the end of the action, even on a busy machine.
    std::thread::sleep(action_duration / 4);
    assert_eq!(gateway.routes(), before);
    api.wait(action);
    gateway.wait_for_route("10.8.0.0/24".parse()?, Some(at::WEB), TIMEOUT)?;
    Ok(())
}
