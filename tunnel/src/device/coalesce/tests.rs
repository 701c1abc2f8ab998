use super::*;
use crate::device::checksum::update;
use crate::device::sample::{ACK, CWR, ECE, FIN, Flow, PSH, RST, SYN, Sample, URG, counting, split_naively};

mod inverse;

const ALL: Offloads = Offloads { tcp: true, udp: true };

/// What is written for these packets: header and bytes of each write.
fn write(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut arena = Vec::new();
    for packet in packets {
        arena.extend([0xee; 3]);
        arena.extend(packet);
    }
    let mut end = 0;
    for packet in packets {
        let start = end + 3;
        end = start + packet.len();
        coalescer.add(&arena, start..end);
    }
    let mut written = Vec::new();
    let result: Result<(), ()> = coalescer.flush(&mut arena, |slices| {
        let bytes: Vec<u8> = slices[1..].iter().flat_map(|slice| slice.to_vec()).collect();
        written.push((VnetHeader::parse(&slices[0]).unwrap(), bytes));
        assert_eq!(slices[0].len(), 10);
        Ok(())
    });
    assert_eq!(result, Ok(()));
    assert!(coalescer.is_empty());
    written
}

/// How many packets each write carries, after a check that cutting them again gives what came in.
fn counts(packets: &[Vec<u8>]) -> Vec<usize> {
    let written = write(&mut Coalescer::new(ALL), packets);
    let cut: Vec<_> = written.iter().map(|(header, bytes)| split_naively(*header, bytes)).collect();
    assert_eq!(cut.concat(), packets);
    cut.iter().map(Vec::len).collect()
}

/// The packet that follows in the stream.
fn after(sample: &Sample) -> Sample {
    let len = sample.payload.len();
    Sample {
        id: sample.id.wrapping_add(1),
        seq: sample.seq.wrapping_add(u32::try_from(len).unwrap()),
        payload: counting(len, 7),
        ..sample.clone()
    }
}

fn firsts() -> [Sample; 4] {
    [Sample::tcp(Flow::v4(1)), Sample::tcp(Flow::v6(1)), Sample::udp(Flow::v4(1)), Sample::udp(Flow::v6(1))]
}

#[test]
fn consecutive_packets_become_one() {
    for first in firsts() {
        let second = after(&first);
        let third = after(&second);
        let packets = [&first, &second, &third].map(Sample::bytes);
        let payload = [first.payload.clone(), second.payload, third.payload].concat();
        let whole = Sample { payload, ..first }.offloaded(100);
        assert_eq!(write(&mut Coalescer::new(ALL), &packets), [whole]);
    }
}

#[test]
fn a_single_packet_is_written_unchanged() {
    for first in firsts() {
        let mut packet = first.bytes();
        *packet.last_mut().unwrap() ^= 1;
        assert_eq!(write(&mut Coalescer::new(ALL), &[packet.clone()]), [(VnetHeader::default(), packet)]);
    }
}

#[test]
fn packets_without_a_matching_offload_are_not_joined() {
    for (first, offloads) in firsts().iter().zip([(false, true), (false, true), (true, false), (true, false)]) {
        let packets = [first.bytes(), after(first).bytes()];
        let alone = packets.clone().map(|packet| (VnetHeader::default(), packet));
        let offloads = Offloads { tcp: offloads.0, udp: offloads.1 };
        assert_eq!(write(&mut Coalescer::new(offloads), &packets), alone);
    }
}

/// How a second packet differs from the one that would continue the first.
type Change = fn(&mut Sample);

#[test]
fn a_second_packet_joins_only_if_nothing_else_differs() {
    let both: [(&str, Change); 6] = [
        ("traffic class", |second| second.tos = 4),
        ("ECN mark", |second| second.tos = 3),
        ("time to live", |second| second.ttl = 63),
        ("source port", |second| second.flow.ports.0 += 1),
        ("destination port", |second| second.flow.ports.1 += 1),
        ("longer payload", |second| second.payload.push(0)),
    ];
    let v4: [(&str, Change); 5] = [
        ("source", |second| second.flow.source = "10.1.0.2".parse().unwrap()),
        ("destination", |second| second.flow.destination = "10.2.0.2".parse().unwrap()),
        ("DF", |second| second.df = false),
        ("identification", |second| second.id += 1),
        ("IP options", |second| second.ip_options = vec![1; 4]),
    ];
    let v6: [(&str, Change); 3] = [
        ("source", |second| second.flow.source = "fd00:1::2".parse().unwrap()),
        ("destination", |second| second.flow.destination = "fd00:2::2".parse().unwrap()),
        ("flow label", |second| second.flow_label = 5),
    ];
    let tcp: [(&str, Change); 10] = [
        ("a hole", |second| second.seq += 1),
        ("a repetition", |second| second.seq -= 1),
        ("acknowledgement", |second| second.ack += 1),
        ("window", |second| second.window += 1),
        ("option", |second| second.tcp_options[11] = 9),
        ("length of options", |second| second.tcp_options = vec![1; 8]),
        ("ECE", |second| second.flags |= ECE),
        ("CWR", |second| second.flags |= CWR),
        ("no ACK", |second| second.flags = 0),
        ("no payload", |second| second.payload.clear()),
    ];
    for first in firsts() {
        let is_v4 = first.flow.source.is_ipv4();
        let changes = both.iter().chain(if is_v4 { &v4[..] } else { &v6 });
        let changes = changes.chain(if first.protocol == 6 { &tcp[..] } else { &[] });
        for (what, change) in changes {
            let mut second = after(&first);
            change(&mut second);
            assert_eq!(counts(&[first.bytes(), second.bytes()]), [1, 1], "{what} of {}", first.flow.source);
        }
        assert_eq!(counts(&[first.bytes(), after(&first).bytes()]), [2]);
    }
}

