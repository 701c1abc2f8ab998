//! Decodes what the kernel says about the birth and the end of flows, as far as counting needs it.
//!
//! A busy gateway has many flows, so the attributes are looked through once and nothing is allocated. The listing of
//! all flows has the same attributes.

use std::net::Ipv4Addr;

use netlink_packet_core::{DecodeError, NetlinkBuffer, NlasIterator, parse_u32_be};
use nix::libc;

use super::counts::{FlowEvent, Happened, Source};
use crate::conntrack::wire::{NETFILTER_HEADER, NETLINK_HEADER};

/// `IPCTNL_MSG_CT_DELETE`; every other kind is a flow that is new or listed.
const DELETE: u8 = 2;
/// Of `enum ctattr_type`.
const TUPLE_ORIG: u16 = 1;
const MARK: u16 = 8;
const ID: u16 = 12;
/// Of `enum ctattr_tuple` and `enum ctattr_ip`.
const TUPLE_IP: u16 = 1;
const V4_SRC: u16 = 1;
const V6_SRC: u16 = 3;

/// Calls `take` with every flow of a datagram. What cannot be read is an error, after what comes before it.
pub(super) fn for_each_event(mut datagram: &[u8], mut take: impl FnMut(FlowEvent)) -> Result<(), DecodeError> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram)?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let body = datagram.get(NETLINK_HEADER..length).ok_or("a netlink message is shorter than its header")?;
        let [subsystem, kind] = message.message_type().to_be_bytes();
        if libc::c_int::from(subsystem) == libc::NFNL_SUBSYS_CTNETLINK {
            let happened = if kind == DELETE { Happened::Ended } else { Happened::Lives };
            if let Some(event) = parse(happened, body)? {
                take(event);
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// Decodes one flow: what follows the netlink header. `None` if it has no source.
pub(super) fn parse(happened: Happened, body: &[u8]) -> Result<Option<FlowEvent>, DecodeError> {
    let attributes = body.get(NETFILTER_HEADER..).ok_or("a message is shorter than netfilter's header")?;
    let (mut source, mut mark, mut id) = (None, 0, 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            TUPLE_ORIG => source = parse_source(attribute.value())?,
            MARK => mark = parse_u32_be(attribute.value())?,
            ID => id = parse_u32_be(attribute.value())?,
            _ => {}
        }
    }
    Ok(source.map(|source| FlowEvent { happened, source, mark, id }))
}

fn parse_source(tuple: &[u8]) -> Result<Option<Source>, DecodeError> {
    for attribute in NlasIterator::new(tuple) {
        let attribute = attribute?;
        if attribute.kind() != TUPLE_IP {
            continue;
        }
        for address in NlasIterator::new(attribute.value()) {
            let address = address?;
            match (address.kind(), address.value()) {
                (V4_SRC, &[a, b, c, d]) => return Ok(Some(Source::V4(Ipv4Addr::new(a, b, c, d)))),
                (V6_SRC, value) => {
                    return Ok(value.first_chunk().map(|prefix| Source::V6(u64::from_be_bytes(*prefix))));
                }
                _ => {}
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::model::{Flow, Layer4, Status, Tuple};
    use crate::conntrack::wire::encode_flow;

    fn flow(host: u8, mark: u32) -> Flow {
        let original = Tuple {
            source: Ipv4Addr::new(10, 0, 0, host),
            destination: Ipv4Addr::new(203, 0, 113, 9),
            protocol: 6,
            layer4: Layer4::Ports { source: 40_000, destination: 443 },
            zone: None,
        };
        let reply = Tuple { source: original.destination, destination: Ipv4Addr::new(198, 51, 100, 2), ..original };
        Flow { original, reply, status: Status::CONFIRMED, mark, id: Some(7), zone: 0 }
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(NETLINK_HEADER + body.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend([kind, 1, 0, 0]);
        message.extend([0; 8]);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn births_and_ends_are_read_with_their_source_and_mark() {
        let datagram =
            [message(0, &encode_flow(&flow(4, 0x1400_0000))), message(2, &encode_flow(&flow(5, 0)))].concat();
        let mut events = Vec::new();
        for_each_event(&datagram, |event| events.push(event)).unwrap();
        let event = |happened, host, mark| FlowEvent {
            happened,
            source: Source::V4(Ipv4Addr::new(10, 0, 0, host)),
            mark,
            id: 7,
        };
        assert_eq!(events, [event(Happened::Lives, 4, 0x1400_0000), event(Happened::Ended, 5, 0)]);
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error_and_never_a_panic() {
        let whole = message(0, &encode_flow(&flow(4, 1)));
        for length in 1..whole.len() {
            assert!(for_each_event(&whole[..length], |_| {}).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
