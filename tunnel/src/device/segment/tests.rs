use proptest::prelude::*;

use super::*;
use crate::device::sample::{ACK, ECE, Flow, Sample, naive_checksum, split_naively, super_packet};

/// All segments, each checked to be followed by zeroes only.
fn cut(header: VnetHeader, packet: &[u8], mtu: usize) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut buffer = packet.to_vec();
    buffer.extend([0xee; SPARE]);
    let mut segments = split(header, &mut buffer, packet.len(), mtu)?;
    let (count, largest) = (segments.count(), segments.segment_len());
    let mut all = Vec::new();
    while let Some(segment) = segments.next_segment() {
        let padded = segment.to_vec();
        segment.fill(0xdd); // Sealing may write over it.
        let len = segments.unpadded_len();
        assert_eq!(padded[len..], vec![0; padding(len, mtu)]);
        all.push(padded[..len].to_vec());
    }
    assert_eq!((all.len(), all.iter().map(Vec::len).max()), (count, Some(largest)));
    Ok(all)
}

fn samples() -> [Sample; 4] {
    [Sample::tcp(Flow::v4(1)), Sample::tcp(Flow::v6(1)), Sample::udp(Flow::v4(1)), Sample::udp(Flow::v6(1))]
}

#[test]
fn a_packet_without_offload_stays_unchanged() {
    for sample in samples() {
        let packet = sample.bytes();
        assert_eq!(cut(VnetHeader::default(), &packet, 1420), Ok(vec![packet]));
    }
}

#[test]
fn bytes_behind_the_ip_packet_are_cut_off() {
    let packet = Sample::udp(Flow::v4(1)).bytes();
    let longer = [packet.clone(), vec![1, 2, 3]].concat();
    assert_eq!(cut(VnetHeader::default(), &longer, 1420), Ok(vec![packet]));
}

#[test]
fn an_unfinished_checksum_is_finished() {
    for sample in samples() {
        let (header, packet) = sample.offloaded(0);
        let header = VnetHeader { gso_type: GSO_NONE, ..header };
        assert_eq!(cut(header, &packet, 1420), Ok(vec![sample.bytes()]));
    }
}

#[test]
fn a_finished_udp_checksum_is_never_zero() {
    let sample = Sample::udp(Flow::v4(1)).with_payload(2).with_zero_checksum();
    for gso_type in [GSO_NONE, GSO_UDP_L4] {
        let (header, packet) = sample.offloaded(2);
        let segments = cut(VnetHeader { gso_type, ..header }, &packet, 1420).unwrap();
        assert_eq!(segments, [sample.bytes()]);
        assert_eq!(segments[0][26..28], [0xff, 0xff]);
    }
}

#[test]
fn tcp_flags_are_set_on_the_right_segments() {
    let flags = ACK | FIN | PSH | CWR | ECE;
    for flow in [Flow::v4(1), Flow::v6(1)] {
        let sample = Sample { flags, ..Sample::tcp(flow) }.with_payload(2500);
        let (header, packet) = sample.offloaded(1000);
        let segments: Vec<_> = cut(header, &packet, 1420).unwrap().iter().map(|one| Sample::parse(one)).collect();
        let fields: Vec<_> = segments.iter().map(|one| (one.flags, one.seq - sample.seq, one.payload.len())).collect();
        assert_eq!(fields, [(ACK | CWR | ECE, 0, 1000), (ACK | ECE, 1000, 1000), (ACK | ECE | FIN | PSH, 2000, 500)]);
    }
}

#[test]
fn identifications_and_sequence_numbers_wrap() {
    let sample = Sample { id: 0xffff, seq: u32::MAX - 99, ..Sample::tcp(Flow::v4(1)) }.with_payload(300);
    let (header, packet) = sample.offloaded(100);
    let segments: Vec<_> = cut(header, &packet, 1420).unwrap().iter().map(|one| Sample::parse(one)).collect();
    let fields: Vec<_> = segments.iter().map(|one| (one.id, one.seq)).collect();
    assert_eq!(fields, [(0xffff, u32::MAX - 99), (0, 0), (1, 100)]);
}

