//! Packets that a [`Sniffer`](super::Sniffer) caught, and their headers.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpOperation, ArpPacketSlice, EtherType, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice,
    TcpOptionElement, UdpHeader, UdpHeaderSlice, ether_type, ip_number,
};

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
    /// Which way it crossed the link.
    pub direction: Direction,
    /// The `EtherType` of its contents (IANA, "IEEE 802 Numbers").
    pub ethertype: u16,
    /// The bytes after the link header.
    pub bytes: Vec<u8>,
}

/// An ARP packet about IPv4 addresses (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Whether it is a request; otherwise it is a reply.
    pub request: bool,
    /// The sender's protocol address.
    pub sender: Ipv4Addr,
    /// The target's protocol address.
    pub target: Ipv4Addr,
}

/// The header of an IP packet of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip<'a> {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The protocol number; for IPv6 the first next header.
    pub protocol: u8,
    /// The TTL or hop limit.
    pub ttl: u8,
    /// The type of service or traffic class, whose last two bits are the ECN (RFC 3168).
    pub traffic_class: u8,
    /// The bytes after the header.
    pub payload: &'a [u8],
}

/// The header of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// The source port.
    pub source: u16,
    /// The destination port.
    pub destination: u16,
    /// The SYN flag.
    pub syn: bool,
    /// The ACK flag.
    pub ack: bool,
    /// The RST flag.
    pub rst: bool,
    /// The MSS option, which only a SYN has (RFC 9293).
    pub mss: Option<u16>,
}

impl Packet {
    /// The ARP packet, or `None` for other packets.
    pub fn arp(&self) -> Option<Arp> {
        if EtherType(self.ethertype) != ether_type::ARP {
            return None;
        }
        let arp = ArpPacketSlice::from_slice(&self.bytes).ok()?.to_packet().try_eth_ipv4().ok()?;
        let (sender, target) = (arp.sender_ipv4.into(), arp.target_ipv4.into());
        Some(Arp { request: arp.operation == ArpOperation::REQUEST, sender, target })
    }

    /// The IP header, or `None` for other packets.
    pub fn ip(&self) -> Option<Ip<'_>> {
        match EtherType(self.ethertype) {
            ether_type::IPV4 => {
                let header = Ipv4HeaderSlice::from_slice(&self.bytes).ok()?;
                Some(Ip {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: header.protocol().0,
                    ttl: header.ttl(),
                    traffic_class: header.dcp().value() << 2 | header.ecn().value(),
                    payload: &self.bytes[header.slice().len()..],
                })
            }
            ether_type::IPV6 => {
                let header = Ipv6HeaderSlice::from_slice(&self.bytes).ok()?;
                Some(Ip {
                    source: header.source_addr().into(),
                    destination: header.destination_addr().into(),
                    protocol: header.next_header().0,
                    ttl: header.hop_limit(),
                    traffic_class: header.traffic_class(),
                    payload: &self.bytes[header.slice().len()..],
                })
            }
            _ => None,
        }
    }

    /// The TCP header, or `None` for other packets.
    pub fn tcp(&self) -> Option<Tcp> {
        let ip = self.ip_of(ip_number::TCP)?;
        let header = TcpHeaderSlice::from_slice(ip.payload).ok()?;
        let mss = header.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        Some(Tcp {
            source: header.source_port(),
            destination: header.destination_port(),
            syn: header.syn(),
            ack: header.ack(),
            rst: header.rst(),
            mss,
        })
    }

    /// The source and the destination port of a UDP datagram, or `None` for other packets.
    pub fn udp(&self) -> Option<(u16, u16)> {
        let ip = self.ip_of(ip_number::UDP)?;
        let header = UdpHeaderSlice::from_slice(ip.payload).ok()?;
        Some((header.source_port(), header.destination_port()))
    }

    /// The data of a UDP datagram, or `None` for other packets. Of a first fragment it is the fragment's part.
    pub fn udp_payload(&self) -> Option<&[u8]> {
        self.ip_of(ip_number::UDP)?.payload.get(UdpHeader::LEN..)
    }

    fn ip_of(&self, protocol: IpNumber) -> Option<Ip<'_>> {
        self.ip().filter(|ip| IpNumber(ip.protocol) == protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARP: u16 = ether_type::ARP.0;
    const IPV4: u16 = ether_type::IPV4.0;
    const IPV6: u16 = ether_type::IPV6.0;

    fn syn(options: &[u8]) -> Packet {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 61, 6, 0, 0, 10, 0, 0, 4, 203, 0, 113, 10];
        let words = u8::try_from(5 + options.len() / 4).expect("options are short");
        bytes.extend_from_slice(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, words << 4, 0x02, 0, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(options);
        Packet { direction: Direction::In, ethertype: IPV4, bytes }
    }

    #[test]
    fn a_syn_shows_its_addresses_ports_and_mss() {
        // SACK permitted, no operation, MSS, end of options.
        let packet = syn(&[4, 2, 1, 2, 4, 0x05, 0x82, 0]);
        let ip = packet.ip().map(|ip| (ip.source, ip.destination, ip.protocol, ip.ttl));
        let (source, destination): (IpAddr, IpAddr) = ([10, 0, 0, 4].into(), [203, 0, 113, 10].into());
        assert_eq!(ip, Some((source, destination, ip_number::TCP.0, 61)));
        let tcp = Tcp { source: 40000, destination: 80, syn: true, ack: false, rst: false, mss: Some(1410) };
        assert_eq!(packet.tcp(), Some(tcp));
        assert_eq!(packet.udp(), None);
        assert_eq!(packet.arp(), None);
    }

    #[test]
    fn malformed_options_and_truncated_packets_do_not_panic() {
        for options in [&[2, 4, 5, 0x82][..], &[3, 0, 0, 0], &[8, 200, 0, 0], &[1, 1, 1, 9]] {
            let packet = syn(options);
            for length in 0..packet.bytes.len() {
                let cut = Packet { bytes: packet.bytes[..length].to_vec(), ..packet.clone() };
                assert_eq!(cut.tcp(), None, "{options:?} truncated to {length}");
                let v6 = Packet { ethertype: IPV6, ..cut.clone() };
                assert_eq!((v6.tcp(), v6.udp()), (None, None));
                assert_eq!(Packet { ethertype: ARP, ..cut }.udp(), None);
            }
        }
        assert_eq!(syn(&[3, 0, 0, 0]).tcp().and_then(|tcp| tcp.mss), None);
    }

    #[test]
    fn an_arp_request_shows_its_sender_and_its_target() {
        let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
        bytes.extend_from_slice(&[0x86, 0, 0, 0x2a, 0, 4, 10, 0, 0, 4, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
        let packet = Packet { direction: Direction::Out, ethertype: ARP, bytes };
        let (sender, target) = (Ipv4Addr::new(10, 0, 0, 4), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(packet.arp(), Some(Arp { request: true, sender, target }));
    }
}
