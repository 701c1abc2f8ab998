//! The tunnel's packets take no entries of the connection table, and all other packets are tracked as before.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Header, Icmpv4Type, PacketBuilder};
use libtest_mimic::Trial;
use sandbox::daemon::Daemon;
use sandbox::namespace::Namespace;
use sandbox::traffic::{self, Reflector, send_raw};
use sandbox::world::addresses as at;

use super::{ADA, INSIDE, pings, seen, with_laptop, world};
use crate::gateway::{NEVER, Result, SOON, Server, ensure, ensure_eq, trial, wait_for};
use crate::policy::assign;

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("neither_the_tunnels_packets_nor_a_flood_to_its_port_take_entries_of_the_table", no_entries),
        trial("private_hosts_get_answers_whatever_their_source_port_is_beside_a_tunnel", source_ports),
        trial("the_tunnels_port_at_another_address_is_forwarded", forwarded),
        trial("an_error_about_a_packet_of_the_tunnel_tells_the_kernel_the_mtu_of_the_path", path_mtu),
    ]
}

const PORT: u16 = 51820;
/// A further public address of the bastion.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 51);

/// The entries of the bastion's connection table with this text.
pub(crate) fn entries(daemon: &Daemon, text: &str) -> Result<Vec<String>> {
    let table = std::fs::read_to_string(format!("/proc/{}/net/nf_conntrack", daemon.pid()))?;
    Ok(table.lines().filter(|line| line.contains(text)).map(str::to_owned).collect())
}

/// A datagram from each of so many ports.
fn flood(from: &Namespace, to: (IpAddr, u16), ports: u16) -> Result {
    let any: IpAddr =
        if to.0.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    for _ in 0..ports {
        from.bind_udp((any, 0))?.send_to(b"who is there", to)?;
    }
    Ok(())
}

fn no_entries() -> Result {
    let world = world()?;
    let web = Reflector::tcp(world.web(), (at::WEB, 80))?;
    let (_installation, daemon, _ada) = with_laptop(&world, "wi-entries", "", "10.100.0.0/24,10.0.0.0/16")?;
    ensure_eq(seen(world.laptop(), &web), Ok(ADA.into()))?;
    // What the table does see, so that the rest of the test could fail.
    ensure(!entries(&daemon, "dst=10.0.0.4")?.is_empty(), "the flow in the tunnel is not tracked")?;
    let of_tunnel = || entries(&daemon, &format!("port={PORT} "));
    ensure_eq(of_tunnel()?, Vec::new())?;
    for bastion in [IpAddr::from(at::BASTION), world.bastion_v6().into()] {
        flood(world.server(), (bastion, PORT), 300)?;
    }
    flood(world.web(), (at::BASTION_PRIVATE.into(), PORT), 300)?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the tunnel works after the flood")?;
    ensure_eq(of_tunnel()?, Vec::new())?;
    // Ports that are closed cost no entry either.
    flood(world.server(), (at::BASTION.into(), PORT + 1), 10)?;
    ensure_eq(entries(&daemon, &format!("port={} ", PORT + 1))?, Vec::new())
}

fn source_ports() -> Result {
    let world = world()?;
    let server = Server::start(&world)?;
    let more = "[nat]\nrandom_ports = false\n";
    let (_installation, _daemon, _ada) = with_laptop(&world, "wi-ports", more, "10.100.0.0/24")?;
    let seen =
        |port: u16| traffic::udp_probe_from(world.web(), SocketAddr::from((at::WEB, port)), server.udp.address(), SOON);
    ensure_eq(seen(40_000), Ok((at::BASTION, 40_000).into()))?;
    let other = seen(PORT).map_err(|failure| format!("from the tunnel's port: {failure:?}"))?;
    ensure_eq(other.ip(), at::BASTION.into())?;
    ensure(other.port() != PORT, "an answer to this port would be taken for one of the tunnel's packets")?;
    // The kernel's table, and with it the port, is the same for further packets.
    ensure_eq(seen(PORT), Ok(other))
}

fn forwarded() -> Result {
    let world = world()?;
    assign(&world, OTHER)?;
    let inside = Reflector::udp(world.web(), (at::WEB, PORT))?;
    let more =
        format!("[[nat.forward]]\nport = {PORT}\nprotocol = \"udp\"\nto = \"{}\"\npublic = [\"{OTHER}\"]\n", at::WEB);
    let (_installation, daemon, _ada) = with_laptop(&world, "wi-forward", &more, "10.100.0.0/24")?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the tunnel works")?;
    let through = |address: Ipv4Addr, timeout| traffic::udp_probe(world.server(), (address, PORT), timeout);
    ensure(through(OTHER, SOON).is_ok_and(|seen| seen.ip() == at::SERVER), "the forward at the other address works")?;
    ensure_eq(inside.seen().len(), 1)?;
    ensure(through(at::BASTION, NEVER).is_err(), "the tunnel's own address is forwarded")?;
    ensure(!entries(&daemon, &format!("dst={OTHER}"))?.is_empty(), "the forwarded flow is not tracked")
}

fn path_mtu() -> Result {
    let world = world()?;
    let (_installation, daemon, _ada) = with_laptop(&world, "wi-mtu", "", "10.100.0.0/24")?;
    ensure(pings(world.laptop(), INSIDE, SOON)?, "the tunnel works")?;
    let route = || Ok::<_, libtest_mimic::Failed>(world.bastion().ip(&format!("route get {}", at::HOME))?);
    ensure(!route()?.contains("mtu 1300"), "the path has this MTU before")?;
    send_raw(world.server(), 1, at::BASTION, &fragmentation_needed(PORT + 1, 1280)?)?;
    send_raw(world.server(), 1, at::BASTION, &fragmentation_needed(PORT, 1300)?)?;
    wait_for("the kernel knows the path's MTU", SOON, || Ok(route()?.contains("mtu 1300")))?;
    ensure_eq(entries(&daemon, &format!("port={PORT} "))?, Vec::new())
}

/// The ICMP error of a router whose next link is too narrow for a packet from this UDP port of the bastion (RFC 1191
/// section 4).
fn fragmentation_needed(port: u16, next_hop_mtu: u16) -> Result<Vec<u8>> {
    let mut about = Vec::new();
    let packet = PacketBuilder::ipv4(at::BASTION.octets(), at::HOME.octets(), 64).udp(port, 49_000);
    packet.write(&mut about, &[0; 16])?;
    let error = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu });
    let header = Icmpv4Header::with_checksum(error, &about);
    Ok([&header.to_bytes()[..], &about].concat())
}
