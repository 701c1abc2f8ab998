//! Port forwards: which sources reach which hosts and ports.

use std::net::{IpAddr, Ipv4Addr};

use bastiond::internals::outcome::ComponentName;
use libtest_mimic::Trial;
use sandbox::traffic::Reflector;
use sandbox::world::{Laptop, Settings, World, addresses as at};

use super::Attempt::{Tcp, Udp};
use super::{assign, counted, gateway, reload, silent, tcp, udp};
use crate::gateway::{Result, SOON, Server, component, egress, ensure, ensure_eq, open, trial, wait_for};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_forwarded_port_reaches_its_host_and_no_other_port_does", single_ports),
        trial("a_forwarded_port_range_keeps_its_ports_and_nothing_beside_it_is_open", ranges),
        trial("a_forward_is_open_only_at_its_public_addresses", public_addresses),
        trial("a_forward_for_some_sources_drops_and_counts_all_others", sources),
        trial("private_hosts_reach_a_forward_by_its_public_address", hairpin),
        trial("a_forward_to_a_host_in_no_network_is_reported_and_the_rest_works", elsewhere),
        trial("a_reload_without_a_forward_closes_it_and_leaves_the_others_open", removed),
    ]
}

/// A floating IP of the bastion.
const FLOATING: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 50);
/// The forwarded port of the service on web, which listens on 8443.
const HTTPS: (Ipv4Addr, u16) = (at::BASTION, 443);

const FORWARD_TO_WEB: &str = "[[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\nto_port = 8443\n";

fn single_ports() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let _worker = Reflector::udp(world.worker(), (at::WORKER, 5300))?;
    let _tenant =
        (Reflector::tcp(world.tenant(), (at::TENANT, 7000))?, Reflector::udp(world.tenant(), (at::TENANT, 7000))?);
    let sections = format!(
        "{FORWARD_TO_WEB}
         [[nat.forward]]
         protocol = \"udp\"
         port = 53
         to = \"10.0.1.5\"
         to_port = 5300
         [[nat.forward]]
         protocol = \"both\"
         port = 7000
         to = \"10.2.0.4\""
    );
    let (_installation, _daemon) = gateway(&world, &sections)?;
    // The service sees the client's address, not the bastion's.
    ensure_eq(tcp(world.server(), HTTPS), Ok(at::SERVER.into()))?;
    ensure_eq(tcp(world.laptop(), HTTPS), Ok(at::HOME.into()))?;
    ensure_eq(
        web.seen().iter().map(std::net::SocketAddr::ip).collect::<Vec<_>>(),
        [at::SERVER, at::HOME].map(IpAddr::from).to_vec(),
    )?;
    ensure_eq(udp(world.server(), (at::BASTION, 53)), Ok(at::SERVER.into()))?;
    ensure_eq(tcp(world.server(), (at::BASTION, 7000)), Ok(at::SERVER.into()))?;
    ensure_eq(udp(world.server(), (at::BASTION, 7000)), Ok(at::SERVER.into()))?;
    ensure(counted(&world, "published_flows")? >= 5, "flows to forwards are not counted")?;
    // The other protocol, the host's own port and the hosts' own addresses are closed.
    silent([
        Udp(world.server(), HTTPS),
        Tcp(world.server(), (at::BASTION, 53)),
        Tcp(world.server(), (at::BASTION, 8443)),
        Tcp(world.server(), (at::WEB, 8443)),
        Udp(world.server(), (at::TENANT, 7000)),
    ])
}

fn ranges() -> Result {
    let world = World::start(Settings::default())?;
    let ports = [29_999, 30_000, 30_050, 30_100, 30_101];
    let reflectors = ports.map(|port| Reflector::udp(world.web(), (at::WEB, port)));
    let reflectors = reflectors.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let _tcp = ports.map(|port| Reflector::tcp(world.web(), (at::WEB, port)));
    let sections = "[[nat.forward]]\nprotocol = \"both\"\nport = \"30000-30100\"\nto = \"10.0.0.4\"";
    let (_installation, _daemon) = gateway(&world, sections)?;
    for port in [30_000, 30_050, 30_100] {
        ensure_eq(udp(world.server(), (at::BASTION, port)), Ok(at::SERVER.into()))?;
        ensure_eq(tcp(world.server(), (at::BASTION, port)), Ok(at::SERVER.into()))?;
    }
    silent([29_999, 30_101].map(|port| Udp(world.server(), (at::BASTION, port))))?;
    silent([29_999, 30_101].map(|port| Tcp(world.server(), (at::BASTION, port))))?;
    ensure_eq(reflectors.iter().map(|reflector| reflector.seen().len()).collect::<Vec<_>>(), vec![0, 1, 1, 1, 0])
}

