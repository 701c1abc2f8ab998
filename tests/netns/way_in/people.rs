//! People and sites in the tunnel: which hosts they reach, and with which source addresses.

use std::net::Ipv4Addr;

use bastiond::internals::outcome::{ComponentName, State};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sandbox::cloud::{Fault, Injection, Matching, Times};
use sandbox::traffic::{self, Direction, HeldConnection, Packet, Reflector, Sniffer};
use sandbox::world::addresses as at;

use super::{
    ADA, BOB, Client, INSIDE, OFFICE_HOST, peer, pings, seen, serving, tunnel, wait_for_source, with_laptop, world,
};
use crate::gateway::{
    NEVER, Result, SOON, Server, component, egress, ensure, ensure_eq, installation, is_shut, open, report, text,
    trial, wait_for,
};
use crate::policy::counted;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("a_laptop_behind_nat_reaches_private_hosts_with_its_own_address", laptop_comes_in),
        trial("a_flow_without_its_tunnel_does_not_leave_unencrypted", tunnel_gone),
        trial("a_peer_reaches_private_networks_and_nothing_else", peers_limits),
        trial("a_full_tunnel_reaches_the_internet_with_the_bastions_address", full_tunnel),
        trial("peers_are_masqueraded_until_the_cloud_has_a_return_route", masqueraded_meanwhile),
        trial("a_site_and_the_private_network_reach_each_other", site_to_site),
        trial("a_peer_uses_a_forward_under_the_bastions_address_if_the_forward_says_so", forwards),
    ]
}

fn laptop_comes_in() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (installation, _daemon, _ada) = with_laptop(&world, "wi-laptop", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the bastion's own address in the tunnel")?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 22))?;
    ensure_eq(traffic::tcp_connects(world.laptop(), (INSIDE, 22), SOON), Ok(()))?;
    let peer = peer(&installation, "ada")?;
    ensure(peer.last_handshake_unix.is_some() && peer.rx_bytes > 0 && peer.tx_bytes > 0, format!("{peer:?}"))?;
    ensure_eq(peer.endpoint.map(|endpoint| endpoint.ip()), Some(at::HOME.into()))?;
    let shown = text(&installation.ctl(&["status"])?.stdout);
    for words in
        ["TUNNEL wi-laptop: UDP 51820, MTU 1420; userspace", "ada", " s ago", "wireguard   ok", "routes      ok"]
    {
        ensure(shown.contains(words), format!("no {words:?} in {shown}"))?;
    }
    // The output of wg, and the generated key.
    let wg = text(&world.bastion().command("wg").args(["show", "wi-laptop", "latest-handshakes"]).output()?.stdout);
    ensure(wg.contains(&peer.public_key.to_string()), wg)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(installation.state_directory().join("wireguard.key"))?.permissions(),
    );
    ensure_eq(mode & 0o777, 0o600)
}

fn tunnel_gone() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (_installation, daemon, _ada) = with_laptop(&world, "wi-gone", "", "10.100.0.0/24,10.0.0.0/16")?;
    let mut held = HeldConnection::open(world.laptop(), web.address(), SOON)?;
    held.exchange(SOON)?;
    // The private host answers while the daemon ends, and the tunnel with it.
    let to_ada = |direction| {
        move |packet: &Packet| packet.direction == direction && packet.ip().is_some_and(|ip| ip.destination == ADA)
    };
    let came = Sniffer::start(world.bastion(), "eth1", to_ada(Direction::In))?;
    let left = Sniffer::start(world.bastion(), "eth0", to_ada(Direction::Out))?;
    let before = counted(&world, "dropped_forward")?;
    drop(daemon);
    world.bastion().ip("link del wi-gone")?;
    let lost = world.bastion().ip(&format!("route get {ADA}"))?;
    ensure(lost.contains("dev eth0"), lost)?;
    // The reflector is dropped and closes its connections.
    drop(web);
    ensure(came.wait_for(1, SOON), "the private host has sent nothing")?;
    wait_for("its packets are dropped", SOON, || Ok(counted(&world, "dropped_forward")? > before))?;
    ensure_eq(left.stop().len(), 0)
}

