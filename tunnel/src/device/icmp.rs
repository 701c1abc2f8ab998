//! ICMP errors to the inside: a packet that cannot go through the tunnel is answered, not dropped silently.
//!
//! The kernel's WireGuard answers with host unreachable and address unreachable (`wg_xmit` in
//! `drivers/net/wireguard/device.c`); packets that are too big its IP layer answers before they come to it. The source
//! is the caller's choice: there, routing picks an address of the server, as the host that could not forward is to be
//! named (RFC 1812 section 4.3.2.4). See `kernel_icmp` for how that is reached here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{finish, pseudo_header, sum};
use super::packet::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, destination, source, total_len, transport};

/// The longest error over IPv4 (RFC 1812 section 4.3.2.3).
const V4_MAX: usize = 576;
/// What every link carries of IPv6 (RFC 8200 section 5).
pub const IPV6_MIN_MTU: usize = 1280;
/// The longest error over IPv6 (RFC 4443 section 2.4 (c)).
const V6_MAX: usize = IPV6_MIN_MTU;
const ICMP_HEADER_LEN: usize = 8;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// What the kernel sends with (`net.ipv4.ip_default_ttl`).
const HOPS: u8 = 64;
/// Errors travel with the precedence of routing traffic (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// An IP packet with an ICMP error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    bytes: [u8; V6_MAX],
    len: usize,
}

impl Message {
    /// The packet, ready to be written.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whom it is for.
    pub fn receiver(&self) -> Option<IpAddr> {
        destination(self.as_slice())
    }

    /// The same without the IP header.
    pub fn icmp(&self) -> &[u8] {
        let header = if self.bytes[0] >> 4 == 4 { IPV4_HEADER_LEN } else { IPV6_HEADER_LEN };
        self.as_slice().get(header..).unwrap_or_default()
    }
}

/// Answers a packet that is larger than the tunnel's MTU, for path MTU discovery (RFC 1191, RFC 8201). `None` if it may
/// be fragmented instead or must not be answered.
///
/// The error to an IPv6 sender never has an MTU below 1280, which it would ignore.
pub fn too_big(packet: &[u8], mtu: usize, source: IpAddr) -> Option<Message> {
    match source {
        IpAddr::V4(_) => {
            let may_be_fragmented = packet.get(6)? & 0x40 == 0;
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
            if may_be_fragmented { None } else { error(packet, source, (3, 4), mtu.into()) }
        }
        IpAddr::V6(_) => error(packet, source, (2, 0), u32::try_from(mtu.max(IPV6_MIN_MTU)).unwrap_or(u32::MAX)),
    }
}

/// Answers a packet for which there is no peer, or whose peer has no endpoint. `None` if it must not be answered.
pub fn unreachable(packet: &[u8], source: IpAddr) -> Option<Message> {
    error(packet, source, if source.is_ipv4() { (3, 1) } else { (1, 3) }, 0)
}

fn error(packet: &[u8], from: IpAddr, kind: (u8, u8), parameter: u32) -> Option<Message> {
    let packet = packet.get(..total_len(packet)?).unwrap_or(packet);
    let (to, quoted_max) = match (source(packet)?, from) {
        (to @ IpAddr::V4(_), IpAddr::V4(_)) => (to, V4_MAX - IPV4_HEADER_LEN - ICMP_HEADER_LEN),
        (to @ IpAddr::V6(_), IpAddr::V6(_)) => (to, V6_MAX - IPV6_HEADER_LEN - ICMP_HEADER_LEN),
        _ => return None,
    };
    if !may_be_answered(packet, to, destination(packet)?) {
        return None;
    }
    let quoted = &packet[..packet.len().min(quoted_max)];
    let length = ICMP_HEADER_LEN + quoted.len();
    let mut message = Message { bytes: [0; V6_MAX], len: 0 };
    let (ip, pseudo) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            write_ipv4(&mut message.bytes, from, to, length);
            (IPV4_HEADER_LEN, 0)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            write_ipv6(&mut message.bytes, from, to, length);
            let length = u32::try_from(length).expect("at most 1280");
            (IPV6_HEADER_LEN, pseudo_header(&message.bytes[8..IPV6_HEADER_LEN], ICMPV6, length))
        }
        _ => return None,
    };
    message.len = ip + length;
    let icmp = &mut message.bytes[ip..ip + length];
    (icmp[0], icmp[1]) = kind;
    icmp[4..8].copy_from_slice(&parameter.to_be_bytes());
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quoted);
    let checksum = finish(sum(icmp, pseudo));
    icmp[2..4].copy_from_slice(&checksum);
    Some(message)
}

/// RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e): no error about an error, a later fragment, a packet to many
/// hosts, or one without a unicast source. (A multicast packet that is too big may be answered over IPv6, but need not
/// be.)
fn may_be_answered(packet: &[u8], source: IpAddr, destination: IpAddr) -> bool {
    let is_one = match source {
        // From 224.0.0.0 on there are only groups, reserved addresses and broadcast.
        IpAddr::V4(source) => !source.is_unspecified() && !source.is_loopback() && source.octets()[0] < 224,
        IpAddr::V6(source) => !source.is_unspecified() && !source.is_loopback() && !source.is_multicast(),
    };
    let is_to_many = match destination {
        IpAddr::V4(destination) => destination.is_multicast() || destination.is_broadcast(),
        IpAddr::V6(destination) => destination.is_multicast(),
    };
    if !is_one || is_to_many {
        return false;
    }
    let Some(transport) = transport(packet) else { return false };
    if transport.fragment.is_some_and(|offset| offset > 0) {
        return false;
    }
    let kind = packet.get(transport.offset).copied();
    match transport.protocol {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
        ICMP if source.is_ipv4() => !matches!(kind, None | Some(3..=5 | 11 | 12)),
        // All errors have types below 128; 137 is a redirect.
        ICMPV6 if source.is_ipv6() => !matches!(kind, None | Some(0..=127 | 137)),
        _ => true,
    }
}

/// Writes an IPv4 header without options, without fragmentation, for `length` bytes behind it.
fn write_ipv4(bytes: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, length: usize) {
    let total = u16::try_from(IPV4_HEADER_LEN + length).expect("at most 576");
    let header = &mut bytes[..IPV4_HEADER_LEN];
    header[..2].copy_from_slice(&[0x45, INTERNETWORK_CONTROL]);
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[6..10].copy_from_slice(&[0x40, 0, HOPS, ICMP]);
    header[12..16].copy_from_slice(&from.octets());
    header[16..].copy_from_slice(&to.octets());
    let checksum = finish(sum(header, 0));
    header[10..12].copy_from_slice(&checksum);
}

