//! Which packets may be joined: the rules of `include/net/gro.h` (`gro_receive_network_flush`),
//! `net/ipv4/tcp_offload.c` (`tcp_gro_receive`) and `net/ipv4/udp_offload.c` (`udp_gro_receive_segment`) of Linux 6.18.

use super::Offloads;
use crate::device::checksum::{finish, fold, is_valid, pseudo_header, sum, word};
use crate::device::packet::{
    GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, IPV4_HEADER_LEN, IPV6_HEADER_LEN, TCP, TCP_HEADER_LEN, UDP, UDP_HEADER_LEN,
    VIRTIO_NET_HDR_F_NEEDS_CSUM, Version, VnetHeader, total_len, u16_at, u32_at, version,
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;
/// The offset of TCP's flags.
const TCP_FLAGS: usize = 13;
/// What may differ between segments of a group: FIN and PSH, in the word of data offset, flags and window.
const TCP_WORD_MASK: u32 = !0x0009_0000;

/// How a packet may be joined.
#[derive(Debug)]
pub(super) enum Class {
    /// It may begin or continue a group.
    Candidate(Candidate),
    /// It stays alone, and later packets of its flow do not join earlier ones.
    OfFlow(u64),
    /// The same for all flows between its hosts: a fragment or a packet with options may belong to any of them.
    BetweenHosts(u64),
    /// It stays alone and concerns no group.
    Foreign,
}

/// A packet that may be joined: a whole TCP segment or UDP datagram with payload, without IP options.
#[derive(Debug)]
pub(super) struct Candidate {
    /// A hash of addresses, protocol and ports.
    pub(super) flow: u64,
    /// A hash of the addresses.
    pub(super) hosts: u64,
    version: Version,
    is_tcp: bool,
    /// The length of all headers.
    pub(super) headers: usize,
    /// The length of the payload, never 0.
    pub(super) payload: usize,
    /// FIN and PSH as they are set; for UDP 0.
    pub(super) end_flags: u8,
}

/// Reads the headers. `packet` is all that was sent: more or less than its headers say is joined with nothing.
#[inline]
pub(super) fn classify(packet: &[u8], offloads: Offloads) -> Class {
    let Some(version) = version(packet) else { return Class::Foreign };
    let (transport, protocol, is_plain) = match version {
        // No options; of flags and fragment offset nothing but DF.
        Version::V4 => (IPV4_HEADER_LEN, packet[9], packet[0] == 0x45 && u16_at(packet, 6) & 0xbfff == 0),
        Version::V6 => (IPV6_HEADER_LEN, packet[6], true),
    };
    let hosts = hash(&packet[addresses(version)]);
    if !is_plain || total_len(packet) != Some(packet.len()) {
        return Class::BetweenHosts(hosts);
    }
    let shortest = match protocol {
        TCP if offloads.tcp => TCP_HEADER_LEN,
        UDP if offloads.udp => UDP_HEADER_LEN,
        TCP | UDP => return Class::Foreign,
        _ => return Class::BetweenHosts(hosts),
    };
    let Some(segment) = packet.get(transport..).filter(|segment| segment.len() >= shortest) else {
        return Class::BetweenHosts(hosts);
    };
    let ports = u64::from(u32_at(segment, 0)) | (u64::from(protocol) << 32);
    let flow = (hosts.rotate_left(29) ^ ports).wrapping_mul(MULTIPLIER);
    let is_tcp = protocol == TCP;
    let (length, end_flags) = if is_tcp {
        // Without ACK, or with what a receiver must see for itself, a segment is no part of a stream in full flight.
        // CWR counts packets with accurate ECN (RFC 9768), so it must not be stretched over several.
        if segment[TCP_FLAGS] & (ACK | SYN | RST | URG | CWR) != ACK {
            return Class::OfFlow(flow);
        }
        (usize::from(segment[12] >> 4) * 4, segment[TCP_FLAGS] & (FIN | PSH))
    } else {
        // Without a checksum there would be one after the cut.
        if usize::from(u16_at(segment, 4)) != segment.len() || u16_at(segment, 6) == 0 {
            return Class::OfFlow(flow);
        }
        (UDP_HEADER_LEN, 0)
    };
    if length < shortest || length >= segment.len() {
        return Class::OfFlow(flow);
    }
    let headers = transport + length;
    Class::Candidate(Candidate { flow, hosts, version, is_tcp, headers, payload: packet.len() - headers, end_flags })
}

/// An odd number whose bits are those of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Good enough to distinguish a few flows. Two flows with one hash only end each other's groups.
#[inline]
fn hash(addresses: &[u8]) -> u64 {
    addresses.chunks_exact(8).fold(0, |hash, bytes| {
        let word = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        (hash.rotate_left(29) ^ word).wrapping_mul(MULTIPLIER)
    })
}

/// The range of source and destination. The transport header follows, since there are no options.
#[inline]
const fn addresses(version: Version) -> std::ops::Range<usize> {
    match version {
        Version::V4 => 12..IPV4_HEADER_LEN,
        Version::V6 => 8..IPV6_HEADER_LEN,
    }
}

impl Candidate {
    #[inline]
    const fn transport(&self) -> usize {
        match self.version {
            Version::V4 => IPV4_HEADER_LEN,
            Version::V6 => IPV6_HEADER_LEN,
        }
    }

    /// Whether a group ends with this packet, however long its payload is.
    #[inline]
    pub(super) const fn ends_group(&self) -> bool {
        self.end_flags != 0
    }

    /// Whether `packet` follows a group that begins with `first` and holds `payload` bytes: the same flow and headers,
    /// the next byte of the stream. Lengths, identification and checksums are apart from this.
    #[inline]
    pub(super) fn is_continued(&self, first: &[u8], next: &Self, packet: &[u8], payload: usize) -> bool {
        if (self.version, self.is_tcp, self.headers) != (next.version, next.is_tcp, next.headers) {
            return false;
        }
        let (first, packet) = (&first[..self.headers], &packet[..self.headers]);
        let same = |range: std::ops::Range<usize>| first[range.clone()] == packet[range];
        let ip = match self.version {
            // TOS; flags; time to live and protocol.
            Version::V4 => same(1..2) && same(6..8) && same(8..10),
            // Traffic class and flow label; next header and hop limit.
            Version::V6 => same(0..4) && same(6..8),
        };
        if !ip || !same(addresses(self.version)) {
            return false;
        }
        let (first, packet) = (&first[self.transport()..], &packet[self.transport()..]);
        if u32_at(first, 0) != u32_at(packet, 0) {
            return false;
        }
        if !self.is_tcp {
            return true;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most 65535")]
        let seq = u32_at(first, 4).wrapping_add(payload as u32);
        seq == u32_at(packet, 4)
            && u32_at(first, 8) == u32_at(packet, 8)
            && (u32_at(first, 12) ^ u32_at(packet, 12)) & TCP_WORD_MASK == 0
            // The urgent pointer means nothing without URG, but must come out as it went in.
            && first[18..] == packet[18..]
    }

    /// Whether the identification may stay the same throughout the group: it means nothing with DF.
    #[inline]
    pub(super) fn has_same_id(&self, first: &[u8], packet: &[u8]) -> bool {
        self.version == Version::V4 && first[6] & 0x40 != 0 && u16_at(first, 4) == u16_at(packet, 4)
    }

    /// Whether the identification is `steps` behind the first packet's, as the kernel's cut will count it.
    #[inline]
    pub(super) fn has_id_at(&self, first: &[u8], packet: &[u8], steps: usize) -> bool {
        self.version == Version::V6 || usize::from(u16_at(packet, 4).wrapping_sub(u16_at(first, 4))) == steps
    }

    /// Whether all checksums are right. What is joined gets new ones, which must not hide a wrong one.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the length was compared with a 16-bit field")]
    pub(super) fn is_intact(&self, packet: &[u8]) -> bool {
        if self.version == Version::V4 && !is_valid(sum(&packet[..IPV4_HEADER_LEN], 0)) {
            return false;
        }
        // The addresses of the pseudo-header are in place before the transport header.
        let length = (packet.len() - self.transport()) as u16;
        is_valid(sum(&packet[addresses(self.version).start..], word(length) + word(self.protocol().into())))
    }

    #[inline]
    const fn protocol(&self) -> u8 {
        if self.is_tcp { TCP } else { UDP }
    }

    /// Rewrites the headers of the first packet for the joined packet of `len` bytes; how to cut it again. The checksum
    /// has to be finished, as for `CHECKSUM_PARTIAL` in the kernel.
    #[expect(clippy::cast_possible_truncation, reason = "a group has at most 65535 bytes")]
    pub(super) fn join_headers(&self, packet: &mut [u8], len: usize, end_flags: u8) -> VnetHeader {
        let (ip, segment) = packet.split_at_mut(self.transport());
        let length = (len - ip.len()) as u16;
        match self.version {
            Version::V4 => {
                ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
                ip[10..12].fill(0);
                let checksum = finish(sum(ip, 0));
                ip[10..12].copy_from_slice(&checksum);
            }
            Version::V6 => ip[4..6].copy_from_slice(&length.to_be_bytes()),
        }
        let partial = fold(pseudo_header(&ip[addresses(self.version)], self.protocol(), length.into()));
        let csum_offset = if self.is_tcp {
            segment[TCP_FLAGS] |= end_flags;
            16
        } else {
            segment[4..6].copy_from_slice(&length.to_be_bytes());
            6
        };
        segment[csum_offset..csum_offset + 2].copy_from_slice(&partial);
        VnetHeader {
            flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
            gso_type: match (self.is_tcp, self.version) {
                (true, Version::V4) => GSO_TCPV4,
                (true, Version::V6) => GSO_TCPV6,
                (false, _) => GSO_UDP_L4,
            },
            hdr_len: self.headers as u16,
            gso_size: self.payload as u16,
            csum_start: ip.len() as u16,
            csum_offset: csum_offset as u16,
        }
    }
}