fn peers_limits() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let bob = Client::start(world.server(), "wi-limits-bob", BOB)?;
    let everything = "10.100.0.0/24,10.0.0.0/16,169.254.0.0/16,203.0.113.0/24";
    let block = bob.block("bob", "");
    let (installation, _daemon, ada) = with_laptop(&world, "wi-limits", &block, everything)?;
    bob.meets(report(&installation)?.tunnel.and_then(|tunnel| tunnel.public_key).ok_or("no key")?, "10.100.0.0/24")?;
    ensure_eq(traffic::tcp_connects(world.laptop(), (at::WEB, 80), SOON), Ok(()))?;
    ensure(pings(world.server(), INSIDE, SOON)?, "Bob's tunnel works")?;
    // Another peer, the bastion's metadata, the internet, another port of the bastion.
    ensure(!pings(world.laptop(), BOB, NEVER)?, "one peer reaches another")?;
    ensure(traffic::tcp_connects(world.laptop(), (at::METADATA, 80), NEVER).is_err(), "the metadata service answers")?;
    ensure(is_shut(&egress(world.laptop(), &server, NEVER)?), "the internet is reached without full_tunnel")?;
    let _open = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, 8080))?;
    ensure(traffic::tcp_connects(world.laptop(), (INSIDE, 8080), NEVER).is_err(), "port 8080 of the bastion")?;
    // A private host cannot open connections to a laptop.
    let _listening = Reflector::tcp(world.laptop(), (ADA, 80))?;
    ensure(
        traffic::tcp_connects(world.web(), (ADA, 80), NEVER).is_err(),
        "a private host opens a connection to a laptop",
    )?;
    // Packets with a source outside of the allowed IPs are dropped.
    world.laptop().ip(&format!("addr add 10.100.0.77/32 dev {}", ada.interface))?;
    let from = std::net::SocketAddr::from((Ipv4Addr::new(10, 100, 0, 77), 40000));
    let dns = Reflector::udp(world.web(), (at::WEB, 53))?;
    ensure(traffic::udp_probe(world.laptop(), dns.address(), SOON).is_ok(), "its own source")?;
    ensure(traffic::udp_probe_from(world.laptop(), from, dns.address(), NEVER).is_err(), "another source")
}

fn full_tunnel() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let (_installation, _daemon, _ada) =
        with_laptop(&world, "wi-full", "full_tunnel = true\n", "10.100.0.0/24,203.0.113.0/24,169.254.0.0/16")?;
    wait_for("the internet is reached", SOON, || Ok(egress(world.laptop(), &server, SOON)? == open()))?;
    ensure(traffic::tcp_connects(world.laptop(), (at::METADATA, 80), NEVER).is_err(), "the metadata service answers")
}

fn masqueraded_meanwhile() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let tunnel: ipnet::Ipv4Net = "10.100.0.0/24".parse()?;
    // At first the route leads to another gateway.
    world.put_route(tunnel, at::WORKER);
    let (installation, daemon, _ada) = with_laptop(&world, "wi-snat", "", "10.100.0.0/24,10.0.0.0/16")?;
    wait_for_source("masqueraded", world.laptop(), &web, at::BASTION_PRIVATE)?;
    let detail = |name: ComponentName| -> Result<String> { Ok(component(&installation, name)?.detail) };
    ensure(detail(ComponentName::Nat)?.contains("10.100.0.0/24 masqueraded on eth1"), detail(ComponentName::Nat)?)?;
    ensure(detail(ComponentName::Hcloud)?.contains("peers are masqueraded"), detail(ComponentName::Hcloud)?)?;
    // When it is deleted, the daemon claims the route, and new flows keep their source.
    world.remove_route(tunnel);
    wait_for_source("routed", world.laptop(), &web, ADA)?;
    ensure(!detail(ComponentName::Nat)?.contains("masqueraded"), detail(ComponentName::Nat)?)?;
    // A silent API changes nothing, but a route to another gateway does.
    world.cloud().inject(Injection {
        matching: Matching::any(),
        fault: Fault::Status { code: 503, json: true },
        times: Times::UntilCleared,
    });
    wait_for("the problem is reported", SOON, || {
        Ok(component(&installation, ComponentName::Hcloud)?.state == State::Failed)
    })?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    world.cloud().clear_faults();
    world.remove_route(tunnel);
    world.put_route(tunnel, at::WORKER);
    wait_for_source("masqueraded again", world.laptop(), &web, at::BASTION_PRIVATE)?;
    world.remove_route(tunnel);
    wait_for_source("routed again", world.laptop(), &web, ADA)?;
    // As configured.
    let config = std::fs::read_to_string(installation.config_path())?;
    installation.write_config(&config.replace("addresses", "snat = true\naddresses"))?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for_source("masqueraded as configured", world.laptop(), &web, at::BASTION_PRIVATE)?;
    wait_for("the return route is deleted", SOON, || {
        Ok(world.cloud().routes(world.private_network_id()).iter().all(|route| route.destination != tunnel))
    })?;
    Ok(())
}