fn public_addresses() -> Result {
    let world = World::start(Settings::default())?;
    let third = Ipv4Addr::new(198, 51, 100, 52);
    for address in [FLOATING, third] {
        assign(&world, address)?;
    }
    let _web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let everywhere = Reflector::tcp(world.worker(), (at::WORKER, 81))?;
    let sections = "
        [[nat.forward]]
        public = [\"198.51.100.2\", \"198.51.100.50\"]
        port = 80
        to = \"10.0.0.4\"
        [[nat.forward]]
        public = [\"198.51.100.52\"]
        port = 80
        to = \"10.0.1.5\"
        [[nat.forward]]
        public = [\"198.51.100.50\"]
        port = 8080
        to = \"10.0.0.4\"
        to_port = 80
        [[nat.forward]]
        port = 81
        to = \"10.0.1.5\"";
    let (_installation, _daemon) = gateway(&world, sections)?;
    for (address, port) in [(at::BASTION, 80), (FLOATING, 80), (third, 80), (FLOATING, 8080)] {
        ensure_eq(tcp(world.server(), (address, port)), Ok(at::SERVER.into()))?;
    }
    // A forward without `public` applies to all public addresses.
    for address in [at::BASTION, FLOATING, third] {
        ensure_eq(tcp(world.server(), (address, 81)), Ok(at::SERVER.into()))?;
    }
    ensure_eq(everywhere.seen().len(), 3)?;
    silent([Tcp(world.server(), (at::BASTION, 8080)), Tcp(world.server(), (third, 8080))])
}

fn sources() -> Result {
    let world = World::start(Settings { laptop: Laptop::BehindNat, ..Settings::default() })?;
    let _single = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let _range = Reflector::udp(world.web(), (at::WEB, 30_050))?;
    let sections = "
        [[nat.forward]]
        port = 443
        to = \"10.0.0.4\"
        to_port = 8443
        from = [\"203.0.113.0/24\", \"198.18.0.1\"]
        [[nat.forward]]
        protocol = \"udp\"
        port = \"30000-30100\"
        to = \"10.0.0.4\"
        from = [\"203.0.113.10\"]";
    let (_installation, _daemon) = gateway(&world, sections)?;
    ensure_eq(tcp(world.server(), HTTPS), Ok(at::SERVER.into()))?;
    ensure_eq(udp(world.server(), (at::BASTION, 30_050)), Ok(at::SERVER.into()))?;
    let before = counted(&world, "dropped_input")?;
    silent([Tcp(world.laptop(), HTTPS), Udp(world.laptop(), (at::BASTION, 30_050))])?;
    // `from` holds for private hosts too.
    silent([Tcp(world.worker(), HTTPS)])?;
    ensure(counted(&world, "dropped_input")? >= before + 3, "the dropped packets are not counted")
}

fn hairpin() -> Result {
    let world = World::start(Settings::default())?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let _udp = Reflector::udp(world.worker(), (at::WORKER, 30_000))?;
    let sections = format!(
        "{FORWARD_TO_WEB}
         [[nat.forward]]
         port = 80
         to = \"10.0.1.5\"
         [[nat.forward]]
         protocol = \"udp\"
         port = \"30000-30010\"
         to = \"10.0.1.5\""
    );
    let (_installation, _daemon) = gateway(&world, &sections)?;
    // A neighbour of the host, the host itself and another tenant get answers, so these pass the bastion.
    for host in [world.web(), world.worker(), world.tenant()] {
        ensure_eq(tcp(host, (at::BASTION, 80)), Ok(at::BASTION_PRIVATE.into()))?;
        ensure_eq(udp(host, (at::BASTION, 30_000)), Ok(at::BASTION_PRIVATE.into()))?;
    }
    ensure_eq(tcp(world.web(), HTTPS), Ok(at::BASTION_PRIVATE.into()))?;
    ensure_eq(worker.seen().len(), 3)?;
    // The forward opens nothing else.
    silent([Tcp(world.tenant(), (at::WORKER, 80)), Tcp(world.tenant(), (at::BASTION, 8443))])
}

fn elsewhere() -> Result {
    let world = World::start(Settings::default())?;
    let server = Server::start(&world)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let sections = format!("{FORWARD_TO_WEB}[[nat.forward]]\nname = \"lost\"\nport = 81\nto = \"10.7.0.4\"");
    let (installation, mut daemon) = gateway(&world, &sections)?;
    let problems = component(&installation, ComponentName::Nat)?.problems;
    let [problem] = problems.as_slice() else { return Err(format!("{problems:?}").into()) };
    let what = "nat.forward \"lost\".to: 10.7.0.4 is in no private network of this server";
    ensure(problem.what.starts_with(what) && problem.advice.contains("10.0.0.0/16"), format!("{problem:?}"))?;
    ensure_eq(tcp(world.server(), HTTPS), Ok(at::SERVER.into()))?;
    ensure_eq(egress(world.web(), &server, SOON)?, open())?;
    silent([Tcp(world.server(), (at::BASTION, 81))])?;
    reload(&installation, &mut daemon, FORWARD_TO_WEB)?;
    ensure_eq(component(&installation, ComponentName::Nat)?.problems, Vec::new())
}

fn removed() -> Result {
    let world = World::start(Settings::default())?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 8443))?;
    let _worker = Reflector::tcp(world.worker(), (at::WORKER, 80))?;
    let (installation, mut daemon) =
        gateway(&world, &format!("{FORWARD_TO_WEB}[[nat.forward]]\nport = 80\nto = \"10.0.1.5\""))?;
    ensure_eq(tcp(world.server(), (at::BASTION, 80)), Ok(at::SERVER.into()))?;
    reload(&installation, &mut daemon, FORWARD_TO_WEB)?;
    silent([Tcp(world.server(), (at::BASTION, 80))])?;
    ensure_eq(tcp(world.server(), HTTPS), Ok(at::SERVER.into()))?;
    // Remove the last forward, and add it again.
    reload(&installation, &mut daemon, "")?;
    silent([Tcp(world.server(), HTTPS)])?;
    reload(&installation, &mut daemon, FORWARD_TO_WEB)?;
    ensure_eq(tcp(world.server(), HTTPS), Ok(at::SERVER.into()))?;
    // A public address that is added later is served too.
    assign(&world, FLOATING)?;
    wait_for("the new address is served", SOON, || {
        Ok(super::contents(&world, "map", "forwards")?.contains("198.51.100.50"))
    })?;
    ensure_eq(tcp(world.server(), (FLOATING, 443)), Ok(at::SERVER.into()))
}
