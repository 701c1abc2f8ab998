//! The kernel's messages.

use std::net::Ipv4Addr;

use netlink_packet_core::DecodeError;
use proptest::prelude::*;

use super::super::wire::{Message, Question, counters, flow as parsed, messages, naming, question, told};
use super::*;

/// All messages of a datagram.
fn heard(datagram: &[u8], sequence: u32) -> Result<Vec<String>, DecodeError> {
    let mut heard = Vec::new();
    messages(datagram, sequence, |message| {
        heard.push(match message {
            Message::Part(body) => format!("part of {}", body.len()),
            Message::End(code) => format!("end {code}"),
        });
        Ok::<(), DecodeError>(())
    })?;
    Ok(heard)
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
    let ends = || {
        prop_oneof![
            any::<(u16, u16)>().prop_map(|(source, destination)| Ends::Ports { source, destination }),
            any::<(u16, u8, u8)>().prop_map(|(id, kind, code)| Ends::Icmp { id, kind, code }),
            Just(Ends::None),
        ]
    };
    let tuple = move || {
        (any::<Ipv4Addr>(), any::<Ipv4Addr>(), any::<u8>(), ends(), prop::option::of(any::<u16>()))
            .prop_map(|(source, destination, protocol, ends, zone)| Tuple { source, destination, protocol, ends, zone })
    };
    (tuple(), tuple(), any::<u32>(), any::<u32>(), prop::option::of(any::<u32>()), any::<u16>()).prop_map(
        |(original, reply, status, mark, id, zone)| Flow { original, reply, status: Status(status), mark, id, zone },
    )
}

proptest! {
    #[test]
    fn a_flow_is_read_as_it_was_told(flow in any_flow()) {
        prop_assert_eq!(parsed(&told(&flow)).unwrap(), Some(flow));
    }

    #[test]
    fn what_names_a_flow_names_its_first_packet_number_and_zone_and_nothing_else(one in any_flow(), other in any_flow()) {
        let same = Flow { original: one.original, id: one.id, zone: one.zone, ..other };
        prop_assert_eq!(naming(&same), naming(&one));
        prop_assert_eq!(naming(&one) == naming(&other), (one.original, one.id, one.zone) == (other.original, other.id, other.zone));
    }

    #[test]
    fn no_bytes_make_the_reader_fall_over(bytes in prop::collection::vec(any::<u8>(), 0..400), sequence in any::<u32>()) {
        // Err or not: what counts is that it answers.
        let _ = heard(&bytes, sequence);
        let _ = parsed(&bytes);
        let _ = counters(&bytes);
    }

    #[test]
    fn a_message_that_was_damaged_is_an_error_or_another_flow(
        flow in any_flow(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), length in any::<prop::sample::Index>(),
    ) {
        let mut body = told(&flow);
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let _ = parsed(&body);
        let datagram = message(0x100, 1, &body);
        let cut = &datagram[..length.index(datagram.len())];
        if !cut.is_empty() {
            heard(cut, 1).unwrap_err();
        }
    }
}

#[test]
fn a_datagrams_messages_are_heard_in_turn_and_other_peoples_answers_are_not() {
    let datagram = [
        message(0x100, 5, &[2, 0, 0, 0]),
        message(0x100, 4, &[0; 8]),
        message(0xa00, 5, &[0; 8]),
        message(3, 5, &[0; 4]),
    ];
    assert_eq!(heard(&datagram.concat(), 5).unwrap(), ["part of 4", "end 0"]);
    assert_eq!(heard(&message(2, 5, &(-2_i32).to_ne_bytes()), 5).unwrap(), ["end -2"]);
    assert_eq!(heard(&message(3, 5, &[]), 5).unwrap(), ["end 0"]);
}

#[test]
fn what_has_no_ipv4_addresses_is_passed_over() {
    let mut body = told(&flow("tcp 10.0.0.4:4000 203.0.113.9:443"));
    body[0] = 10; // AF_INET6
    assert_eq!(parsed(&body).unwrap(), None);
    assert_eq!(parsed(&[2, 0, 0, 0]).unwrap(), None);
    parsed(&[2, 0]).unwrap_err();
}

#[test]
fn attributes_that_nobody_knows_are_passed_over() {
    let known = flow("tcp 10.0.0.4:4000 203.0.113.9:443");
    let mut body = told(&known);
    body.extend([8, 0, 0xff, 0x3f, 1, 2, 3, 4]);
    assert_eq!(parsed(&body).unwrap(), Some(known));
}

#[test]
fn each_processors_counters_are_read() {
    let attribute = |kind: u16, value: u32| {
        let kind = kind.to_ne_bytes();
        [&8_u16.to_ne_bytes()[..], &kind, &value.to_be_bytes()].concat()
    };
    let body = [&[0, 0, 0, 1][..], &attribute(2, 9), &attribute(9, 3), &attribute(10, 4), &attribute(11, 5)].concat();
    assert_eq!(counters(&body).unwrap(), [3, 4, 5]);
    counters(&[0; 3]).unwrap_err();
}

#[test]
fn a_question_says_what_it_is_about() {
    let asked = question(Question::Delete, 4, 7, &[1, 2, 3, 4]);
    let header = [&24_u32.to_ne_bytes()[..], &[2, 1], &5_u16.to_ne_bytes(), &7_u32.to_ne_bytes(), &[0; 4]].concat();
    assert_eq!(asked, [&header[..], &[2, 0, 0, 0, 1, 2, 3, 4]].concat());
}
