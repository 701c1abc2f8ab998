//! What may pass the gateway, and under which address: each capability with real packets, and what it refuses.

mod antispoof;
mod egress;
mod forwards;
mod guard;
mod static_nat;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::{Daemon, Station};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Ping, ProbeFailure};
use sandbox::world::World;

use crate::gateway::{FAST, NEVER, Result, SOON, ensure, ensure_eq, healthy, report, text};

pub(crate) fn trials() -> Vec<Trial> {
    [forwards::trials(), static_nat::trials(), egress::trials(), guard::trials(), antispoof::trials()]
        .into_iter()
        .flatten()
        .collect()
}

/// A station and a daemon with these sections, whose every room stands.
pub(crate) fn gateway<'w>(world: &'w World, sections: &str) -> Result<(Station<'w>, Daemon)> {
    let station = crate::gateway::station(world)?;
    station.write_config(&format!("{FAST}{sections}"))?;
    let daemon = healthy(&station)?;
    Ok((station, daemon))
}

/// Has the daemon take over these sections; when this returns, their rules stand.
pub(crate) fn reload(station: &Station<'_>, daemon: &mut Daemon, sections: &str) -> Result {
    station.write_config(&format!("{FAST}{sections}"))?;
    daemon.signal(Signal::SIGHUP)?;
    ensure(daemon.hears("READY=1", SOON).is_some(), "the reload does not end")?;
    ensure_eq(report(station)?.refused_configuration, Vec::new())
}

/// Gives the bastion another public address, as with a floating IP.
fn assign(world: &World, address: Ipv4Addr) -> Result {
    world.bastion().ip(&format!("addr add {address}/32 dev eth0"))?;
    world.internet().ip(&format!("route add {address}/32 dev bastion scope link"))?;
    Ok(())
}

/// Packets that a named counter of our table has counted.
pub(crate) fn counted(world: &World, counter: &str) -> Result<u64> {
    let listing: serde_json::Value = world.bastion().nft_json(&format!("list counter inet bastiond {counter}"))?;
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    let packets = objects.iter().find_map(|object| object["counter"]["packets"].as_u64());
    packets.ok_or_else(|| format!("there is no counter {counter}").into())
}

/// What a set or map of our table holds, as nft words it.
fn contents(world: &World, kind: &str, name: &str) -> Result<String> {
    let output = world.bastion().command("nft").args(["list", kind, "inet", "bastiond", name]).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    Ok(text(&output.stdout))
}

/// Under which address a TCP server sees a host.
fn tcp(from: &Namespace, target: (Ipv4Addr, u16)) -> std::result::Result<IpAddr, ProbeFailure> {
    traffic::tcp_probe(from, target, SOON).map(|seen| seen.ip())
}

/// The same for UDP.
fn udp(from: &Namespace, target: (Ipv4Addr, u16)) -> std::result::Result<IpAddr, ProbeFailure> {
    traffic::udp_probe(from, target, SOON).map(|seen| seen.ip())
}

/// What a host meets who must not get through by TCP.
fn no_tcp(from: &Namespace, target: (Ipv4Addr, u16)) -> Result {
    let met = traffic::tcp_connects(from, target, NEVER);
    ensure(met == Err(ProbeFailure::Timeout), format!("{} reaches TCP {target:?}: {met:?}", from.name()))
}

/// The same for UDP.
fn no_udp(from: &Namespace, target: (Ipv4Addr, u16)) -> Result {
    let met = traffic::udp_probe(from, target, NEVER);
    ensure(met == Err(ProbeFailure::Timeout), format!("{} reaches UDP {target:?}: {met:?}", from.name()))
}

/// Whether an echo request is answered.
fn pings(from: &Namespace, target: Ipv4Addr, timeout: Duration) -> Result<bool> {
    Ok(!traffic::ping(from, target, Ping { timeout, ..Ping::default() })?.replies.is_empty())
}
