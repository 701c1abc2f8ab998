//! Protocols without ports: two private hosts that speak one with the same internet host.

use std::net::Ipv4Addr;
use std::time::Duration;

use bastiond::internals::outcome::ComponentName;
use bastiond::internals::report::Health;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::Installation;
use sandbox::namespace::Namespace;
use sandbox::traffic::{Packet, Sniffer, send_raw};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{
    FAST, Result, SOON, component, ensure, ensure_eq, healthy, installation, report, trial, wait_for,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("a_host_whose_portless_packets_collide_is_named_and_works_with_an_address_of_its_own", collide)]
}

/// GRE of version 0 with IPv4 inside, and the first bytes of an ESP packet.
const KINDS: [(u8, &[u8]); 2] = [(47, &[0, 0, 8, 0, 0x45, 0, 0, 0]), (50, &[0, 0, 1, 35, 0, 0, 0, 1, 9, 9, 9, 9])];
/// The public address that the host worker gets.
const STATIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 51);

/// What the status says about collisions.
fn named(installation: &Installation<'_>) -> Result<Vec<String>> {
    let problems = component(installation, ComponentName::Conntrack)?.problems;
    let ours = problems.into_iter().filter(|problem| problem.code == "portless-collision");
    Ok(ours.map(|problem| problem.what).collect())
}

fn send(host: &Namespace) -> Result {
    for (protocol, payload) in KINDS {
        send_raw(host, protocol, at::SERVER, payload)?;
    }
    Ok(())
}

/// The protocols and sources of these packets, each once.
fn seen(packets: &[Packet]) -> Vec<(u8, Ipv4Addr)> {
    let mut seen: Vec<_> = packets.iter().filter_map(Packet::ip).filter_map(v4_source).collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

fn v4_source(ip: sandbox::traffic::Ip<'_>) -> Option<(u8, Ipv4Addr)> {
    match ip.source {
        std::net::IpAddr::V4(source) => Some((ip.protocol, source)),
        std::net::IpAddr::V6(_) => None,
    }
}

fn sniff(host: &Namespace) -> Result<Sniffer> {
    let is_ours = |packet: &Packet| packet.ip().is_some_and(|ip| [47, 50].contains(&ip.protocol));
    Ok(Sniffer::start(host, "eth0", is_ours)?)
}

fn collide() -> Result {
    let world = World::start(Settings::default())?;
    world.add_public_address(STATIC)?;
    let installation = installation(&world)?;
    let mut daemon = healthy(&installation)?;
    send(world.web())?;
    let arrived = sniff(world.server())?;
    for _ in 0..4 {
        send(world.worker())?;
    }
    let collision = |name: &str| {
        format!(
            "10.0.1.5 and 10.0.0.4 both speak {name} with 203.0.113.10 as 198.51.100.2: packets of 10.0.1.5 are \
             dropped, since {name} has no ports that tell the answers apart"
        )
    };
    // With the next regular pass.
    wait_for("the host is named", Duration::from_secs(45), || {
        // The flow of the first one must not end meanwhile.
        send(world.web())?;
        send(world.worker())?;
        Ok(named(&installation)? == [collision("gre"), collision("esp")])
    })?;
    ensure_eq(seen(&arrived.stop()), vec![(47, at::BASTION), (50, at::BASTION)])?;
    ensure_eq(report(&installation)?.health, Health::Waiting)?;

    installation
        .write_config(&format!("{FAST}[[nat.static]]\npublic = \"198.51.100.51\"\nprivate = \"10.0.1.5\"\n"))?;
    daemon.signal(Signal::SIGHUP)?;
    ensure(daemon.wait_for_notification("READY=1", SOON).is_some(), "the reload did not end")?;
    let (arrived, answered) = (sniff(world.server())?, sniff(world.worker())?);
    for host in [world.web(), world.worker()] {
        send(host)?;
    }
    let both = [at::BASTION, STATIC].map(|source| [(47, source), (50, source)]);
    ensure(arrived.wait_for(4, SOON), "not all packets arrive")?;
    let mut expected = both.concat();
    expected.sort_unstable();
    ensure_eq(seen(&arrived.stop()), expected)?;
    for (protocol, payload) in KINDS {
        send_raw(world.server(), protocol, STATIC, payload)?;
    }
    ensure(answered.wait_for(4, SOON), "the answers do not arrive")?;
    ensure(seen(&answered.stop()).contains(&(47, at::SERVER)), "no answer is the server's")?;
    installation.ctl(&["reconcile"])?;
    wait_for("nobody is named any more", SOON, || Ok(named(&installation)?.is_empty()))?;
    Ok(())
}
