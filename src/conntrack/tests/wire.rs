//! Encoding and decoding of ctnetlink's messages.

use std::net::Ipv4Addr;

use netlink_packet_core::DecodeError;
use proptest::prelude::*;

use super::super::wire::{
    Message, Request, encode_flow, encode_request, for_each_message, identify_flow, parse_counters, parse_flow,
};
use super::*;

/// All messages of a datagram, in words.
fn describe_messages(datagram: &[u8], sequence: u32) -> Result<Vec<String>, DecodeError> {
    let mut described = Vec::new();
    for_each_message(datagram, sequence, |message| {
        described.push(match message {
            Message::Part(body) => format!("part of {}", body.len()),
            Message::End(code) => format!("end {code}"),
        });
        Ok::<(), DecodeError>(())
    })?;
    Ok(described)
}

fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend([0; 2]);
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let layer4 = || {
        prop_oneof![
            any::<(u16, u16)>().prop_map(|(source, destination)| Layer4::Ports { source, destination }),
            any::<(u16, u8, u8)>().prop_map(|(id, kind, code)| Layer4::Icmp { id, kind, code }),
            Just(Layer4::None),
        ]
    };
    let tuple = move || {
        (any::<Ipv4Addr>(), any::<Ipv4Addr>(), any::<u8>(), layer4(), prop::option::of(any::<u16>())).prop_map(
            |(source, destination, protocol, layer4, zone)| Tuple { source, destination, protocol, layer4, zone },
        )
    };
    (tuple(), tuple(), any::<u32>(), any::<u32>(), prop::option::of(any::<u32>()), any::<u16>()).prop_map(
        |(original, reply, status, mark, id, zone)| Flow { original, reply, status: Status(status), mark, id, zone },
    )
}

proptest! {
    #[test]
    fn an_encoded_flow_decodes_to_itself(flow in any_flow()) {
        prop_assert_eq!(parse_flow(&encode_flow(&flow)).unwrap(), Some(flow));
    }

    #[test]
    fn a_flow_is_identified_by_its_original_tuple_number_and_zone_alone(one in any_flow(), other in any_flow()) {
        let same = Flow { original: one.original, id: one.id, zone: one.zone, ..other };
        prop_assert_eq!(identify_flow(&same), identify_flow(&one));
        let is_same = (one.original, one.id, one.zone) == (other.original, other.id, other.zone);
        prop_assert_eq!(identify_flow(&one) == identify_flow(&other), is_same);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), sequence in any::<u32>()) {
        // The result does not matter, as long as there is one.
        let _ = describe_messages(&bytes, sequence);
        let _ = parse_flow(&bytes);
        let _ = parse_counters(&bytes);
    }

    #[test]
    fn a_damaged_message_decodes_to_an_error_or_another_flow(
        flow in any_flow(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        length in any::<prop::sample::Index>(),
    ) {
        let mut body = encode_flow(&flow);
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = parse_flow(&body);
        let datagram = message(0x100, 1, &body);
        let cut = &datagram[..length.index(datagram.len())];
        if !cut.is_empty() {
            describe_messages(cut, 1).unwrap_err();
        }
    }
}

#[test]
fn the_messages_of_a_datagram_are_handled_in_order_and_answers_to_other_requests_are_skipped() {
    let datagram = [
        message(0x100, 5, &[2, 0, 0, 0]),
        message(0x100, 4, &[0; 8]),
        message(0xa00, 5, &[0; 8]),
        message(3, 5, &[0; 4]),
    ];
    assert_eq!(describe_messages(&datagram.concat(), 5).unwrap(), ["part of 4", "end 0"]);
    assert_eq!(describe_messages(&message(2, 5, &(-2_i32).to_ne_bytes()), 5).unwrap(), ["end -2"]);
    assert_eq!(describe_messages(&message(3, 5, &[]), 5).unwrap(), ["end 0"]);
}

#[test]
fn a_flow_without_ipv4_addresses_is_skipped() {
    let mut body = encode_flow(&flow("tcp 10.0.0.4:4000 203.0.113.9:443"));
    body[0] = 10; // AF_INET6
    assert_eq!(parse_flow(&body).unwrap(), None);
    assert_eq!(parse_flow(&[2, 0, 0, 0]).unwrap(), None);
    parse_flow(&[2, 0]).unwrap_err();
}

#[test]
fn unknown_attributes_are_skipped() {
    let known = flow("tcp 10.0.0.4:4000 203.0.113.9:443");
    let mut body = encode_flow(&known);
    body.extend([8, 0, 0xff, 0x3f, 1, 2, 3, 4]);
    assert_eq!(parse_flow(&body).unwrap(), Some(known));
}

#[test]
fn the_counters_of_each_processor_are_decoded() {
    let attribute = |kind: u16, value: u32| {
        let kind = kind.to_ne_bytes();
        [&8_u16.to_ne_bytes()[..], &kind, &value.to_be_bytes()].concat()
    };
    let body = [&[0, 0, 0, 1][..], &attribute(2, 9), &attribute(9, 3), &attribute(10, 4), &attribute(11, 5)].concat();
    assert_eq!(parse_counters(&body).unwrap(), [3, 4, 5]);
    parse_counters(&[0; 3]).unwrap_err();
}

#[test]
fn a_request_has_its_headers_and_attributes() {
    let request = encode_request(Request::Delete, 4, 7, &[1, 2, 3, 4]);
    let header = [&24_u32.to_ne_bytes()[..], &[2, 1], &5_u16.to_ne_bytes(), &7_u32.to_ne_bytes(), &[0; 4]].concat();
    assert_eq!(request, [&header[..], &[2, 0, 0, 0, 1, 2, 3, 4]].concat());
}
