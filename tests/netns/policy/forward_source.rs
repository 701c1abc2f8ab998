//! Forwards whose hosts see the bastion's own address: hosts that cannot answer by the bastion otherwise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use libtest_mimic::Trial;
use sandbox::traffic::{self, HeldConnection, RawReflector, Reflector, raw_probe};
use sandbox::world::{Laptop, Settings, World, addresses as at};

use super::Attempt::{Tcp, Udp};
use super::{gateway, reload, silent, tcp, udp};
use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_host_without_a_way_back_answers_a_forward_with_snat_and_no_other", without_a_way_back),
        trial("switching_snat_keeps_answered_flows_and_ends_those_that_wait", switched),
    ]
}

/// A floating IP of the bastion.
const FLOATING: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
const GRE: u8 = 47;
const PACKET: &[u8] = &[0, 0, 0x88, 0x0b, 1, 2, 3, 4];

const FORWARDS: &str = r#"
[[nat.forward]]
port = 443
public = ["198.51.100.2"]
to = "10.0.0.4"
to_port = 8443
snat = true
[[nat.forward]]
port = 444
to = "10.0.0.4"
to_port = 8443
[[nat.forward]]
protocol = "both"
port = "30000-30100"
to = "10.0.0.4"
from = ["203.0.113.0/24", "10.0.0.0/8"]
snat = true
[[nat.forward]]
protocol = "gre"
to = "10.0.0.4"
snat = true
[[nat.forward]]
port = 443
public = ["198.51.100.50"]
to = "10.0.1.5"
to_port = 8443
[[nat.forward]]
port = 80
to = "10.2.0.4"
snat = true
"#;

/// The host web has no default route; it reaches its network, and so the bastion's address there.
fn world() -> Result<World> {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    world.web().ip("route del default")?;
    Ok(world)
}

fn without_a_way_back() -> Result {
    let world = world()?;
    world.add_public_address(FLOATING)?;
    let web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let _range = (Reflector::tcp(world.web(), (at::WEB, 30_050))?, Reflector::udp(world.web(), (at::WEB, 30_050))?);
    let gre = RawReflector::echo(world.web(), GRE)?;
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 8443))?;
    let _tenant = Reflector::tcp(world.tenant(), (at::TENANT, 80))?;
    let (_installation, _daemon) = gateway(&world, FORWARDS)?;
    let own: IpAddr = at::BASTION_PRIVATE.into();
    for host in [world.server(), world.laptop(), world.worker(), world.tenant()] {
        ensure_eq(tcp(host, (at::BASTION, 443)), Ok(own))?;
    }
    ensure_eq(web.seen().len(), 4)?;
    for host in [world.server(), world.tenant()] {
        ensure_eq(tcp(host, (at::BASTION, 30_050)), Ok(own))?;
        ensure_eq(udp(host, (at::BASTION, 30_050)), Ok(own))?;
    }
    ensure_eq(raw_probe(world.server(), GRE, at::BASTION, PACKET, SOON), Ok(()))?;
    ensure_eq(gre.seen(), vec![at::BASTION_PRIVATE])?;
    // Each link has an address of its own.
    ensure_eq(tcp(world.server(), (at::BASTION, 80)), Ok(at::BASTION_SECOND.into()))?;
    // Other forwards keep the client's address: where the host has a way back it sees it, and else it cannot answer.
    ensure_eq(tcp(world.server(), (FLOATING, 443)), Ok(at::SERVER.into()))?;
    silent([Tcp(world.server(), (at::BASTION, 444)), Udp(world.laptop(), (at::BASTION, 30_050))])
}

fn switched() -> Result {
    let world = world()?;
    let _web = Reflector::udp(world.web(), (at::WEB, 5060))?;
    let worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let forwards = |snat: bool| {
        format!(
            "[[nat.forward]]\nprotocol = \"udp\"\nport = 5060\nto = \"10.0.0.4\"\nsnat = {snat}\n\
             [[nat.forward]]\nport = 80\nto = \"10.0.1.5\"\nsnat = {snat}\n"
        )
    };
    let (installation, mut daemon) = gateway(&world, &forwards(false))?;
    // A telephone that always uses the same port, and never pauses for as long as the kernel keeps its flow.
    let telephone = |timeout| {
        traffic::udp_probe_from(world.server(), (at::SERVER, 5060), (at::BASTION, 5060), timeout).map(|seen| seen.ip())
    };
    ensure_eq(telephone(NEVER), Err(traffic::ProbeFailure::Timeout))?;
    let mut held = HeldConnection::open(world.server(), SocketAddr::from((at::BASTION, 80)), SOON)?;
    ensure_eq(held.seen().ip(), at::SERVER.into())?;
    reload(&installation, &mut daemon, &forwards(true))?;
    ensure_eq(telephone(SOON), Ok(at::BASTION_PRIVATE.into()))?;
    held.exchange(SOON)?;
    ensure_eq(tcp(world.server(), (at::BASTION, 80)), Ok(at::BASTION_PRIVATE.into()))?;
    // Back: the answered flow keeps its way, a new one has the client's address.
    reload(&installation, &mut daemon, &forwards(false))?;
    ensure_eq(telephone(SOON), Ok(at::BASTION_PRIVATE.into()))?;
    held.exchange(SOON)?;
    ensure_eq(tcp(world.server(), (at::BASTION, 80)), Ok(at::SERVER.into()))?;
    ensure(worker.seen().len() == 3, format!("{:?}", worker.seen()))
}
