//! Cuts one read from the TUN interface into the packets that go through the tunnel.
//!
//! The kernel hands over up to 64 KiB of one flow as one packet and leaves segmentation and checksums to us
//! (`TUNSETOFFLOAD`). The rules are those of its own `net/ipv4/af_inet.c` (`inet_gso_segment`),
//! `net/ipv4/tcp_offload.c` (`tcp_gso_segment`) and `net/ipv4/udp_offload.c` (`__udp_gso_segment`).
//!
//! No payload is copied, which is why this is our own code: `tun-rs` copies each segment into a buffer. A segment's
//! headers are written over the end of the payload before it, which has been consumed by then, so segments are borrowed
//! one by one.

use super::checksum::{double_word, finish, finish_nonzero, pseudo_header, sum, word};
use super::packet::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, IPV4_HEADER_LEN, IPV6_HEADER_LEN, TCP, TCP_HEADER_LEN,
    Transport, UDP, UDP_HEADER_LEN, VIRTIO_NET_HDR_F_NEEDS_CSUM, Version, VnetHeader, total_len, transport, u16_at,
    u32_at, version,
};

/// Bytes that must be free behind a packet, for the last segment's padding.
pub const SPARE: usize = 16;

/// Packets are padded to a multiple of this, as far as the MTU allows (`MESSAGE_PADDING_MULTIPLE` in the kernel's
/// `drivers/net/wireguard/messages.h`).
const PADDING_MULTIPLE: usize = 16;

/// The longest headers that are cut: IPv4 and TCP with all options are 120 bytes, IPv6 may have 92 bytes of extensions.
const HEADERS_MAX: usize = 192;

const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Why a read from the TUN interface cannot be cut into packets. It is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The caller's buffer ends too soon behind the packet.
    #[error("no room for padding behind the packet")]
    NoRoom,
    /// Neither an IPv4 nor an IPv6 header.
    #[error("not an IP packet")]
    NotIp,
    /// The lengths in the headers are not those of the packet.
    #[error("the headers' lengths disagree with what was read")]
    Length,
    /// The headers lead out of the packet, are longer than any that are cut, or hide the last destination.
    #[error("headers that cannot be repeated for each segment")]
    Headers,
    /// A fragment of a datagram, which has no transport header to repeat.
    #[error("a fragment with segmentation offload")]
    Fragment,
    /// The protocol in the IP header is not the offload's.
    #[error("segmentation offload {0} for another protocol")]
    Protocol(u8),
    /// The offload is none that we asked for.
    #[error("segmentation offload {0} is unknown")]
    GsoType(u8),
    /// Segments without payload.
    #[error("segmentation offload without a segment size or payload")]
    GsoSize,
    /// The checksum would stand outside the packet, or not where the protocol has it.
    #[error("a checksum to finish at {start} + {offset}, where none can be")]
    Checksum {
        /// Where the bytes under the checksum begin.
        start: u16,
        /// The offset of the checksum behind it.
        offset: u16,
    },
}

/// How many zeroes follow a packet of `len` bytes inside a message: up to a multiple of 16, but not past the MTU, so
/// that padding fragments nothing (the kernel's `calculate_skb_padding`). At most 15. An `mtu` of 0 is none.
#[inline]
pub const fn padding(len: usize, mtu: usize) -> usize {
    // A packet larger than the MTU is padded as its last part would be, as the kernel does it.
    let last = if mtu > 0 && len > mtu { len % mtu } else { len };
    let padded = last.next_multiple_of(PADDING_MULTIPLE);
    if mtu > 0 && padded > mtu { mtu - last } else { padded - last }
}

/// Cuts `packet[..packet_len]`, which followed `header` in one read, into packets padded for an interface of this
/// `mtu`.
///
/// `packet` has at least [`SPARE`] bytes more than `packet_len`.
#[inline]
pub fn split(header: VnetHeader, packet: &mut [u8], packet_len: usize, mtu: usize) -> Result<Segments<'_>, Malformed> {
    if packet.len() < packet_len.saturating_add(SPARE) {
        return Err(Malformed::NoRoom);
    }
    let bytes = &mut packet[..packet_len];
    let len = total_len(bytes).ok_or(Malformed::NotIp)?;
    if len > packet_len {
        return Err(Malformed::Length);
    }
    let template = match header.gso_type {
        GSO_NONE => {
            // No receiver would read what follows the IP packet.
            if header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
                finish_checksum(header, &mut bytes[..len])?;
            }
            None
        }
        _ if len < packet_len => return Err(Malformed::Length),
        _ => Some(Template::parse(header, bytes)?),
    };
    let (headers, gso_size) = template.as_ref().map_or((0, len), |template| (template.len, template.gso_size));
    Ok(Segments {
        packet,
        payload: len - headers,
        headers,
        gso_size,
        template,
        mtu,
        consumed: 0,
        unpadded: 0,
        displaced: None,
    })
}

