//! Packets for tests, and a second, slow implementation to compare with: the checksum word by word, and segmentation by
//! writing every segment from its fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::packet::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, TCP, UDP, VIRTIO_NET_HDR_F_NEEDS_CSUM, VnetHeader,
};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
pub(super) const URG: u8 = 0x20;
pub(super) const ECE: u8 = 0x40;
pub(super) const CWR: u8 = 0x80;

/// Addresses and ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) ports: (u16, u16),
}

impl Flow {
    pub(super) fn v4(number: u8) -> Self {
        let address = |net| Ipv4Addr::new(10, net, 0, 1).into();
        Self { source: address(1), destination: address(2), ports: (50_000 + u16::from(number), 443) }
    }

    pub(super) fn v6(number: u8) -> Self {
        let address = |net| Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, 1).into();
        Self { source: address(1), destination: address(2), ports: (50_000 + u16::from(number), 443) }
    }
}

/// A TCP or UDP packet, field by field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) flow: Flow,
    pub(super) protocol: u8,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) id: u16,
    pub(super) df: bool,
    pub(super) ip_options: Vec<u8>,
    pub(super) flow_label: u32,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) tcp_options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Sample {
    pub(super) fn tcp(flow: Flow) -> Self {
        Self {
            flow,
            protocol: TCP,
            tos: 0,
            ttl: 64,
            id: 0x1234,
            df: true,
            ip_options: Vec::new(),
            flow_label: 0xabcde,
            seq: 1_000_000,
            ack: 77,
            flags: ACK,
            window: 512,
            tcp_options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: counting(100, 0),
        }
    }

    pub(super) fn udp(flow: Flow) -> Self {
        Self { protocol: UDP, ..Self::tcp(flow) }
    }

    pub(super) fn with_payload(self, len: usize) -> Self {
        Self { payload: counting(len, 0), ..self }
    }

    /// The same length with a payload over which UDP's checksum would be 0, and is sent as 0xffff.
    pub(super) fn with_zero_checksum(mut self) -> Self {
        self.payload[..2].fill(0);
        let at = self.bytes().len() - self.payload.len() - 2;
        let checksum = [self.bytes()[at], self.bytes()[at + 1]];
        self.payload[..2].copy_from_slice(&checksum);
        self
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut header = [self.flow.ports.0.to_be_bytes(), self.flow.ports.1.to_be_bytes()].concat();
        if self.protocol == UDP {
            header.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            header.extend([0, 0]);
            return header;
        }
        header.extend(self.seq.to_be_bytes());
        header.extend(self.ack.to_be_bytes());
        header.push((u8::try_from(20 + self.tcp_options.len()).unwrap() / 4) << 4);
        header.push(self.flags);
        header.extend(self.window.to_be_bytes());
        header.extend([0, 0, 0, 0]);
        header.extend(&self.tcp_options);
        header
    }

    fn pseudo_header(&self, transport_len: usize) -> Vec<u8> {
        let mut pseudo = match (self.flow.source, self.flow.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
            _ => panic!("a flow of two versions"),
        };
        pseudo.extend(u32::try_from(transport_len).unwrap().to_be_bytes());
        pseudo.extend([0, 0, 0, self.protocol]);
        pseudo
    }

    fn checksum_at(&self) -> usize {
        if self.protocol == UDP { 6 } else { 16 }
    }

    fn ip_header(&self, transport_len: usize) -> Vec<u8> {
        match (self.flow.source, self.flow.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let len = 20 + self.ip_options.len();
                let mut header = vec![0x40 | u8::try_from(len / 4).unwrap(), self.tos];
                header.extend(u16::try_from(len + transport_len).unwrap().to_be_bytes());
                header.extend(self.id.to_be_bytes());
                header.extend([if self.df { 0x40 } else { 0 }, 0, self.ttl, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.ip_options);
                let checksum = naive_checksum(&[&header]);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let first = 0x6000_0000 | (u32::from(self.tos) << 20) | self.flow_label;
                let mut header = first.to_be_bytes().to_vec();
                header.extend(u16::try_from(transport_len).unwrap().to_be_bytes());
                header.extend([self.protocol, self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("a flow of two versions"),
        }
    }

    /// The packet with right lengths and checksums.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut transport = self.transport_header();
        let len = transport.len() + self.payload.len();
        let mut checksum = naive_checksum(&[&self.pseudo_header(len), &transport, &self.payload]);
        if self.protocol == UDP && checksum == 0 {
            checksum = 0xffff;
        }
        let at = self.checksum_at();
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        [self.ip_header(len), transport, self.payload.clone()].concat()
    }

    /// The packet as the kernel hands it over for segmentation: the checksum is that of the pseudo-header alone.
    pub(super) fn offloaded(&self, gso_size: u16) -> (VnetHeader, Vec<u8>) {
        let mut transport = self.transport_header();
        let len = transport.len() + self.payload.len();
        let at = self.checksum_at();
        let partial = !naive_checksum(&[&self.pseudo_header(len)]);
        transport[at..at + 2].copy_from_slice(&partial.to_be_bytes());
        let ip = self.ip_header(len);
        let gso_type = match (self.protocol, self.flow.source) {
            (UDP, _) => GSO_UDP_L4,
            (_, IpAddr::V4(_)) => GSO_TCPV4,
            (_, IpAddr::V6(_)) => GSO_TCPV6,
        };
        let ecn = if self.protocol == TCP && self.flags & CWR != 0 { GSO_ECN } else { 0 };
        let header = VnetHeader {
            flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
            gso_type: gso_type | ecn,
            hdr_len: u16::try_from(ip.len() + transport.len()).unwrap(),
            gso_size,
            csum_start: u16::try_from(ip.len()).unwrap(),
            csum_offset: u16::try_from(at).unwrap(),
        };
        (header, [ip, transport, self.payload.clone()].concat())
    }

    /// The fields of a packet without IPv6 extension headers. Lengths and checksums are not checked.
    pub(super) fn parse(packet: &[u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let double_word = |at: usize| (u32::from(word(at)) << 16) | u32::from(word(at + 2));
        let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&packet[at..at + 16]).unwrap());
        let is_v4 = packet[0] >> 4 == 4;
        let ip = if is_v4 { usize::from(packet[0] & 0xf) * 4 } else { 40 };
        let protocol = packet[if is_v4 { 9 } else { 6 }];
        let headers = ip + if protocol == UDP { 8 } else { usize::from(packet[ip + 12] >> 4) * 4 };
        let addresses = if is_v4 { (v4(12), v4(16)) } else { (v6(8), v6(24)) };
        let flow = Flow { source: addresses.0, destination: addresses.1, ports: (word(ip), word(ip + 2)) };
        let mut sample = Self { payload: packet[headers..].to_vec(), protocol, ..Self::tcp(flow) };
        if is_v4 {
            (sample.tos, sample.ttl, sample.id) = (packet[1], packet[8], word(4));
            (sample.df, sample.ip_options) = (packet[6] & 0x40 != 0, packet[20..ip].to_vec());
        } else {
            (sample.tos, sample.ttl) = ((packet[0] << 4) | (packet[1] >> 4), packet[7]);
            sample.flow_label = double_word(0) & 0xf_ffff;
        }
        if protocol == TCP {
            (sample.seq, sample.ack) = (double_word(ip + 4), double_word(ip + 8));
            (sample.flags, sample.window) = (packet[ip + 13], word(ip + 14));
            sample.tcp_options = packet[ip + 20..headers].to_vec();
        }
        sample
    }
}

/// Bytes that show their origin.
pub(super) fn counting(len: usize, from: usize) -> Vec<u8> {
    (from..from + len).map(|index| index.wrapping_mul(0x9e37_79b9).to_le_bytes()[2]).collect()
}

/// RFC 1071 word by word over the concatenation of `pieces`.
pub(super) fn naive_checksum(pieces: &[&[u8]]) -> u16 {
    let mut bytes = pieces.concat();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// What the kernel would make of a packet with this header when no device helps it.
pub(super) fn split_naively(header: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    if header.gso_type == GSO_NONE {
        assert_eq!(header.flags, 0, "a checksum to finish is nothing that coalescing makes");
        return vec![packet.to_vec()];
    }
    let whole = Sample::parse(packet);
    assert_eq!(whole.offloaded(header.gso_size), (header, packet.to_vec()), "header, lengths or partial checksum");
    let size = usize::from(header.gso_size);
    let count = whole.payload.len().div_ceil(size);
    let mut segments = Vec::new();
    for (index, payload) in whole.payload.chunks(size).enumerate() {
        let mut segment = Sample { payload: payload.to_vec(), ..whole.clone() };
        segment.id = whole.id.wrapping_add(u16::try_from(index).unwrap());
        segment.seq = whole.seq.wrapping_add(u32::try_from(index * size).unwrap());
        if index > 0 {
            segment.flags &= !CWR;
        }
        if index + 1 < count {
            segment.flags &= !(FIN | PSH);
        }
        segments.push(segment.bytes());
    }
    segments
}

/// Any packet with offload, and its segment size; at most 500 segments.
pub(super) fn super_packet() -> impl Strategy<Value = (Sample, u16)> {
    let ip = (any::<bool>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>(), 0..=10_usize);
    let tcp = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), 0..=10_usize);
    (ip, any::<bool>(), tcp, 1..20_000_usize, 1..3000_u16, any::<usize>()).prop_map(
        |((is_v4, tos, ttl, id, df, ip_options), is_tcp, tcp, len, gso_size, from)| {
            let flow = if is_v4 { Flow::v4(1) } else { Flow::v6(1) };
            let (seq, ack, flags, window, tcp_options) = tcp;
            let base = if is_tcp { Sample::tcp(flow) } else { Sample::udp(flow) };
            let ip_options = vec![1; ip_options * 4];
            let tcp_options = counting(tcp_options * 4, from % 1000);
            let payload = counting(len, from % 1000);
            (
                Sample { tos, ttl, id, df, ip_options, seq, ack, flags, window, tcp_options, payload, ..base },
                gso_size.max(u16::try_from(len / 500 + 1).unwrap()),
            )
        },
    )
}
