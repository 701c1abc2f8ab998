//! What the data plane reads of a packet: the header that a TUN interface puts before it, and the fields of IPv4 and
//! IPv6 that it needs for routing. Every read is within bounds, whatever the bytes are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The length of a [`VnetHeader`]: what a TUN interface with `IFF_VNET_HDR` puts before each packet unless
/// `TUNSETVNETHDRSZ` changes it.
pub const VNET_HEADER_LEN: usize = 10;

/// The checksum is still to be finished: `csum_start` and `csum_offset` say where (`linux/virtio_net.h`).
pub const VIRTIO_NET_HDR_F_NEEDS_CSUM: u8 = 1;
/// One packet as it is.
pub const GSO_NONE: u8 = 0;
/// TCP segments over IPv4 in one.
pub const GSO_TCPV4: u8 = 1;
/// TCP segments over IPv6 in one.
pub const GSO_TCPV6: u8 = 4;
/// UDP datagrams in one (`UDP_SEGMENT`, not fragments of one datagram).
pub const GSO_UDP_L4: u8 = 5;
/// Beside a TCP type: CWR is set, and belongs to the first segment alone.
pub const GSO_ECN: u8 = 0x80;

/// TCP's IP protocol number.
pub const TCP: u8 = 6;
/// UDP's IP protocol number.
pub const UDP: u8 = 17;

/// The fixed part of an IPv4 header.
pub const IPV4_HEADER_LEN: usize = 20;
/// An IPv6 header without extension headers.
pub const IPV6_HEADER_LEN: usize = 40;
/// The fixed part of a TCP header.
pub const TCP_HEADER_LEN: usize = 20;
/// A UDP header.
pub const UDP_HEADER_LEN: usize = 8;

/// `struct virtio_net_hdr`, in the machine's byte order, which is that of Linux' TUN unless `TUNSETVNETLE` changes it.
/// The default is a packet as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`VIRTIO_NET_HDR_F_NEEDS_CSUM`].
    pub flags: u8,
    /// One of [`GSO_NONE`], [`GSO_TCPV4`], [`GSO_TCPV6`] and [`GSO_UDP_L4`], perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// A hint for the length of the headers, in bytes. Linux gives the length of the first buffer, so it is not used.
    pub hdr_len: u16,
    /// Bytes of payload in each segment but the last.
    pub gso_size: u16,
    /// Where the bytes under the checksum begin.
    pub csum_start: u16,
    /// The offset of the checksum, counted from `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Reads the header from the beginning of `bytes`; `None` if they are too few.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<VNET_HEADER_LEN>()?;
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Some(Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: number(2),
            gso_size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
        })
    }

    /// The header once the checksum of a packet that is whole was finished. Segments' checksums are made with them.
    #[must_use]
    pub fn finished(self) -> Self {
        if self.gso_type == GSO_NONE { Self { flags: self.flags & !VIRTIO_NET_HDR_F_NEEDS_CSUM, ..self } } else { self }
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.csum_offset.to_ne_bytes());
        bytes
    }
}

/// The 16-bit number at `at`, which the caller knows to be within `bytes`.
#[inline]
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The 32-bit number at `at`, which the caller knows to be within `bytes`.
#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The IP version, if the fixed header of that version is there.
#[inline]
pub fn version(packet: &[u8]) -> Option<Version> {
    match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER_LEN => Some(Version::V4),
        6 if packet.len() >= IPV6_HEADER_LEN => Some(Version::V6),
        _ => None,
    }
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A packet's source address; `None` if it is no IP packet.
#[inline]
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    match version(packet)? {
        Version::V4 => Some(ipv4(packet, 12)),
        Version::V6 => ipv6(packet, 8),
    }
}

/// A packet's destination address; `None` if it is no IP packet.
#[inline]
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match version(packet)? {
        Version::V4 => Some(ipv4(packet, 16)),
        Version::V6 => ipv6(packet, 24),
    }
}

#[inline]
fn ipv4(packet: &[u8], at: usize) -> IpAddr {
    Ipv4Addr::from_bits(u32_at(packet, at)).into()
}

#[inline]
fn ipv6(packet: &[u8], at: usize) -> Option<IpAddr> {
    Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into())
}

/// The packet's length by its own header, in bytes; `None` if it is no IP packet or shorter than its header. It may be
/// more than there is.
#[inline]
pub fn total_len(packet: &[u8]) -> Option<usize> {
    match version(packet)? {
        Version::V4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let total = usize::from(u16_at(packet, 2));
            (header >= IPV4_HEADER_LEN && total >= header).then_some(total)
        }
        // A jumbogram (RFC 2675) has 0 here; no MTU of a tunnel is large enough for one.
        Version::V6 => Some(IPV6_HEADER_LEN + usize::from(u16_at(packet, 4))),
    }
}

/// The DSCP and ECN octet: IPv4's TOS, IPv6's traffic class; 0 if it is no IP packet.
#[inline]
pub fn traffic_class(packet: &[u8]) -> u8 {
    match version(packet) {
        Some(Version::V4) => packet[1],
        Some(Version::V6) => (packet[0] << 4) | (packet[1] >> 4),
        None => 0,
    }
}

/// The two ECN bits; 0 (Not-ECT) if it is no IP packet.
#[inline]
pub fn ecn(packet: &[u8]) -> u8 {
    traffic_class(packet) & 0b11
}

