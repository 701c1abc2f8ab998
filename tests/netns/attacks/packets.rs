//! Packets that no honest host sends: with a route of the sender's, in pieces, blind.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use etherparse::{IpFragOffset, Ipv4Header, Ipv4Options, PacketBuilder, TcpHeaderSlice, ether_type, ip_number};
use libtest_mimic::Trial;
use sandbox::traffic::{Direction, FrameSender, HeldConnection, Packet, Reflector, Sniffer};
use sandbox::world::{Settings, World, addresses as at};

use crate::gateway::{NEVER, Result, SOON, ensure, ensure_eq, trial};
use crate::policy::{counted, gateway};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a_route_that_the_sender_chose_leads_to_no_private_host", source_route),
        trial("fragments_hide_no_port", fragments),
        trial("blind_resets_and_requests_end_no_flow", blind),
    ]
}

/// From the internet's router to the bastion's public link.
fn from_internet(world: &World) -> Result<FrameSender> {
    let links = world.bastion().links()?;
    let target = &links.get("eth0").ok_or("no eth0")?.mac;
    Ok(FrameSender::open(world.internet(), "bastion", target)?)
}

/// A TCP segment without its IP header.
fn segment(from: SocketAddrV4, to: SocketAddrV4, sequence: u32, flags: &str) -> Result<Vec<u8>> {
    let mut builder =
        PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), 60).tcp(from.port(), to.port(), sequence, 1024);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'R' => builder.rst(),
            _ => return Err(format!("no flag {flag}").into()),
        };
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, &[])?;
    Ok(packet.split_off(Ipv4Header::MIN_LEN))
}

/// An IPv4 packet. `offset` is in units of eight bytes.
fn packet(header: &Ipv4Header, payload: &[u8]) -> Result<Vec<u8>> {
    let mut header = header.clone();
    header.set_payload_len(payload.len())?;
    header.header_checksum = header.calc_header_checksum();
    Ok([&header.to_bytes()[..], payload].concat())
}

fn header(from: Ipv4Addr, to: Ipv4Addr, protocol: etherparse::IpNumber) -> Result<Ipv4Header> {
    let mut header = Ipv4Header::new(0, 60, protocol, from.octets(), to.octets())?;
    header.dont_fragment = false;
    Ok(header)
}

/// Loose source routing (RFC 791 section 3.1): to the bastion, and from there to a private host.
fn source_route() -> Result {
    let attack = |world: &World| -> Result<usize> {
        let bastion = world.bastion();
        for switch in ["all", "eth0", "eth1"] {
            bastion.sysctl(&format!("net.ipv4.conf.{switch}.accept_source_route"), "1")?;
            bastion.sysctl(&format!("net.ipv4.conf.{switch}.rp_filter"), "0")?;
        }
        bastion.sysctl("net.ipv4.ip_forward", "1")?;
        let mut header = header(at::SERVER, at::BASTION, ip_number::UDP)?;
        let [a, b, c, d] = at::WEB.octets();
        header.options = Ipv4Options::try_from(&[131, 7, 4, a, b, c, d, 0][..])?;
        let mut datagram = Vec::new();
        let builder = PacketBuilder::ipv4(at::SERVER.octets(), at::WEB.octets(), 60).udp(4000, 5353);
        builder.write(&mut datagram, b"by my own way")?;
        let datagram = datagram.split_off(Ipv4Header::MIN_LEN);
        let left = Sniffer::start(bastion, "eth1", |packet| {
            packet.direction == Direction::Out && packet.ip().is_some_and(|ip| ip.source == at::SERVER)
        })?;
        let sender = from_internet(world)?;
        for _ in 0..3 {
            sender.send(ether_type::IPV4, &packet(&header, &datagram)?)?;
        }
        std::thread::sleep(NEVER);
        Ok(left.stop().len())
    };
    ensure(attack(&World::start(Settings::default())?)? > 0, "without rules the attack is none")?;
    let world = World::start(Settings::default())?;
    let (_installation, daemon) = gateway(&world, "")?;
    // A stranger allowed source routing, and no daemon is there to forbid it.
    drop(daemon);
    ensure_eq(attack(&world)?, 0)
}