/// Writes an IPv6 header for `length` bytes behind it.
fn write_ipv6(bytes: &mut [u8], from: Ipv6Addr, to: Ipv6Addr, length: usize) {
    let payload = u16::try_from(length).expect("at most 1280");
    let header = &mut bytes[..IPV6_HEADER_LEN];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&payload.to_be_bytes());
    header[6..8].copy_from_slice(&[ICMPV6, HOPS]);
    header[8..24].copy_from_slice(&from.octets());
    header[24..].copy_from_slice(&to.octets());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sample::{Flow, Sample, naive_checksum};

    const SERVER_V4: &str = "10.9.0.1";
    const SERVER_V6: &str = "fd00:9::1";

    fn server(packet: &[u8]) -> IpAddr {
        if packet[0] >> 4 == 4 { SERVER_V4 } else { SERVER_V6 }.parse().unwrap()
    }

    /// Type, code, parameter and quote, after a check of everything else.
    fn read(message: &Message, about: &[u8]) -> ((u8, u8), u32, Vec<u8>) {
        let bytes = message.as_slice();
        let ip = if bytes[0] >> 4 == 4 { 20 } else { 40 };
        assert_eq!(total_len(bytes), Some(bytes.len()));
        assert_eq!((source(bytes), destination(bytes)), (Some(server(about)), source(about)));
        let icmp = &bytes[ip..];
        let pseudo = if ip == 20 {
            assert_eq!(naive_checksum(&[&bytes[..20]]), 0);
            assert_eq!((bytes[8], bytes[9]), (64, 1));
            Vec::new()
        } else {
            assert_eq!((bytes[6], bytes[7]), (58, 64));
            [&bytes[8..40], &u32::try_from(icmp.len()).unwrap().to_be_bytes(), &[0, 0, 0, 58]].concat()
        };
        assert_eq!(naive_checksum(&[&pseudo, icmp]), 0);
        let parameter = u32::from_be_bytes(*icmp[4..].first_chunk().unwrap());
        ((icmp[0], icmp[1]), parameter, icmp[8..].to_vec())
    }

    #[test]
    fn a_packet_without_a_peer_is_answered_host_unreachable() {
        for (flow, kind) in [(Flow::v4(1), (3, 1)), (Flow::v6(1), (1, 3))] {
            let packet = Sample::udp(flow).bytes();
            let message = unreachable(&packet, server(&packet)).unwrap();
            assert_eq!(read(&message, &packet), (kind, 0, packet));
        }
    }

    #[test]
    fn too_big_tells_the_mtu() {
        for (flow, kind) in [(Flow::v4(1), (3, 4)), (Flow::v6(1), (2, 0))] {
            let packet = Sample::tcp(flow).bytes();
            let message = too_big(&packet, 1420, server(&packet)).unwrap();
            assert_eq!(read(&message, &packet), (kind, 1420, packet));
        }
        let packet = Sample::tcp(Flow::v6(1)).bytes();
        let message = too_big(&packet, 1000, server(&packet)).unwrap();
        assert_eq!(read(&message, &packet), ((2, 0), 1280, packet));
    }

    #[test]
    fn a_quoted_packet_has_the_allowed_length_and_no_bytes_behind_it() {
        for (flow, quoted) in [(Flow::v4(1), 548), (Flow::v6(1), 1232)] {
            let packet = Sample::udp(flow).with_payload(1400).bytes();
            let message = unreachable(&packet, server(&packet)).unwrap();
            assert_eq!(read(&message, &packet), (read(&message, &packet).0, 0, packet[..quoted].to_vec()));
            let padded = [Sample::udp(flow).bytes(), vec![0; 9]].concat();
            let message = unreachable(&padded, server(&padded)).unwrap();
            assert_eq!(read(&message, &padded).2, padded[..padded.len() - 9]);
        }
    }

    #[test]
    fn a_packet_that_may_be_fragmented_is_not_too_big() {
        let packet = Sample { df: false, ..Sample::udp(Flow::v4(1)) }.bytes();
        assert_eq!(too_big(&packet, 1420, server(&packet)), None);
    }

    #[test]
    fn these_packets_are_not_answered() {
        let v4 = Sample::udp(Flow::v4(1)).bytes();
        let v6 = Sample::udp(Flow::v6(1)).bytes();
        let with = |packet: &[u8], at: usize, bytes: &[u8]| {
            let mut packet = packet.to_vec();
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet
        };
        let mut packets = vec![
            ("later fragment", with(&v4, 6, &[0x40, 9])),
            ("multicast", with(&v4, 16, &[239, 1, 2, 3])),
            ("broadcast", with(&v4, 16, &[255; 4])),
            ("from the unspecified address", with(&v4, 12, &[0; 4])),
            ("from this host", with(&v4, 12, &[127, 0, 0, 1])),
            ("from a group", with(&v4, 12, &[224, 0, 0, 1])),
            ("from all", with(&v4, 12, &[255; 4])),
            ("multicast", with(&v6, 24, &[0xff])),
            ("from the unspecified address", with(&v6, 8, &[0; 16])),
            ("from a group", with(&v6, 8, &[0xff])),
            ("later fragment", with(&with(&v6, 6, &[44]), 40, &[17, 0, 0, 8])),
            ("no header", with(&v6, 6, &[0, 64, 0xfd])[..41].to_vec()),
            ("no IP packet", vec![0x50; 60]),
            ("nothing", Vec::new()),
        ];
        for kind in [3, 4, 5, 11, 12] {
            packets.push(("ICMP error", with(&with(&v4, 9, &[ICMP]), 20, &[kind])));
        }
        for kind in [1, 2, 3, 4, 127, 137] {
            packets.push(("ICMPv6 error", with(&with(&v6, 6, &[ICMPV6]), 40, &[kind])));
            let behind_options = with(&with(&v6, 6, &[0]), 40, &[ICMPV6, 0, 1, 4, 0, 0, 0, 0, kind]);
            packets.push(("ICMPv6 error behind options", behind_options));
        }
        for (what, packet) in packets {
            for server in [SERVER_V4, SERVER_V6].map(|address| address.parse().unwrap()) {
                assert_eq!(unreachable(&packet, server), None, "{what}");
                assert_eq!(too_big(&packet, 1420, server), None, "{what}");
            }
        }
        assert_eq!(unreachable(&v4, SERVER_V6.parse().unwrap()), None);
        assert_eq!(unreachable(&v6, SERVER_V4.parse().unwrap()), None);
    }

    #[test]
    fn echo_requests_and_first_fragments_are_answered() {
        let mut echo = Sample::udp(Flow::v4(1)).bytes();
        (echo[9], echo[20]) = (ICMP, 8);
        let mut first = Sample::udp(Flow::v4(1)).bytes();
        first[6] = 0x20;
        let mut echo_v6 = Sample::udp(Flow::v6(1)).bytes();
        (echo_v6[6], echo_v6[40]) = (ICMPV6, 128);
        for packet in [echo, first, echo_v6] {
            let message = unreachable(&packet, server(&packet)).unwrap();
            assert_eq!(read(&message, &packet).2, packet);
        }
    }
}