/// What follows the IP headers of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// The IP protocol number.
    pub protocol: u8,
    /// Where it begins, counted from the IP header; within the packet.
    pub offset: usize,
    /// `Some` if the packet is a fragment: its offset in bytes.
    pub fragment: Option<usize>,
    /// Whether a routing header follows, so that the destination in the IP header is not the last one.
    pub routed: bool,
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Finds the transport header behind IPv4's options or IPv6's extension headers (RFC 8200 section 4); `None` if it is
/// no IP packet or its headers lead out of it.
pub fn transport(packet: &[u8]) -> Option<Transport> {
    match version(packet)? {
        Version::V4 => {
            let offset = usize::from(packet[0] & 0xf) * 4;
            let fragment = u16_at(packet, 6);
            (offset >= IPV4_HEADER_LEN && offset <= packet.len()).then_some(Transport {
                protocol: packet[9],
                offset,
                fragment: (fragment & 0x3fff != 0).then_some(usize::from(fragment & 0x1fff) * 8),
                routed: false,
            })
        }
        Version::V6 => {
            let mut found = Transport { protocol: packet[6], offset: IPV6_HEADER_LEN, fragment: None, routed: false };
            loop {
                let length = match found.protocol {
                    HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                        let header = packet.get(found.offset..)?.first_chunk::<4>()?;
                        found.routed |= found.protocol == ROUTING && header[3] != 0;
                        (usize::from(header[1]) + 1) * 8
                    }
                    FRAGMENT => {
                        let header = packet.get(found.offset..)?.first_chunk::<8>()?;
                        found.fragment = Some(usize::from(u16_at(header, 2) & 0xfff8));
                        8
                    }
                    _ => return Some(found),
                };
                let next = packet[found.offset];
                found.offset += length;
                // Behind a fragment's header that is not the first there is no chain to follow.
                if found.offset > packet.len() {
                    return None;
                }
                found.protocol = next;
                if found.fragment.is_some_and(|offset| offset > 0) {
                    return Some(found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sample::{Flow, Sample};

    #[test]
    fn a_vnet_header_reads_back_as_written() {
        let header = VnetHeader { flags: 1, gso_type: 4, hdr_len: 74, gso_size: 1380, csum_start: 40, csum_offset: 16 };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend([0x60, 0]);
        assert_eq!(VnetHeader::parse(&bytes), Some(header));
        assert_eq!(VnetHeader::parse(&bytes[..9]), None);
        assert_eq!(VnetHeader::default().to_bytes(), [0; 10]);
    }

    #[test]
    fn addresses_length_and_ecn_are_read_from_both_versions() {
        let v4 = Sample { tos: 0xb9, ..Sample::tcp(Flow::v4(1)) }.bytes();
        assert_eq!(source(&v4), Some("10.1.0.1".parse().unwrap()));
        assert_eq!(destination(&v4), Some("10.2.0.1".parse().unwrap()));
        assert_eq!((total_len(&v4), traffic_class(&v4), ecn(&v4)), (Some(v4.len()), 0xb9, 1));
        let v6 = Sample { tos: 0xb9, ..Sample::udp(Flow::v6(1)) }.bytes();
        assert_eq!(source(&v6), Some("fd00:1::1".parse().unwrap()));
        assert_eq!(destination(&v6), Some("fd00:2::1".parse().unwrap()));
        assert_eq!((total_len(&v6), traffic_class(&v6), ecn(&v6)), (Some(v6.len()), 0xb9, 1));
    }

    #[test]
    fn bytes_that_are_no_ip_packet_have_no_fields() {
        let v4 = Sample::tcp(Flow::v4(1)).bytes();
        let v6 = Sample::tcp(Flow::v6(1)).bytes();
        let mut version_5 = v4.clone();
        version_5[0] = 0x55;
        for bytes in [&v4[..19], &v6[..39], &version_5, &[], &[0x45]] {
            let read = (source(bytes), destination(bytes), total_len(bytes), transport(bytes), ecn(bytes));
            assert_eq!(read, (None, None, None, None, 0));
        }
        let mut short_header = v4.clone();
        short_header[0] = 0x44;
        assert_eq!((total_len(&short_header), transport(&short_header)), (None, None));
        let mut short_total = v4;
        short_total[2..4].copy_from_slice(&[0, 19]);
        assert_eq!(total_len(&short_total), None);
    }

    #[test]
    fn the_transport_header_is_found_behind_options_and_extension_headers() {
        let plain = |protocol, offset| Some(Transport { protocol, offset, fragment: None, routed: false });
        let v4 = Sample { ip_options: vec![1; 8], ..Sample::tcp(Flow::v4(1)) }.bytes();
        assert_eq!(transport(&v4), plain(TCP, 28));
        let mut fragment = v4.clone();
        fragment[6..8].copy_from_slice(&[0x20, 0x02]);
        assert_eq!(transport(&fragment), Some(Transport { fragment: Some(16), ..plain(TCP, 28).unwrap() }));

        let mut v6 = vec![0; 40];
        (v6[0], v6[6]) = (0x60, HOP_BY_HOP);
        v6.extend([DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0]);
        v6.extend([ROUTING, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        v6.extend([UDP, 0, 4, 0, 0, 0, 0, 0]);
        v6.extend([0; 8]);
        assert_eq!(transport(&v6), plain(UDP, 72));
        v6[40 + 8 + 16 + 3] = 1;
        assert_eq!(transport(&v6), Some(Transport { routed: true, ..plain(UDP, 72).unwrap() }));
        v6[40 + 8 + 1] = 200;
        assert_eq!(transport(&v6), None);
        v6[6] = FRAGMENT;
        v6[40..48].copy_from_slice(&[HOP_BY_HOP, 0, 0x00, 0x19, 0, 0, 0, 7]);
        assert_eq!(transport(&v6), Some(Transport { fragment: Some(24), ..plain(HOP_BY_HOP, 48).unwrap() }));
    }
}