#[test]
fn checksums_are_computed_even_if_the_kernel_left_none_to_finish() {
    for sample in samples() {
        let sample = sample.with_payload(2500);
        let (header, packet) = sample.offloaded(1200);
        let bare = VnetHeader { flags: 0, csum_start: 0, csum_offset: 0, ..header };
        assert_eq!(cut(bare, &packet, 1420), Ok(split_naively(header, &packet)));
    }
}

#[test]
fn extension_headers_are_repeated() {
    let (header, plain) = Sample::udp(Flow::v6(1)).with_payload(250).offloaded(100);
    let header = VnetHeader { csum_start: 48, ..header };
    let extend = |plain: &[u8]| {
        let mut packet = [&plain[..40], &[UDP, 0, 1, 4, 0, 0, 0, 0], &plain[40..]].concat();
        packet[6] = 0;
        let payload_len = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        packet
    };
    let expected: Vec<_> =
        split_naively(VnetHeader { csum_start: 40, ..header }, &plain).iter().map(|one| extend(one)).collect();
    assert_eq!(cut(header, &extend(&plain), 1420), Ok(expected));
}

#[test]
fn headers_that_no_segment_could_repeat_are_an_error() {
    let extended = |extension: &[u8]| {
        let (header, plain) = Sample::udp(Flow::v6(1)).with_payload(250).offloaded(100);
        let mut packet = [&plain[..40], extension, &plain[40..]].concat();
        packet[6] = if extension[2] == 0 { 43 } else { 60 };
        let payload_len = u16::try_from(packet.len() - 40).unwrap();
        packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
        let csum_start = header.csum_start + u16::try_from(extension.len()).unwrap();
        cut(VnetHeader { csum_start, ..header }, &packet, 1420).map(|segments| segments.len())
    };
    // A routing header that still leads elsewhere: the pseudo-header has an address that is not in place.
    assert_eq!(extended(&[UDP, 0, 0, 1, 0, 0, 0, 0]), Err(Malformed::Headers));
    assert_eq!(extended(&[UDP, 0, 0, 0, 0, 0, 0, 0]), Ok(3));
    // 40 bytes of IPv6 and 8 of UDP leave room for 144.
    let options = |len: u8| [&[UDP, len / 8 - 1, 1, len - 4][..], &vec![0; usize::from(len) - 4]].concat();
    assert_eq!(extended(&options(144)), Ok(3));
    assert_eq!(extended(&options(152)), Err(Malformed::Headers));
}

#[test]
fn padding_is_that_of_the_kernel() {
    // (length, MTU) and the padded length: drivers/net/wireguard/send.c, calculate_skb_padding.
    let table = [
        ((0, 1420), 0),
        ((1, 1420), 16),
        ((16, 1420), 16),
        ((1408, 1420), 1408),
        ((1409, 1420), 1420),
        ((1420, 1420), 1420),
        // Two bytes of a last part are padded to 16.
        ((1422, 1420), 1436),
        ((2840, 1420), 2840),
        ((2839, 1420), 2840),
        ((1421, 0), 1424),
        ((5, 3), 6),
    ];
    for ((len, mtu), padded) in table {
        assert_eq!(len + padding(len, mtu), padded, "{len} of {mtu}");
    }
}

