//! Explicit congestion notification across the tunnel (RFC 6040): a mark that a router on the way sets on the outer
//! packet reaches the inner one. The DSCP is never copied: it would reveal the kind of traffic to the outside.

use super::checksum::update;
use super::packet::{Version, traffic_class, u16_at, version};

const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// Whether a packet from the tunnel is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is delivered, perhaps with a new mark.
    Accept,
    /// It met congestion and cannot carry the mark: dropping it is the only signal that its sender understands.
    Drop,
}

/// The outer traffic class for an inner one: RFC 6040's normal mode, figure 3.
#[inline]
pub const fn encapsulate(inner: u8) -> u8 {
    inner & MASK
}

/// Combines the marks of a decrypted packet and of its `outer` traffic class: RFC 6040, figure 4. Bytes that are no IP
/// packet are accepted unchanged.
///
/// The kernel's WireGuard delivers a packet that is dropped here, because it ignores the result of
/// `INET_ECN_decapsulate`; the RFC requires the drop.
#[inline]
pub fn decapsulate(packet: &mut [u8], outer: u8) -> Verdict {
    let inner = traffic_class(packet) & MASK;
    let mark = match (inner, outer & MASK) {
        (NOT_ECT, CE) => return Verdict::Drop,
        (ECT_0 | ECT_1, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        _ => return Verdict::Accept,
    };
    match version(packet) {
        Some(Version::V4) => {
            let old = u16_at(packet, 0);
            packet[1] = packet[1] & !MASK | mark;
            let checksum = update([packet[10], packet[11]], old, u16_at(packet, 0));
            packet[10..12].copy_from_slice(&checksum);
        }
        Some(Version::V6) => packet[1] = packet[1] & !(MASK << 4) | (mark << 4),
        None => (),
    }
    Verdict::Accept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::sample::{Flow, Sample};

    #[test]
    fn the_outer_mark_is_the_inner_one_without_dscp() {
        for inner in 0..=255 {
            assert_eq!(encapsulate(inner), inner % 4);
        }
    }

    #[test]
    fn marks_combine_as_in_figure_4() {
        // Rows are inner, columns outer: Not-ECT, ECT(0), ECT(1), CE.
        let order = [NOT_ECT, ECT_0, ECT_1, CE];
        let figure = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for flow in [Flow::v4(1), Flow::v6(1)] {
            for (inner, row) in order.into_iter().zip(figure) {
                for (outer, expected) in order.into_iter().zip(row) {
                    let sample = |tos| Sample { tos, ..Sample::udp(flow) };
                    let mut packet = sample(0xb8 | inner).bytes();
                    let verdict = decapsulate(&mut packet, 0x48 | outer);
                    let after = sample(0xb8 | expected.unwrap_or(inner)).bytes();
                    let expected = if expected.is_none() { Verdict::Drop } else { Verdict::Accept };
                    assert_eq!((verdict, packet), (expected, after), "inner {inner:02b} outer {outer:02b}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_header_checksum_stays_wrong() {
        let sample = Sample { tos: ECT_0, ..Sample::tcp(Flow::v4(1)) };
        let mut packet = sample.bytes();
        packet[10] ^= 0x55;
        assert_eq!(decapsulate(&mut packet, CE), Verdict::Accept);
        assert_ne!(packet[10..12], Sample { tos: CE, ..sample }.bytes()[10..12]);
        assert_eq!(packet[1], CE);
    }

    #[test]
    fn bytes_that_are_no_ip_packet_stay_unchanged() {
        for packet in [&mut [][..], &mut [0x45, 0x02], &mut [0x60, 0x20]] {
            let before = packet.to_vec();
            assert_eq!(decapsulate(packet, ECT_1), Verdict::Accept);
            assert_eq!(packet, before);
        }
    }
}