/// Finishes the checksum of a packet that is whole (`skb_checksum_help` in `net/core/dev.c`): the field holds the sum
/// of the pseudo-header. A zero becomes 0xffff for every protocol, as there: for all but UDP the two mean the same.
fn finish_checksum(header: VnetHeader, packet: &mut [u8]) -> Result<(), Malformed> {
    let outside = Malformed::Checksum { start: header.csum_start, offset: header.csum_offset };
    let minimum = match version(packet) {
        Some(Version::V4) => IPV4_HEADER_LEN,
        _ => IPV6_HEADER_LEN,
    };
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if start < minimum || at + 2 > packet.len() {
        return Err(outside);
    }
    let checksum = finish_nonzero(sum(&packet[start..], 0));
    packet[at..at + 2].copy_from_slice(&checksum);
    Ok(())
}

/// The headers that all segments share, and the sums over what does not change in them.
#[derive(Debug)]
struct Template {
    /// The headers; what differs between segments is zero.
    bytes: [u8; HEADERS_MAX],
    len: usize,
    version: Version,
    /// Where the transport header begins.
    transport: usize,
    protocol: Protocol,
    gso_size: usize,
    /// The IPv4 header without total length and identification.
    ip_sum: u64,
    /// Pseudo-header and transport header without lengths, sequence number and flags.
    transport_sum: u64,
    /// The first segment's IPv4 identification.
    id: u16,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Tcp {
        /// The first segment's sequence number.
        seq: u32,
        flags: u8,
    },
    Udp,
}

impl Template {
    fn parse(header: VnetHeader, packet: &[u8]) -> Result<Self, Malformed> {
        let version = version(packet).ok_or(Malformed::NotIp)?;
        let (protocol, checksum_offset) = match (header.gso_type & !GSO_ECN, version) {
            (GSO_TCPV4, Version::V4) | (GSO_TCPV6, Version::V6) => (TCP, 16),
            (GSO_UDP_L4, _) if header.gso_type & GSO_ECN == 0 => (UDP, 6),
            (GSO_TCPV4 | GSO_TCPV6, _) => return Err(Malformed::Protocol(header.gso_type)),
            _ => return Err(Malformed::GsoType(header.gso_type)),
        };
        let Transport { protocol: found, offset, fragment, routed } = transport(packet).ok_or(Malformed::Headers)?;
        if fragment.is_some() {
            return Err(Malformed::Fragment);
        }
        if found != protocol {
            return Err(Malformed::Protocol(header.gso_type));
        }
        let place = (usize::from(header.csum_start), header.csum_offset);
        if header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 && place != (offset, checksum_offset) {
            return Err(Malformed::Checksum { start: header.csum_start, offset: header.csum_offset });
        }
        // Checksums are computed again, whatever the field holds; for that the last destination must be the header's.
        let transport_len = transport_len(protocol, &packet[offset..])?;
        let len = offset + transport_len;
        if routed || len > HEADERS_MAX {
            return Err(Malformed::Headers);
        }
        let gso_size = usize::from(header.gso_size);
        if gso_size == 0 || len == packet.len() {
            return Err(Malformed::GsoSize);
        }
        Ok(Self::new(version, protocol, offset, gso_size, &packet[..len]))
    }

    /// The lengths have been checked.
    fn new(version: Version, protocol: u8, transport: usize, gso_size: usize, headers: &[u8]) -> Self {
        let mut bytes = [0; HEADERS_MAX];
        bytes[..headers.len()].copy_from_slice(headers);
        let ip = &mut bytes[..transport];
        let (addresses, id) = match version {
            Version::V4 => {
                let id = u16_at(ip, 4);
                ip[2..6].fill(0);
                ip[10..12].fill(0);
                (12..20, id)
            }
            Version::V6 => {
                ip[4..6].fill(0);
                (8..40, 0)
            }
        };
        let ip_sum = if version == Version::V4 { sum(ip, 0) } else { 0 };
        let pseudo = pseudo_header(&ip[addresses], protocol, 0);
        let rest = &mut bytes[transport..headers.len()];
        let protocol = if protocol == TCP {
            let tcp = Protocol::Tcp { seq: u32_at(rest, 4), flags: rest[TCP_FLAGS] };
            rest[4..8].fill(0);
            rest[TCP_FLAGS] = 0;
            rest[16..18].fill(0);
            tcp
        } else {
            rest[4..8].fill(0);
            Protocol::Udp
        };
        let transport_sum = sum(rest, pseudo);
        Self { bytes, len: headers.len(), version, transport, protocol, gso_size, ip_sum, transport_sum, id }
    }

