//! Cutting and joining undo each other.

use proptest::prelude::*;

use super::*;
use crate::device::sample::super_packet;
use crate::device::segment::{SPARE, split};

fn cut(header: VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut buffer = [packet, &[0; SPARE]].concat();
    let mut segments = split(header, &mut buffer, packet.len(), 1420).unwrap();
    let mut all = Vec::new();
    while let Some(segment) = segments.next_segment() {
        let padded = segment.to_vec();
        all.push(padded[..segments.unpadded_len()].to_vec());
    }
    all
}

/// What a sender or the network does next in one of a few flows.
#[derive(Debug, Clone)]
struct Step {
    flow: usize,
    size: usize,
    action: u8,
    noise: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop_oneof![8 => Just(1000_usize), 1 => 0..1000_usize, 1 => 1000..1400_usize];
    let step = (0..24_usize, sizes, prop_oneof![6 => Just(0_u8), 4 => 0..24_u8], any::<usize>())
        .prop_map(|(flow, size, action, noise)| Step { flow: flow.min(flow % 7), size, action, noise });
    proptest::collection::vec(step, 1..150)
}

fn flows() -> Vec<Sample> {
    (0..24)
        .map(|number| {
            let flow = if number % 2 == 0 { Flow::v4(number) } else { Flow::v6(number) };
            let sample = if number % 3 == 0 { Sample::udp(flow) } else { Sample::tcp(flow) };
            Sample { df: number % 4 != 0, ..sample }
        })
        .collect()
}

/// The packets of these steps as they arrive.
fn arrivals(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut flows = flows();
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for Step { flow, size, action, noise } in steps {
        let state = &mut flows[*flow];
        let mut sample = Sample { payload: counting(*size, noise % 1000), ..state.clone() };
        let mut corrupt = None;
        match action {
            1 => sample.flags |= PSH,
            2 => sample.flags |= FIN,
            3 => sample.flags |= [URG, SYN, RST, CWR, ECE][noise % 5],
            4 => sample.ttl -= 1,
            5 => sample.tos = 3,
            6 => sample.tcp_options = vec![1; 4 * (noise % 6)],
            7 => sample.ip_options = vec![1; 4],
            8 => sample.ack += 1,
            9 => corrupt = Some(sample.bytes().len() - 1 - noise % (*size + 8)),
            10 => sample.seq = sample.seq.wrapping_sub(1000),
            11 => sample.id = sample.id.wrapping_sub(1),
            12 => state.id = state.id.wrapping_sub(1), // Stands still from here on, for one packet.
            13 => sample.df = !sample.df,
            14 => sample.flow_label = 1,
            15 => sample.window += 1,
            16 => state.tos = (state.tos + 1) % 4,
            // Repeated, or overtaken by the one after it.
            17 if !packets.is_empty() => {
                packets.push(packets[noise % packets.len()].clone());
                continue;
            }
            18 if packets.len() > 1 => {
                let len = packets.len();
                packets.swap(len - 1, len - 2);
            }
            _ => (),
        }
        if *action != 17 {
            state.seq = state.seq.wrapping_add(u32::try_from(*size).unwrap());
            state.id = state.id.wrapping_add(1);
        }
        let mut packet = sample.bytes();
        if let Some(at) = corrupt {
            packet[at] ^= 0x10;
        }
        packets.push(packet);
    }
    packets
}

/// The packet without an identification that means nothing.
fn without_idle_id(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn of_flow(packets: &[Vec<u8>], flow: Flow) -> Vec<Vec<u8>> {
    packets.iter().filter(|packet| Sample::parse(packet).flow == flow).map(|packet| without_idle_id(packet)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_was_cut_is_joined_to_what_it_was((sample, gso_size) in super_packet(), ece in any::<bool>()) {
        let flags = ACK | (sample.flags & (PSH | FIN)) | if ece { ECE } else { 0 };
        let sample = Sample { flags, ip_options: Vec::new(), ..sample };
        let (header, packet) = sample.offloaded(gso_size);
        let segments = cut(header, &packet);
        prop_assume!((2..=64).contains(&segments.len()));
        prop_assert_eq!(write(&mut Coalescer::new(ALL), &segments), [(header, packet)]);
    }

    #[test]
    fn a_joined_packet_is_cut_into_the_original_packets(batches in proptest::collection::vec(steps(), 1..3)) {
        let mut coalescer = Coalescer::new(ALL);
        for steps in batches {
            let packets = arrivals(&steps);
            let written = write(&mut coalescer, &packets);
            let slowly: Vec<_> = written.iter().flat_map(|(header, bytes)| split_naively(*header, bytes)).collect();
            let quickly: Vec<_> = written.iter().flat_map(|(header, bytes)| cut(*header, bytes)).collect();
            prop_assert_eq!(&slowly, &quickly);
            prop_assert_eq!(slowly.len(), packets.len());
            for flow in flows() {
                prop_assert_eq!(of_flow(&slowly, flow.flow), of_flow(&packets, flow.flow));
            }
            let first = |(header, bytes): &(_, Vec<u8>)| split_naively(*header, bytes).remove(0);
            let firsts: Vec<_> = written.iter().map(first).collect();
            let mut arrived = packets.iter();
            for first in firsts {
                prop_assert!(arrived.any(|packet| *packet == first), "a group before an older one");
            }
        }
    }
}

#[test]
fn the_generated_packets_do_join() {
    let step = |flow| Step { flow, size: 1000, action: 0, noise: 0 };
    let steps: Vec<_> = (0..80).map(|index| step(index % 4)).collect();
    assert_eq!(write(&mut Coalescer::new(ALL), &arrivals(&steps)).len(), 4);
}
