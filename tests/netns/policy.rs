//! What passes the gateway, and with which addresses: real packets for each feature, and packets that it must drop.

mod antispoof;
mod boot;
mod bypass;
mod dead_flows;
mod differential;
mod egress;
mod forward_source;
mod forwards;
mod guard;
mod input_limits;
mod protocols;
mod random;
mod reloads;
mod static_nat;
mod tenants;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::daemon::{Daemon, Installation};
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Ping, ProbeFailure};
use sandbox::world::World;

use crate::gateway::{FAST, NEVER, Result, SOON, ensure, ensure_eq, healthy, report, text};

pub(crate) fn trials() -> Vec<Trial> {
    [
        forwards::trials(),
        forward_source::trials(),
        static_nat::trials(),
        egress::trials(),
        guard::trials(),
        tenants::trials(),
        input_limits::trials(),
        protocols::trials(),
        antispoof::trials(),
        dead_flows::trials(),
        boot::trials(),
        bypass::trials(),
        reloads::trials(),
        differential::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// An installation and a running daemon with these sections; every component is ok.
pub(crate) fn gateway<'w>(world: &'w World, sections: &str) -> Result<(Installation<'w>, Daemon)> {
    let installation = crate::gateway::installation(world)?;
    installation.write_config(&format!("{FAST}{sections}"))?;
    let daemon = healthy(&installation)?;
    Ok((installation, daemon))
}

/// Reloads the daemon with these sections. Their rules are loaded when this returns.
pub(crate) fn reload(installation: &Installation<'_>, daemon: &mut Daemon, sections: &str) -> Result {
    installation.write_config(&format!("{FAST}{sections}"))?;
    daemon.signal(Signal::SIGHUP)?;
    ensure(daemon.wait_for_notification("READY=1", SOON).is_some(), "the reload did not end")?;
    ensure_eq(report(installation)?.refused_configuration, Vec::new())
}

/// Gives the bastion another public address, as with a floating IP.
pub(crate) fn assign(world: &World, address: Ipv4Addr) -> Result {
    world.bastion().ip(&format!("addr add {address}/32 dev eth0"))?;
    world.internet().ip(&format!("route add {address}/32 dev bastion scope link"))?;
    Ok(())
}

/// The packets that a named counter of our table has counted.
pub(crate) fn counted(world: &World, counter: &str) -> Result<u64> {
    let listing: serde_json::Value = world.bastion().nft_json(&format!("list counter inet bastiond {counter}"))?;
    let objects = listing["nftables"].as_array().cloned().unwrap_or_default();
    let packets = objects.iter().find_map(|object| object["counter"]["packets"].as_u64());
    packets.ok_or_else(|| format!("there is no counter {counter}").into())
}

/// The listing of a set or map of our table.
pub(crate) fn contents(world: &World, kind: &str, name: &str) -> Result<String> {
    let output = world.bastion().command("nft").args(["list", kind, "inet", "bastiond", name]).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    Ok(text(&output.stdout))
}

/// The address that a TCP server sees of a host.
fn tcp(from: &Namespace, target: (Ipv4Addr, u16)) -> std::result::Result<IpAddr, ProbeFailure> {
    traffic::tcp_probe(from, target, SOON).map(|seen| seen.ip().to_canonical())
}

/// The same for UDP.
fn udp(from: &Namespace, target: (Ipv4Addr, u16)) -> std::result::Result<IpAddr, ProbeFailure> {
    traffic::udp_probe(from, target, SOON).map(|seen| seen.ip())
}

/// A connection attempt or datagram that must get no answer.
#[derive(Clone, Copy)]
enum Attempt<'w> {
    Tcp(&'w Namespace, (Ipv4Addr, u16)),
    Udp(&'w Namespace, (Ipv4Addr, u16)),
}

impl Attempt<'_> {
    fn gets_no_answer(&self) -> Result {
        let (from, met) = match *self {
            Self::Tcp(from, target) => (from, traffic::tcp_connects(from, target, NEVER)),
            Self::Udp(from, target) => (from, traffic::udp_probe(from, target, NEVER).map(drop)),
        };
        let (Self::Tcp(_, target) | Self::Udp(_, target)) = self;
        let by = if matches!(self, Self::Tcp(..)) { "TCP" } else { "UDP" };
        let message = || format!("{} got {met:?} from {by} {target:?}", from.name());
        if met == Err(ProbeFailure::Timeout) { Ok(()) } else { Err(message().into()) }
    }
}

/// None of them gets an answer. They run at once, because each waits for its timeout.
fn silent<const N: usize>(attempts: [Attempt<'_>; N]) -> Result {
    std::thread::scope(|scope| {
        let waiting = attempts.map(|attempt| scope.spawn(move || attempt.gets_no_answer()));
        waiting.into_iter().try_for_each(|one| one.join().expect("a probe does not panic"))
    })
}

/// Whether an echo request is answered.
fn pings(from: &Namespace, target: Ipv4Addr, timeout: Duration) -> Result<bool> {
    Ok(!traffic::ping(from, target, Ping { timeout, ..Ping::default() })?.replies.is_empty())
}
