//! Whatever a TUN interface hands over, header included: it is refused or cut into IP packets with right checksums, and
//! these are joined to something that cuts into the same packets again.
#![no_main]

use std::io::IoSlice;

use bastiond_tunnel::internals::coalesce::{Coalescer, Offloads};
use bastiond_tunnel::internals::packet::{GSO_NONE, TCP, UDP, VNET_HEADER_LEN, VnetHeader, ecn, total_len, transport};
use bastiond_tunnel::internals::segment::{Malformed, SPARE, padding, split};
use bastiond_tunnel::internals::{ecn as marks, icmp};
use libfuzzer_sys::fuzz_target;

const MTU: usize = 1420;

fuzz_target!(|bytes: &[u8]| {
    let Some(header) = VnetHeader::parse(bytes) else { return };
    let Ok(packets) = cut(header, &bytes[VNET_HEADER_LEN..]) else { return };
    for packet in &packets {
        assert_eq!(total_len(packet), Some(packet.len()));
        if header.gso_type != GSO_NONE {
            assert_eq!(transport_sum(packet), 0xffff, "a wrong checksum");
        }
        for server in ["192.0.2.1", "2001:db8::1"] {
            let server = server.parse().expect("an address");
            for message in [icmp::too_big(packet, MTU, server), icmp::unreachable(packet, server)].iter().flatten() {
                let message = message.as_slice();
                assert_eq!(total_len(message), Some(message.len()));
                assert_eq!(icmp::unreachable(message, server), None, "an error about an error");
            }
        }
        for outer in 0..4 {
            let mut marked = packet.clone();
            if marks::decapsulate(&mut marked, outer) == marks::Verdict::Drop {
                assert_eq!((ecn(packet), outer), (0, 3));
            }
        }
    }

    let mut arena = packets.concat();
    let mut coalescer = Coalescer::new(Offloads { tcp: true, udp: true });
    let mut end = 0;
    for packet in &packets {
        let start = end;
        end += packet.len();
        coalescer.add(&arena, start..end);
    }
    let mut again = Vec::new();
    let written = coalescer.flush(&mut arena, |slices: &[IoSlice<'_>]| {
        let header = VnetHeader::parse(&slices[0]).ok_or(Malformed::NoRoom)?;
        let joined: Vec<u8> = slices[1..].iter().flat_map(|slice| slice.to_vec()).collect();
        again.extend(cut(header, &joined)?);
        Ok::<_, Malformed>(())
    });
    assert_eq!(written, Ok(()));
    assert_eq!(again, packets);
});

/// The packets, each checked to be padded with zeroes as far as it should be.
fn cut(header: VnetHeader, packet: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut buffer = [packet, &[0xee; SPARE]].concat();
    let mut segments = split(header, &mut buffer, packet.len(), MTU)?;
    let (count, longest) = (segments.count(), segments.segment_len());
    let mut packets = Vec::new();
    while let Some(segment) = segments.next_segment() {
        let padded = segment.to_vec();
        segment.fill(0xdd);
        let len = segments.unpadded_len();
        assert!(len <= longest && padded.len() == len + padding(len, MTU));
        assert!(padded[len..].iter().all(|byte| *byte == 0));
        packets.push(padded[..len].to_vec());
    }
    assert_eq!(packets.len(), count);
    Ok(packets)
}

/// The sum of pseudo-header and segment, one word after the other.
fn transport_sum(packet: &[u8]) -> u16 {
    let transport = transport(packet).expect("it was cut by its transport header");
    assert!(matches!(transport.protocol, TCP | UDP));
    let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
    let segment = &packet[transport.offset..];
    let length = u32::try_from(segment.len()).expect("a packet").to_be_bytes();
    let mut bytes = [&packet[addresses], &length, &[0, transport.protocol], segment].concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes.chunks(2).fold(0, |sum: u16, pair| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carry)
    })
}