    /// Writes the headers of the segment that begins `consumed` bytes behind the first one's payload.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "lengths were checked against 16-bit fields; ids wrap")]
    fn write(&self, segment: &mut [u8], consumed: usize, is_last: bool) {
        let total = segment.len();
        let (headers, payload) = segment.split_at_mut(self.len);
        headers.copy_from_slice(&self.bytes[..self.len]);
        let (ip, transport) = headers.split_at_mut(self.transport);
        match self.version {
            Version::V4 => {
                let id = self.id.wrapping_add((consumed / self.gso_size) as u16);
                ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
                ip[4..6].copy_from_slice(&id.to_be_bytes());
                ip[10..12].copy_from_slice(&finish(self.ip_sum + word(total as u16) + word(id)));
            }
            Version::V6 => ip[4..6].copy_from_slice(&((total - IPV6_HEADER_LEN) as u16).to_be_bytes()),
        }
        let length = (total - self.transport) as u16;
        let common = sum(payload, self.transport_sum + word(length));
        match self.protocol {
            Protocol::Tcp { seq, flags } => {
                let seq = seq.wrapping_add(consumed as u32);
                // RFC 3168 section 6.1.2: CWR is set once. FIN and PSH apply to the last byte.
                let flags = flags & !(if consumed == 0 { 0 } else { CWR }) & !(if is_last { 0 } else { FIN | PSH });
                transport[4..8].copy_from_slice(&seq.to_be_bytes());
                transport[TCP_FLAGS] = flags;
                let checksum = finish(common + double_word(seq) + word(u16::from(flags)));
                transport[16..18].copy_from_slice(&checksum);
            }
            Protocol::Udp => {
                transport[4..6].copy_from_slice(&length.to_be_bytes());
                transport[6..8].copy_from_slice(&finish_nonzero(common + word(length)));
            }
        }
    }
}

/// The length of the transport header at the beginning of `bytes`.
fn transport_len(protocol: u8, bytes: &[u8]) -> Result<usize, Malformed> {
    if protocol == UDP {
        if bytes.len() < UDP_HEADER_LEN || usize::from(u16_at(bytes, 4)) != bytes.len() {
            return Err(Malformed::Length);
        }
        return Ok(UDP_HEADER_LEN);
    }
    if bytes.len() < TCP_HEADER_LEN {
        return Err(Malformed::Length);
    }
    let len = usize::from(bytes[12] >> 4) * 4;
    if len < TCP_HEADER_LEN || len > bytes.len() { Err(Malformed::Headers) } else { Ok(len) }
}

/// The packets of one read, borrowed one after the other.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: &'a mut [u8],
    /// `None` for a packet that is whole: then all of it counts as payload.
    template: Option<Template>,
    headers: usize,
    payload: usize,
    gso_size: usize,
    mtu: usize,
    /// Bytes of payload that have been consumed.
    consumed: usize,
    /// The length of the last segment without padding.
    unpadded: usize,
    /// The bytes that the last segment's padding replaced.
    displaced: Option<[u8; SPARE]>,
}

impl Segments<'_> {
    /// The next packet, complete and followed by its padding. It may be changed; the next call does not read it.
    #[inline]
    pub fn next_segment(&mut self) -> Option<&mut [u8]> {
        let start = self.consumed;
        if let Some(displaced) = self.displaced.take() {
            let end = self.headers + start;
            self.packet[end..end + SPARE].copy_from_slice(&displaced);
        }
        if start == self.payload {
            return None;
        }
        let payload = self.gso_size.min(self.payload - start);
        self.consumed = start + payload;
        self.unpadded = self.headers + payload;
        let end = start + self.unpadded;
        if let Some(template) = &self.template {
            template.write(&mut self.packet[start..end], start, self.consumed == self.payload);
        }
        let padding = padding(self.unpadded, self.mtu);
        let behind = &mut self.packet[end..end + SPARE];
        let mut displaced = [0; SPARE];
        displaced.copy_from_slice(behind);
        // Clears the first bytes, at most 15, without a loop.
        let cleared = u128::from_le_bytes(displaced) & (u128::MAX << (padding * 8));
        behind.copy_from_slice(&cleared.to_le_bytes());
        self.displaced = Some(displaced);
        Some(&mut self.packet[start..end + padding])
    }

    /// The length of the packet that [`Segments::next_segment`] gave last, without its padding.
    #[inline]
    pub const fn unpadded_len(&self) -> usize {
        self.unpadded
    }

    /// How many packets there are in all, at least one.
    #[inline]
    pub const fn count(&self) -> usize {
        self.payload.div_ceil(self.gso_size)
    }

    /// The length of the largest of them, without padding.
    #[inline]
    pub fn segment_len(&self) -> usize {
        self.headers + self.gso_size.min(self.payload)
    }
}

#[cfg(test)]
mod tests;