fn site_to_site() -> Result {
    let world = world()?;
    // The office: a host on the internet with a network of its own behind it. The name in the endpoint is one that
    // every resolver takes for 203.0.113.10 without DNS (inet_aton(3)).
    let office = Client::start(world.server(), "wi-site-office", BOB)?;
    office.wg("listen-port 51820")?;
    world.server().ip(&format!("addr add {OFFICE_HOST}/32 dev lo"))?;
    let block = office.block("office", ", \"192.168.77.0/24\"");
    let installation = installation(&world)?;
    installation.write_config(&tunnel(
        "wi-site",
        &format!("{block}endpoint = \"0xcb00710a:51820\"\npersistent_keepalive = 25\n"),
    ))?;
    let bastion = {
        // The key is generated before the configuration.
        let (daemon, bastion) = serving(&installation)?;
        drop(daemon);
        bastion
    };
    office.wg(&format!("peer {bastion} allowed-ips 10.100.0.0/24,10.0.0.0/16"))?;
    world.server().ip("route replace 10.0.0.0/16 dev wi-site-office")?;
    let (_daemon, _) = serving(&installation)?;
    // The bastion initiates the handshake, because the office has no endpoint of it. It repeats that every 5 s, and has
    // done so since the first daemon.
    wait_for("a handshake", 4 * SOON, || Ok(peer(&installation, "office")?.last_handshake_unix.is_some()))?;
    let intranet = Reflector::tcp(world.server(), (OFFICE_HOST, 80))?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    wait_for("the return routes exist", SOON, || Ok(world.cloud().routes(world.private_network_id()).len() == 3))?;
    wait_for("the office sees a private host's own address", SOON, || {
        Ok(seen(world.web(), &intranet) == Ok(at::WEB.into()))
    })?;
    let from = std::net::SocketAddr::from((OFFICE_HOST, 0));
    let dns = Reflector::udp(world.web(), (at::WEB, 53))?;
    let office_seen = traffic::udp_probe_from(world.server(), from, dns.address(), SOON).map(|seen| seen.ip());
    ensure_eq(office_seen, Ok(OFFICE_HOST.into()))?;
    ensure_eq(seen(world.server(), &web), Ok(BOB.into()))
}

fn forwards() -> Result {
    let world = world()?;
    let floating = Ipv4Addr::new(198, 51, 100, 50);
    world.add_public_address(floating)?;
    let _web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let forward = |port: u16, snat: bool| {
        format!("[[nat.forward]]\nport = {port}\nto = \"10.0.0.4\"\nto_port = 80\nsnat = {snat}\n")
    };
    let forwards = format!("{}{}", forward(80, true), forward(81, false));
    let (_installation, _daemon, _ada) =
        with_laptop(&world, "wi-forwards", &forwards, "10.100.0.0/24,198.51.100.50/32")?;
    let source = |port: u16| traffic::tcp_probe(world.laptop(), (floating, port), SOON).map(|seen| seen.ip());
    ensure_eq(source(80), Ok(at::BASTION_PRIVATE.into()))?;
    ensure_eq(source(81), Ok(ADA.into()))
}