#[test]
fn syn_rst_urg_and_cwr_never_join_a_group() {
    for flag in [SYN, RST, URG, CWR] {
        let plain = Sample::tcp(Flow::v4(1));
        let flagged = Sample { flags: ACK | flag, ..plain.clone() };
        assert_eq!(counts(&[plain.bytes(), Sample { flags: ACK | flag, ..after(&plain) }.bytes()]), [1, 1]);
        assert_eq!(counts(&[flagged.bytes(), after(&flagged).bytes()]), [1, 1]);
    }
}

#[test]
fn push_and_fin_end_a_group_and_are_kept() {
    for flags in [PSH, FIN, PSH | FIN] {
        let first = Sample::tcp(Flow::v6(1));
        let second = Sample { flags: ACK | flags, ..after(&first) };
        let third = Sample { flags: ACK, ..after(&second) };
        let fourth = after(&third);
        let packets = [&first, &second, &third, &fourth].map(Sample::bytes);
        assert_eq!(counts(&packets), [2, 2]);
        assert_eq!(counts(&packets[1..]), [1, 2]);
    }
}

#[test]
fn a_shorter_packet_ends_a_group() {
    for first in firsts() {
        let second = Sample { payload: counting(99, 0), ..after(&first) };
        let third = after(&second);
        let fourth = after(&third);
        assert_eq!(counts(&[&first, &second, &third, &fourth].map(Sample::bytes)), [2, 2]);
    }
}

#[test]
fn identifications_count_or_stay_equal_where_they_have_no_meaning() {
    let group = |df, ids: [u16; 3]| {
        let first = Sample { df, id: ids[0], ..Sample::tcp(Flow::v4(1)) };
        let second = Sample { id: ids[1], ..after(&first) };
        let third = Sample { id: ids[2], ..after(&second) };
        write(&mut Coalescer::new(ALL), &[&first, &second, &third].map(Sample::bytes)).len()
    };
    assert_eq!(group(false, [7, 8, 9]), 1);
    assert_eq!(group(true, [0xffff, 0, 1]), 1);
    assert_eq!(group(true, [7, 7, 7]), 1);
    assert_eq!(group(false, [7, 7, 7]), 3);
    assert_eq!(group(true, [7, 7, 8]), 2);
    assert_eq!(group(true, [7, 8, 8]), 2);
    assert_eq!(group(true, [7, 9, 10]), 2);
}

#[test]
fn a_bad_checksum_is_never_merged() {
    for first in firsts() {
        let second = after(&first);
        let third = after(&second);
        let good = [&first, &second, &third].map(Sample::bytes);
        let is_v4 = first.flow.source.is_ipv4();
        let transport = if is_v4 { 20 } else { 40 };
        let checksum = transport + if first.protocol == 6 { 16 } else { 6 };
        for at in [good[0].len() - 1, checksum].into_iter().chain(is_v4.then_some(10)) {
            for (bad, expected) in [(0, &[1, 2][..]), (1, &[1, 1, 1]), (2, &[2, 1])] {
                let mut packets = good.clone();
                packets[bad][at] ^= 0x40;
                let written = write(&mut Coalescer::new(ALL), &packets);
                let cut: Vec<_> = written.iter().map(|(header, bytes)| split_naively(*header, bytes)).collect();
                assert_eq!(cut.concat(), packets);
                let counts: Vec<_> = cut.iter().map(Vec::len).collect();
                assert_eq!(counts, expected, "byte {at} of packet {bad}");
            }
        }
    }
}

