//! Public addresses that belong to one private host each.

use std::net::{Ipv4Addr, SocketAddr};

use libtest_mimic::Trial;
use sandbox::traffic::{self, Reflector, Sniffer};
use sandbox::world::{Laptop, Settings, World, addresses as at};

use super::Attempt::{Tcp, Udp};
use super::{assign, counted, gateway, pings, reload, silent, tcp, udp};
use crate::gateway::{NEVER, Result, SOON, Server, egress, ensure, ensure_eq, open, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_host_with_a_static_address_uses_it_for_outgoing_flows_and_keeps_its_ports", outgoing),
        trial("only_open_ports_of_a_static_address_are_reachable", incoming),
        trial("a_static_address_answers_pings_only_where_icmp_is_open", icmp),
        trial("private_hosts_reach_a_static_address_like_internet_hosts", hairpin),
    ]
}

/// The public address of the host worker.
const STATIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 51);
const HOST: &str = "[[nat.static]]\npublic = \"198.51.100.51\"\nprivate = \"10.0.1.5\"\n";

fn world() -> Result<World> {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    assign(&world, STATIC)?;
    Ok(world)
}

fn outgoing() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let (installation, mut daemon) = gateway(&world, HOST)?;
    for port in [40_001, 40_002] {
        let from = SocketAddr::from((at::WORKER, port));
        ensure_eq(
            traffic::udp_probe_from(world.worker(), from, server.udp.address(), SOON),
            Ok((STATIC, port).into()),
        )?;
    }
    let seen = egress(world.worker(), &server, SOON)?;
    ensure_eq((seen.tcp, seen.udp, seen.ping), (Ok(STATIC.into()), Ok(STATIC.into()), true))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    reload(&installation, &mut daemon, "")?;
    ensure_eq(egress(world.worker(), &server, SOON)?, open())
}

fn incoming() -> Result {
    let world = world()?;
    let ports = [80, 81, 7999, 8000, 8050, 8100, 8101];
    let tcp_reflectors = ports.map(|port| Reflector::tcp(world.worker(), (at::WORKER, port)));
    let _tcp = tcp_reflectors.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let _udp = [53, 80].map(|port| Reflector::udp(world.worker(), (at::WORKER, port)));
    // The bastion's own SSH, which must not be reachable at the host's address.
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    let open = "open = [
        { protocol = \"tcp\", ports = [80, \"8000-8100\"] },
        { protocol = \"udp\", ports = [53], from = [\"203.0.113.0/24\"] },
    ]";
    let (installation, mut daemon) = gateway(&world, &format!("{HOST}{open}"))?;
    for port in [80, 8000, 8050, 8100] {
        ensure_eq(tcp(world.server(), (STATIC, port)), Ok(at::SERVER.into()))?;
    }
    ensure_eq(tcp(world.laptop(), (STATIC, 80)), Ok(at::HOME.into()))?;
    ensure_eq(udp(world.server(), (STATIC, 53)), Ok(at::SERVER.into()))?;
    let before = counted(&world, "dropped_input")?;
    silent([81, 7999, 8101].map(|port| Tcp(world.server(), (STATIC, port))))?;
    silent([Udp(world.laptop(), (STATIC, 53)), Udp(world.server(), (STATIC, 80))])?;
    ensure(counted(&world, "dropped_input")? >= before + 5, "dropped packets are not counted")?;
    silent([Tcp(world.server(), (STATIC, 22))]).map_err(|_| "the bastion's SSH answers at the host's address")?;
    // The bastion's own address has the bastion's services, and not the host's.
    ensure_eq(tcp(world.server(), (at::BASTION, 22)), Ok(at::SERVER.into()))?;
    silent([Tcp(world.server(), (at::BASTION, 80))])?;
    reload(&installation, &mut daemon, HOST)?;
    silent([Tcp(world.server(), (STATIC, 80))])
}

fn icmp() -> Result {
    let world = world()?;
    let (installation, mut daemon) =
        gateway(&world, &format!("{HOST}open = [{{ protocol = \"tcp\", ports = [80] }}]"))?;
    ensure(!pings(world.server(), STATIC, NEVER)?, "a ping is answered, although only TCP is open")?;
    ensure(pings(world.server(), at::BASTION, SOON)?, "the bastion itself does not answer a ping")?;
    reload(&installation, &mut daemon, &format!("{HOST}open = [{{ protocol = \"icmp\" }}]"))?;
    let arrived = Sniffer::start(world.worker(), "eth0", |packet| {
        packet.ip().is_some_and(|ip| ip.protocol == 1 && ip.source == at::SERVER)
    })?;
    ensure(pings(world.server(), STATIC, SOON)?, "the ping is not answered, although ICMP is open")?;
    ensure_eq(arrived.stop().len(), 1)
}

fn hairpin() -> Result {
    let world = world()?;
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let (_installation, _daemon) = gateway(&world, &format!("{HOST}open = [{{ protocol = \"tcp\", ports = [80] }}]"))?;
    for host in [world.web(), world.worker(), world.tenant()] {
        ensure_eq(tcp(host, (STATIC, 80)), Ok(at::BASTION_PRIVATE.into()))?;
    }
    silent([Tcp(world.tenant(), (STATIC, 81))])
}
