//! Neighbours on a private link, and strangers anywhere, who tell the bastion which router to use.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use etherparse::{IpHeaders, PacketBuilder, PacketBuilderStep, ether_type};
use libtest_mimic::Trial;
use sandbox::namespace::Namespace;
use sandbox::traffic::{Direction, FrameSender, HeldConnection, Packet, Reflector, Sniffer};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, text, trial, wait_for};
use crate::policy::{counted, gateway};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_router_advertisement_from_a_private_link_changes_nothing_where_the_kernel_listens", advertisements),
        trial("an_answer_of_dhcpv6_arrives_by_the_public_link_only", dhcp),
        trial("a_redirect_changes_no_route_where_the_kernel_listens", redirects),
        trial("a_redirect_of_ipv6_changes_no_route_where_the_kernel_listens", redirects_v6),
    ]
}

/// The neighbour's own address on the link.
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// An address that is a neighbour of the bastion on its public link, and no router.
const IMPOSTOR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 66);
/// The hop limit that proves that a neighbour sent a message (RFC 4861 section 6.1.2).
const FROM_THE_LINK: u8 = 255;

fn bytes(builder: PacketBuilderStep<IpHeaders>, kind: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    builder.icmpv6_raw(kind, code, rest).write(&mut bytes, payload)?;
    Ok(bytes)
}