#[test]
fn a_datagram_without_checksum_is_never_merged() {
    // The sum over a zero for no checksum happens to look right.
    let first = Sample::udp(Flow::v4(1)).with_zero_checksum();
    let without = |sample: &Sample| {
        let mut packet = sample.clone().with_zero_checksum().bytes();
        assert_eq!(packet[26..28], [0xff, 0xff]);
        packet[26..28].fill(0);
        packet
    };
    assert_eq!(counts(&[without(&first), without(&after(&first))]), [1, 1]);
    assert_eq!(counts(&[first.bytes(), without(&after(&first))]), [1, 1]);
}

#[test]
fn fragments_and_packets_of_false_length_are_never_merged() {
    let first = Sample::udp(Flow::v4(1));
    let mut fragments = [first.bytes(), after(&first).bytes()];
    for packet in &mut fragments {
        packet[6] = 0x60;
        let checksum = update([packet[10], packet[11]], 0x4000, 0x6000);
        packet[10..12].copy_from_slice(&checksum);
    }
    assert_eq!(counts(&fragments), [1, 1]);
    let longer = [first.bytes(), after(&first).bytes()].map(|packet| [packet, vec![0]].concat());
    assert_eq!(counts(&longer), [1, 1]);
}

#[test]
fn several_flows_are_joined_side_by_side() {
    let mut packets = Vec::new();
    let mut flows: Vec<_> = (0..8).flat_map(|flow| [Flow::v4(flow), Flow::v6(flow)]).map(Sample::tcp).collect();
    for _ in 0..3 {
        packets.extend(flows.iter().map(Sample::bytes));
        flows = flows.iter().map(after).collect();
    }
    let written = write(&mut Coalescer::new(ALL), &packets);
    let firsts: Vec<_> = written.iter().map(|(header, bytes)| split_naively(*header, bytes)[0].clone()).collect();
    assert_eq!(firsts, packets[..16]);
    assert_eq!(written.iter().map(|(header, bytes)| split_naively(*header, bytes).len()).max(), Some(3));
}

#[test]
fn the_oldest_group_ends_for_a_seventeenth_flow() {
    let flows: Vec<_> = (0..17).map(|flow| Sample::tcp(Flow::v4(flow))).collect();
    let mut packets: Vec<_> = flows.iter().map(Sample::bytes).collect();
    packets.extend([after(&flows[16]).bytes(), after(&flows[0]).bytes(), after(&flows[2]).bytes()]);
    let counts: Vec<_> = write(&mut Coalescer::new(ALL), &packets)
        .iter()
        .map(|(header, bytes)| split_naively(*header, bytes).len())
        .collect();
    // The first flow was put out by the seventeenth, and comes back for the second, not the third.
    assert_eq!(counts, [1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1]);
}

#[test]
fn packets_do_not_join_across_a_single_packet_of_their_flow() {
    let first = Sample::tcp(Flow::v4(1));
    let second = after(&first);
    let acknowledgement = Sample { payload: Vec::new(), ..second.clone() };
    let with_options = Sample { ip_options: vec![1; 4], ..acknowledgement.clone() };
    let mut fragment = Sample::udp(Flow::v4(9)).bytes();
    fragment[6..8].copy_from_slice(&[0, 9]);
    for between in [acknowledgement.bytes(), with_options.bytes(), fragment] {
        let packets = [first.bytes(), between, second.bytes()];
        let alone = packets.clone().map(|packet| (VnetHeader::default(), packet));
        assert_eq!(write(&mut Coalescer::new(ALL), &packets), alone);
    }
    let other = Sample { payload: Vec::new(), ..Sample::tcp(Flow::v4(2)) };
    let written = write(&mut Coalescer::new(ALL), &[first.bytes(), other.bytes(), second.bytes(), vec![0x00]]);
    assert_eq!(written.len(), 3);
}

#[test]
fn a_group_ends_at_64_packets_and_at_64_kib() {
    for (size, expected) in [(100, [64, 64, 2]), (1400, [46, 46, 38]), (1, [64, 64, 2])] {
        for first in firsts() {
            let mut packets = Vec::new();
            let mut next = first.with_payload(size);
            for _ in 0..130 {
                packets.push(next.bytes());
                next = after(&next);
            }
            assert_eq!(counts(&packets), expected);
        }
    }
}

#[test]
fn the_first_error_ends_a_flush_and_empties_the_coalescer() {
    let arena = &mut [Sample::tcp(Flow::v4(1)).bytes(), Sample::tcp(Flow::v4(2)).bytes()].concat();
    let mut coalescer = Coalescer::new(ALL);
    let half = arena.len() / 2;
    coalescer.add(arena, 0..half);
    coalescer.add(arena, half..2 * half);
    let mut calls = 0;
    let result = coalescer.flush(arena, |_| {
        calls += 1;
        Err("full")
    });
    assert_eq!((result, calls, coalescer.is_empty()), (Err("full"), 1, true));
}