#[test]
fn a_packet_that_cannot_be_cut_is_an_error() {
    let (tcp, packet) = Sample::tcp(Flow::v4(1)).with_payload(300).offloaded(100);
    let (udp, datagram) = Sample::udp(Flow::v6(1)).with_payload(300).offloaded(100);
    let checksum = |start, offset| Malformed::Checksum { start, offset };
    let headers = [
        (VnetHeader { gso_size: 0, ..tcp }, Malformed::GsoSize),
        (VnetHeader { gso_type: GSO_TCPV6, ..tcp }, Malformed::Protocol(GSO_TCPV6)),
        (VnetHeader { gso_type: GSO_UDP_L4, csum_offset: 6, ..tcp }, Malformed::Protocol(GSO_UDP_L4)),
        (VnetHeader { gso_type: GSO_UDP_L4 | GSO_ECN, ..tcp }, Malformed::GsoType(GSO_UDP_L4 | GSO_ECN)),
        (VnetHeader { gso_type: 3, ..tcp }, Malformed::GsoType(3)),
        (VnetHeader { gso_type: GSO_ECN, ..tcp }, Malformed::GsoType(GSO_ECN)),
        (VnetHeader { csum_start: 24, ..tcp }, checksum(24, 16)),
        (VnetHeader { csum_offset: 6, ..tcp }, checksum(20, 6)),
        (VnetHeader { gso_type: GSO_NONE, csum_start: 12, ..tcp }, checksum(12, 16)),
        (VnetHeader { gso_type: GSO_NONE, csum_start: 350, ..tcp }, checksum(350, 16)),
        (VnetHeader { gso_type: GSO_NONE, csum_start: 65535, csum_offset: 65535, ..tcp }, checksum(65535, 65535)),
    ];
    for (header, expected) in headers {
        assert_eq!(cut(header, &packet, 1420), Err(expected), "{header:?}");
    }
    let with = |packet: &[u8], at: usize, bytes: &[u8]| {
        let mut changed = packet.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let headers_only = Sample::tcp(Flow::v4(1)).with_payload(0).offloaded(100).1;
    let packets = [
        (tcp, with(&packet, 0, &[0x55]), Malformed::NotIp),
        (tcp, with(&packet, 0, &[0x44]), Malformed::NotIp),
        (tcp, Vec::new(), Malformed::NotIp),
        (tcp, with(&packet, 2, &[0xff, 0xff]), Malformed::Length),
        (tcp, with(&packet, 2, &[0, 60]), Malformed::Length),
        (tcp, with(&packet, 6, &[0x20, 0]), Malformed::Fragment),
        (tcp, with(&packet, 6, &[0, 9]), Malformed::Fragment),
        (tcp, with(&packet, 9, &[UDP]), Malformed::Protocol(GSO_TCPV4)),
        (tcp, with(&packet, 32, &[0x40]), Malformed::Headers),
        (tcp, with(&packet[..60], 2, &[0, 60, 0, 0]), Malformed::Headers),
        (tcp, headers_only, Malformed::GsoSize),
        (udp, with(&datagram, 44, &[0, 9]), Malformed::Length),
        (udp, with(&datagram, 6, &[44]), Malformed::Fragment),
    ];
    for (header, mut packet, expected) in packets {
        if expected == Malformed::Headers && packet.len() == 60 {
            packet[32] = 0xf0;
        }
        assert_eq!(cut(header, &packet, 1420), Err(expected), "{packet:02x?}");
    }
    let mut buffer = [packet.clone(), vec![0; SPARE - 1]].concat();
    assert_eq!(split(tcp, &mut buffer, packet.len(), 1420).unwrap_err(), Malformed::NoRoom);
    assert_eq!(split(tcp, &mut buffer, usize::MAX, 1420).unwrap_err(), Malformed::NoRoom);
}

proptest! {
    #[test]
    fn segments_are_those_of_the_slow_splitter((sample, gso_size) in super_packet(), mtu in 0..2000_usize) {
        let (header, packet) = sample.offloaded(gso_size);
        prop_assert_eq!(cut(header, &packet, mtu), Ok(split_naively(header, &packet)));
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_comes_out_is_an_ip_packet(
        fields in any::<(u8, u8, u16, u16, u16)>(),
        (sample, gso_size) in super_packet(),
        changes in proptest::collection::vec((0..100_usize, any::<u8>()), 0..6),
        len in any::<usize>(),
        is_near in any::<bool>(),
    ) {
        let (near, mut packet) = sample.offloaded(gso_size);
        let (flags, gso_type, gso_size, csum_start, csum_offset) = fields;
        let far = VnetHeader { flags, gso_type, hdr_len: 0, gso_size: gso_size | 7, csum_start, csum_offset };
        for (at, byte) in changes {
            let at = at % packet.len();
            packet[at] = byte;
        }
        if !is_near {
            packet.truncate(len % packet.len());
        }
        for segment in cut(if is_near { near } else { far }, &packet, 1420).unwrap_or_default() {
            prop_assert_eq!(total_len(&segment), Some(segment.len()));
        }
    }
}

#[test]
fn the_slow_checksum_of_an_example_is_that_of_rfc_1071() {
    // Section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2.
    assert_eq!(naive_checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
}