/// A router advertisement (RFC 4861 section 4.2) with an MTU and a prefix from which hosts make addresses.
fn advertisement(prefix: Ipv6Addr) -> Result<Vec<u8>> {
    // Hop limit 64, high preference (RFC 4191), and valid for half an hour.
    let head = [64, 0b0000_1000, 0x07, 0x08];
    let mut rest = vec![0; 8];
    rest.extend([5, 1, 0, 0, 0, 0, 0x05, 0x00]);
    rest.extend([3, 4, 64, 0b1100_0000, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    rest.extend(prefix.octets());
    bytes(PacketBuilder::ipv6(NEIGHBOUR.octets(), ALL_NODES.octets(), FROM_THE_LINK), 134, 0, head, &rest)
}

/// Where a frame for the bastion's link begins, and the hardware address there.
fn sender(world: &World, link: &str) -> Result<FrameSender> {
    let links = world.bastion().links()?;
    let target = &links.get(link).ok_or("no such link")?.mac;
    if link == "eth0" {
        return Ok(FrameSender::open(world.internet(), "bastion", target)?);
    }
    let network = world.gateway(world.private_network_id()).namespace();
    Ok(FrameSender::open(network, &neighbour_link(world, network)?, target)?)
}

/// The link of the network's namespace that leads to the bastion.
fn neighbour_link(world: &World, network: &Namespace) -> Result<String> {
    let route = network.ip(&format!("route get {}", at::BASTION_PRIVATE))?;
    let link = route.split_whitespace().skip_while(|word| *word != "dev").nth(1);
    Ok(link.ok_or_else(|| format!("no link leads to {}: {route}", world.bastion().name()))?.to_owned())
}

/// IPv6 of the bastion as an advertisement would change it: routes, addresses, the links' MTU.
fn ipv6(world: &World) -> Result<String> {
    let bastion = world.bastion();
    let of_link = |setting: &str| bastion.read_sysctl(&format!("net.ipv6.conf.eth1.{setting}"));
    Ok([
        ip6(world, "route show default")?,
        ip6(world, "route show proto ra")?,
        ip6(world, "-o addr show scope global dynamic")?,
        of_link("mtu")?,
        of_link("hop_limit")?,
    ]
    .join("\n"))
}

/// What `ip -6` says on the bastion.
fn ip6(world: &World, arguments: &str) -> Result<String> {
    let output = world.bastion().command("ip").arg("-6").args(arguments.split(' ')).output()?;
    ensure(output.status.success(), text(&output.stderr))?;
    Ok(text(&output.stdout))
}

/// What a stranger switches on. Without `forwarding` a host listens to routers at 1 as well.
fn listen(world: &World) -> Result {
    world.bastion().sysctl("net.ipv6.conf.eth1.disable_ipv6", "0")?;
    world.bastion().sysctl("net.ipv6.conf.eth1.accept_ra", "2")?;
    Ok(())
}

fn advertisements() -> Result {
    let prefix: Ipv6Addr = "2001:db8:bad::".parse()?;
    let attack = |world: &World| -> Result<(String, String)> {
        listen(world)?;
        let before = ipv6(world)?;
        let neighbour = sender(world, "eth1")?;
        for _ in 0..3 {
            neighbour.send(ether_type::IPV6, &advertisement(prefix)?)?;
        }
        std::thread::sleep(NEVER);
        Ok((before, ipv6(world)?))
    };
    // Without our rules the attack succeeds: the frames are what they should be.
    let (before, after) = attack(&World::start(Settings::default())?)?;
    for taken_over in ["via fe80::66 dev eth1", "2001:db8:bad:", "1280"] {
        ensure(!before.contains(taken_over) && after.contains(taken_over), format!("no {taken_over} in {after}"))?;
    }
    let world = World::start(Settings::default())?;
    let (_installation, daemon) = gateway(&world, "")?;
    // The daemon would restore the setting: the rules hold by themselves.
    drop(daemon);
    let counted_before = counted(&world, "dropped_input")?;
    let (before, after) = attack(&world)?;
    ensure_eq(after, before)?;
    ensure(counted(&world, "dropped_input")? >= counted_before + 3, "the frames are not counted")?;
    // The public link's router is heard.
    world.bastion().sysctl("net.ipv6.conf.eth0.accept_ra", "2")?;
    sender(&world, "eth0")?.send(ether_type::IPV6, &advertisement(prefix)?)?;
    wait_for("the public link's router is a router", SOON, || Ok(ipv6(&world)?.contains("via fe80::66 dev eth0")))?;
    Ok(())
}

fn dhcp() -> Result {
    let world = World::start(Settings::default())?;
    let (_installation, daemon) = gateway(&world, "")?;
    drop(daemon);
    listen(&world)?;
    let client = world.bastion().bind_udp((Ipv6Addr::UNSPECIFIED, 546))?;
    client.set_read_timeout(Some(NEVER))?;
    let arrives = |client: &UdpSocket| client.recv(&mut [0; 64]).is_ok();
    let mut answer = Vec::new();
    let packet = PacketBuilder::ipv6(NEIGHBOUR.octets(), ALL_NODES.octets(), FROM_THE_LINK).udp(547, 546);
    packet.write(&mut answer, b"your resolver is mine")?;
    let before = counted(&world, "dropped_input")?;
    sender(&world, "eth1")?.send(ether_type::IPV6, &answer)?;
    ensure_eq(arrives(&client), false)?;
    ensure_eq(counted(&world, "dropped_input")?, before + 1)?;
    sender(&world, "eth0")?.send(ether_type::IPV6, &answer)?;
    client.set_read_timeout(Some(SOON))?;
    ensure_eq(arrives(&client), true)
}

/// A redirect (RFC 792) of the public gateway about a flow of ours, to the impostor.
fn redirect(about: &Packet) -> Result<Vec<u8>> {
    let quoted = about.bytes.get(..28).ok_or("a short packet")?;
    let source = about.ip().ok_or("no IP packet")?.source;
    let std::net::IpAddr::V4(to) = source else { return Err("not IPv4".into()) };
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ipv4(at::PUBLIC_GATEWAY.octets(), to.octets(), 64);
    builder.icmpv4_raw(5, 1, IMPOSTOR.octets()).write(&mut bytes, quoted)?;
    Ok(bytes)
}

fn redirects() -> Result {
    let attack = |world: &World, server: &Reflector| -> Result<String> {
        let bastion = world.bastion();
        for switch in ["all", "eth0"] {
            bastion.sysctl(&format!("net.ipv4.conf.{switch}.accept_redirects"), "1")?;
            bastion.sysctl(&format!("net.ipv4.conf.{switch}.secure_redirects"), "0")?;
        }
        bastion.ip(&format!("neigh replace {IMPOSTOR} lladdr 02:00:00:00:00:66 nud permanent dev eth0"))?;
        let opened = Sniffer::start(bastion, "eth0", |packet| {
            packet.direction == Direction::Out
                && packet.tcp().is_some()
                && packet.ip().is_some_and(|ip| ip.destination == at::SERVER)
        })?;
        let mut held = HeldConnection::open(bastion, server.address(), SOON)?;
        held.exchange(SOON)?;
        let about = opened.stop().pop().ok_or("the bastion sent nothing")?;
        let neighbour = sender(world, "eth0")?;
        for _ in 0..3 {
            neighbour.send(ether_type::IPV4, &redirect(&about)?)?;
        }
        std::thread::sleep(NEVER);
        Ok(bastion.ip(&format!("route get {}", at::SERVER))?)
    };
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let taken_over = attack(&world, &server)?;
    ensure(taken_over.contains(&IMPOSTOR.to_string()), format!("the attack is none: {taken_over}"))?;
    drop(server);
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let (_installation, daemon) = gateway(&world, "")?;
    drop(daemon);
    let before = counted(&world, "dropped_invalid")?;
    let route = attack(&world, &server)?;
    ensure(route.contains("via 172.31.1.1 dev eth0"), route)?;
    ensure_eq(counted(&world, "dropped_invalid")?, before + 3)?;
    // Nor does a redirect about a private host's translated flow reach that host: the kernel drops it.
    let left = Sniffer::start(world.bastion(), "eth0", |packet| {
        packet.direction == Direction::Out && packet.udp().is_some_and(|(_, to)| to == 5353)
    })?;
    let reflector = Reflector::udp(world.server(), (at::SERVER, 5353))?;
    sandbox::traffic::udp_probe(world.web(), reflector.address(), SOON).map_err(|error| error.to_string())?;
    let about = left.stop().pop().ok_or("web's packet did not leave")?;
    let arrived = Sniffer::start(world.web(), "eth0", |packet| packet.ip().is_some_and(|ip| ip.protocol == 1))?;
    sender(&world, "eth0")?.send(ether_type::IPV4, &redirect(&about)?)?;
    std::thread::sleep(NEVER);
    ensure_eq(arrived.stop().len(), 0)
}

/// A redirect of `ICMPv6` (RFC 4861 section 4.5), which names the router's own address as its sender.
fn redirects_v6() -> Result {
    let impostor: Ipv6Addr = "fe80::66".parse()?;
    let attack = |world: &World| -> Result<String> {
        let bastion = world.bastion();
        bastion.sysctl("net.ipv6.conf.eth0.accept_redirects", "1")?;
        bastion.sysctl("net.ipv6.conf.all.accept_redirects", "1")?;
        let opened = Sniffer::start(bastion, "eth0", |packet| {
            packet.direction == Direction::Out && packet.udp().is_some_and(|(_, to)| to == 5353)
        })?;
        let reflector = Reflector::udp(world.server(), (at::SERVER_V6, 5353))?;
        sandbox::traffic::udp_probe(bastion, reflector.address(), SOON).map_err(|error| error.to_string())?;
        let about = opened.stop().pop().ok_or("the bastion sent nothing")?;
        let neighbour = sender(world, "eth0")?;
        let mut rest = [impostor.octets(), at::SERVER_V6.octets()].concat();
        rest.extend([2, 1]);
        rest.extend(neighbour.source());
        // With the packet that it is about, for which the kernel looks for a socket, and without.
        let quoted = about.bytes.get(..48).ok_or("a short packet")?;
        let mut quoting = rest.clone();
        // In units of eight bytes, with the option's own eight.
        quoting.extend([4, u8::try_from(quoted.len() / 8 + 1)?, 0, 0, 0, 0, 0, 0]);
        quoting.extend(quoted);
        for rest in [quoting, rest] {
            let (from, to) = (at::PUBLIC_GATEWAY_V6.octets(), world.bastion_v6().octets());
            let builder = PacketBuilder::ipv6(from, to, FROM_THE_LINK);
            neighbour.send(ether_type::IPV6, &bytes(builder, 137, 0, [0; 4], &rest)?)?;
        }
        std::thread::sleep(Duration::from_millis(200));
        ip6(world, &format!("route get {}", at::SERVER_V6))
    };
    let taken_over = attack(&World::start(Settings::default())?)?;
    ensure(taken_over.contains("via fe80::66"), format!("the attack is none: {taken_over}"))?;
    let world = World::start(Settings::default())?;
    let (_installation, daemon) = gateway(&world, "")?;
    drop(daemon);
    let before = counted(&world, "dropped_invalid")?;
    let route = attack(&world)?;
    ensure(route.contains("via fe80::1 dev eth0"), route)?;
    ensure_eq(counted(&world, "dropped_invalid")?, before + 2)
}
