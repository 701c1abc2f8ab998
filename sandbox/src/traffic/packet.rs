//! Just enough reading of packets to say who sent what to whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ethernet's numbers of the protocols (IANA, "IEEE 802 Numbers").
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// IP's numbers (IANA, "Protocol Numbers").
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Which way a packet crossed a link, seen from the namespace that the sniffer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It arrived.
    In,
    /// It left.
    Out,
}

/// A packet without its link header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which way it went.
    pub direction: Direction,
    /// Ethernet's number of what is inside.
    pub ethertype: u16,
    /// The bytes after the link header.
    pub bytes: Vec<u8>,
}

/// An ARP packet about IPv4 addresses (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// A question rather than an answer.
    pub request: bool,
    /// Who speaks.
    pub sender: Ipv4Addr,
    /// Who is asked for, or told.
    pub target: Ipv4Addr,
}

/// The header of an IP packet of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip<'a> {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// What is inside; for IPv6 the first next header.
    pub protocol: u8,
    /// Hops left.
    pub ttl: u8,
    /// The type of service or traffic class, whose last two bits are the ECN (RFC 3168).
    pub traffic_class: u8,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The header of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// From.
    pub source: u16,
    /// To.
    pub destination: u16,
    /// It opens a connection.
    pub syn: bool,
    /// It acknowledges.
    pub ack: bool,
    /// It ends one rudely.
    pub rst: bool,
    /// The MSS option, which only a SYN has (RFC 9293).
    pub mss: Option<u16>,
}

impl Packet {
    /// The ARP packet that this is, if it is one.
    pub fn arp(&self) -> Option<Arp> {
        if self.ethertype != ARP || self.bytes.len() < 28 {
            return None;
        }
        let address = |at| Some(Ipv4Addr::from(array::<4>(&self.bytes, at)?));
        Some(Arp { request: u16_at(&self.bytes, 6)? == 1, sender: address(14)?, target: address(24)? })
    }

    /// The IP header, if it has one.
    pub fn ip(&self) -> Option<Ip<'_>> {
        let bytes = &self.bytes;
        match self.ethertype {
            IPV4 => {
                let header = usize::from(bytes.first()? & 0x0f) * 4;
                let address = |at| Some(Ipv4Addr::from(array::<4>(bytes, at)?).into());
                let (source, destination) = (address(12)?, address(16)?);
                let payload = bytes.get(header..)?;
                Some(Ip { source, destination, protocol: bytes[9], ttl: bytes[8], traffic_class: bytes[1], payload })
            }
            IPV6 => {
                let address = |at| Some(Ipv6Addr::from(array::<16>(bytes, at)?).into());
                let (source, destination) = (address(8)?, address(24)?);
                let traffic_class = bytes[0] << 4 | bytes[1] >> 4;
                Some(Ip {
                    source,
                    destination,
                    protocol: bytes[6],
                    ttl: bytes[7],
                    traffic_class,
                    payload: &bytes[40..],
                })
            }
            _ => None,
        }
    }

    /// The TCP header, if it has one.
    pub fn tcp(&self) -> Option<Tcp> {
        let ip = self.ip().filter(|ip| ip.protocol == TCP)?;
        let flags = *ip.payload.get(13)?;
        let header = usize::from(ip.payload.get(12)? >> 4) * 4;
        Some(Tcp {
            source: u16_at(ip.payload, 0)?,
            destination: u16_at(ip.payload, 2)?,
            syn: flags & 0x02 != 0,
            ack: flags & 0x10 != 0,
            rst: flags & 0x04 != 0,
            mss: mss_option(ip.payload.get(20..header)?),
        })
    }

    /// The UDP ports, source first, if it has them.
    pub fn udp(&self) -> Option<(u16, u16)> {
        let ip = self.ip().filter(|ip| ip.protocol == UDP)?;
        Some((u16_at(ip.payload, 0)?, u16_at(ip.payload, 2)?))
    }

    /// What a UDP datagram carries, if it is one: of a fragment, what the fragment has.
    pub fn udp_payload(&self) -> Option<&[u8]> {
        self.udp()?;
        self.ip()?.payload.get(8..)
    }
}

/// Walks the options of a TCP header to the MSS (RFC 9293, section 3.2).
fn mss_option(mut options: &[u8]) -> Option<u16> {
    loop {
        match *options {
            [] | [0, ..] => return None,
            [1, ref rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([high, low])),
            [_, length, ..] => options = options.get(usize::from(length.max(2))..)?,
            [_] => return None,
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn(options: &[u8]) -> Packet {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 61, 6, 0, 0, 10, 0, 0, 4, 203, 0, 113, 10];
        let words = u8::try_from(5 + options.len() / 4).expect("options are short");
        bytes.extend_from_slice(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, words << 4, 0x02, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(options);
        Packet { direction: Direction::In, ethertype: IPV4, bytes }
    }

    #[test]
    fn a_syn_shows_its_addresses_ports_and_mss() {
        // SACK permitted, a pad, the MSS, and the end.
        let packet = syn(&[4, 2, 1, 2, 4, 0x05, 0x82, 0]);
        let ip = packet.ip().map(|ip| (ip.source, ip.destination, ip.protocol, ip.ttl));
        let (source, destination): (IpAddr, IpAddr) = ([10, 0, 0, 4].into(), [203, 0, 113, 10].into());
        assert_eq!(ip, Some((source, destination, TCP, 61)));
        let tcp = Tcp { source: 40000, destination: 80, syn: true, ack: false, rst: false, mss: Some(1410) };
        assert_eq!(packet.tcp(), Some(tcp));
        assert_eq!(packet.udp(), None);
        assert_eq!(packet.arp(), None);
    }

    #[test]
    fn malformed_options_and_cut_packets_are_no_panic() {
        for options in [&[2, 4, 5, 0x82][..], &[3, 0, 0, 0], &[8, 200, 0, 0], &[1, 1, 1, 9]] {
            let packet = syn(options);
            for length in 0..packet.bytes.len() {
                let cut = Packet { bytes: packet.bytes[..length].to_vec(), ..packet.clone() };
                assert_eq!(cut.tcp(), None, "{options:?} cut at {length}");
                let v6 = Packet { ethertype: IPV6, ..cut.clone() };
                assert_eq!((v6.tcp(), v6.udp()), (None, None));
                assert_eq!(Packet { ethertype: ARP, ..cut }.udp(), None);
            }
        }
        assert_eq!(syn(&[3, 0, 0, 0]).tcp().and_then(|tcp| tcp.mss), None);
    }

    #[test]
    fn an_arp_question_shows_who_asks_for_whom() {
        let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
        bytes.extend_from_slice(&[0x86, 0, 0, 0x2a, 0, 4, 10, 0, 0, 4, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
        let packet = Packet { direction: Direction::Out, ethertype: ARP, bytes };
        let (sender, target) = (Ipv4Addr::new(10, 0, 0, 4), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(packet.arp(), Some(Arp { request: true, sender, target }));
    }
}