/// The first fragment has eight bytes of the TCP header, or a later one writes another port over it (RFC 1858).
fn fragments() -> Result {
    const OPEN: u16 = 22;
    const CLOSED: u16 = 8080;
    let world = World::start(Settings::default())?;
    let _ssh = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, OPEN))?;
    let _closed = Reflector::tcp(world.bastion(), (Ipv4Addr::UNSPECIFIED, CLOSED))?;
    let (_installation, _daemon) = gateway(&world, "")?;
    let sender = from_internet(&world)?;
    let mut identification = 7000;
    // The answers of the bastion to a request in these pieces: offset in units of eight bytes, and content.
    let mut answers_to = |pieces: &[(u16, &[u8], bool)]| -> Result<usize> {
        identification += 1;
        let answers = Sniffer::start(world.bastion(), "eth0", |packet| {
            packet.direction == Direction::Out && packet.tcp().is_some_and(|tcp| tcp.destination == 4001)
        })?;
        for (offset, content, is_last) in pieces {
            let mut header = header(at::SERVER, at::BASTION, ip_number::TCP)?;
            header.identification = identification;
            header.fragment_offset = IpFragOffset::try_new(*offset)?;
            header.more_fragments = !is_last;
            sender.send(ether_type::IPV4, &packet(&header, content)?)?;
        }
        std::thread::sleep(NEVER);
        Ok(answers.stop().len())
    };
    let request =
        |port: u16| segment(SocketAddrV4::new(at::SERVER, 4001), SocketAddrV4::new(at::BASTION, port), 1, "S");
    let (open, closed) = (request(OPEN)?, request(CLOSED)?);
    // The pieces are good ones: an open port answers.
    ensure(answers_to(&[(0, &open[..8], false), (1, &open[8..], true)])? > 0, "an open port does not answer")?;
    let before = counted(&world, "dropped_input")?;
    ensure_eq(answers_to(&[(0, &closed[..8], false), (1, &closed[8..], true)])?, 0)?;
    ensure_eq(counted(&world, "dropped_input")?, before + 1)?;
    // Twice the same place, in either order: the rules see what the host would see.
    for twice in [[&open, &closed], [&closed, &open]] {
        let [first, second] = twice.map(|request| &request[..16]);
        ensure_eq(answers_to(&[(0, first, false), (0, second, false), (2, &closed[16..], true)])?, 0)?;
    }
    // An overlap in part ends the whole packet.
    ensure_eq(answers_to(&[(0, &open[..16], false), (1, &closed[8..], true)])?, 0)
}

/// The next sequence number of a packet's sender.
fn sequence_of(packet: &Packet) -> Option<u32> {
    let header = TcpHeaderSlice::from_slice(packet.ip()?.payload).ok()?;
    Some(header.sequence_number())
}

/// An attacker who knows addresses and ports, and guesses numbers (RFC 5961 section 1).
fn blind() -> Result {
    let world = World::start(Settings::default())?;
    let server = Reflector::tcp(world.server(), (at::SERVER, 8080))?;
    let (_installation, _daemon) = gateway(&world, "")?;
    let seen = Sniffer::start(world.bastion(), "eth0", |packet| {
        packet.direction == Direction::In && packet.tcp().is_some_and(|tcp| tcp.source == 8080)
    })?;
    let mut held = HeldConnection::open(world.web(), server.address(), SOON)?;
    held.exchange(SOON)?;
    let SocketAddr::V4(public) = held.seen() else { return Err("not IPv4".into()) };
    let last = seen.stop().iter().filter_map(sequence_of).max().ok_or("the server said nothing")?;
    let sender = from_internet(&world)?;
    let from = SocketAddrV4::new(at::SERVER, 8080);
    // Anywhere, and within the window of 64 KiB, but not the number that is expected.
    let guesses = (0..64).map(|part: u32| part << 26).chain((1..64).map(|part| last.wrapping_add(1 + part * 500)));
    for sequence in guesses {
        for flags in ["R", "S"] {
            let mut header = header(*from.ip(), *public.ip(), ip_number::TCP)?;
            header.time_to_live = 60;
            sender.send(ether_type::IPV4, &packet(&header, &segment(from, public, sequence, flags)?)?)?;
        }
    }
    held.exchange(SOON)?;
    std::thread::sleep(NEVER);
    ensure(held.exchange(SOON).is_ok(), "the flow has ended")
}
