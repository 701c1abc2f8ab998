//! ctnetlink's messages: bytes in, flows out, and the other way round.
//!
//! Not by the crate `netlink-packet-netfilter`: its 0.4 leaves half of what is asked for here as unread attributes
//! (ICMP's ends, the entry's number, zones, the counters of each processor), and makes some fifteen allocations for
//! each entry of a table that may have a million. The attributes themselves are walked by `netlink-packet-core`, which
//! it builds on too.

use std::net::Ipv4Addr;

use netlink_packet_core::{
    DecodeError, NLA_F_NESTED, NLM_F_REQUEST, NetlinkBuffer, NlasIterator, parse_u8, parse_u16_be, parse_u32_be,
};

use super::model::{Ends, Flow, Status, Tuple};

/// Of `struct nlmsghdr` and `struct nfgenmsg`, in bytes.
const NETLINK_HEADER: usize = 16;
const NETFILTER_HEADER: usize = 4;
/// `AF_INET`, as `struct nfgenmsg` has it.
const IPV4: u8 = 2;
/// `NFNL_SUBSYS_CTNETLINK` (`linux/netfilter/nfnetlink.h`).
const SUBSYSTEM: u8 = 1;
/// `NLMSG_ERROR` and `NLMSG_DONE` (`linux/netlink.h`).
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// What is asked (`enum cntl_msg_types` of `linux/netfilter/nfnetlink_conntrack.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// `IPCTNL_MSG_CT_GET`
    Flows = 1,
    /// `IPCTNL_MSG_CT_DELETE`
    Delete = 2,
    /// `IPCTNL_MSG_CT_GET_STATS_CPU`
    Counters = 4,
}

/// `enum ctattr_type`
mod attribute {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const MARK: u16 = 8;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
}

/// `enum ctattr_tuple`
mod tuple {
    pub(super) const IP: u16 = 1;
    pub(super) const PROTO: u16 = 2;
    pub(super) const ZONE: u16 = 3;
}

/// `enum ctattr_ip`
mod ip {
    pub(super) const V4_SRC: u16 = 1;
    pub(super) const V4_DST: u16 = 2;
}

/// `enum ctattr_l4proto`
mod proto {
    pub(super) const NUM: u16 = 1;
    pub(super) const SRC_PORT: u16 = 2;
    pub(super) const DST_PORT: u16 = 3;
    pub(super) const ICMP_ID: u16 = 4;
    pub(super) const ICMP_TYPE: u16 = 5;
    pub(super) const ICMP_CODE: u16 = 6;
}

/// `enum ctattr_stats_cpu`
mod counter {
    pub(super) const INSERT_FAILED: u16 = 9;
    pub(super) const DROP: u16 = 10;
    pub(super) const EARLY_DROP: u16 = 11;
}

/// One message of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message<'d> {
    /// A part of it: what follows the netlink header.
    Part(&'d [u8]),
    /// Its end; 0, or why there was none, as a negative number of an error.
    End(i32),
}

/// Hands on every message of a datagram that answers the question with this number, up to the end of the answer.
pub(super) fn messages<E: From<DecodeError>>(
    mut datagram: &[u8],
    sequence: u32,
    mut hear: impl FnMut(Message<'_>) -> Result<(), E>,
) -> Result<(), E> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram)?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let Some(body) = datagram.get(NETLINK_HEADER..length) else {
            return Err(DecodeError::from("a netlink message is shorter than its header").into());
        };
        if message.sequence_number() == sequence {
            match message.message_type() {
                ERROR | DONE => hear(Message::End(code(body)))?,
                kind if kind >> 8 == u16::from(SUBSYSTEM) => hear(Message::Part(body))?,
                _ => {}
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// An end without a code is a good one.
fn code(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// The flow that a part of the answer to [`Question::Flows`] is about; `None` if it has no IPv4 addresses.
pub(super) fn flow(body: &[u8]) -> Result<Option<Flow>, DecodeError> {
    let Some((header, attributes)) = body.split_at_checked(NETFILTER_HEADER) else {
        return Err("a message is shorter than netfilter's header".into());
    };
    if header[0] != IPV4 {
        return Ok(None);
    }
    let (mut original, mut reply) = (None, None);
    let (mut status, mut mark, mut id, mut zone) = (Status::default(), 0, None, 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            attribute::TUPLE_ORIG => original = direction(value)?,
            attribute::TUPLE_REPLY => reply = direction(value)?,
            attribute::STATUS => status = Status(parse_u32_be(value)?),
            attribute::MARK => mark = parse_u32_be(value)?,
            attribute::ID => id = Some(parse_u32_be(value)?),
            attribute::ZONE => zone = parse_u16_be(value)?,
            _ => {}
        }
    }
    Ok(original.zip(reply).map(|(original, reply)| Flow { original, reply, status, mark, id, zone }))
}

/// One direction; `None` if it has no IPv4 addresses or no protocol.
fn direction(attributes: &[u8]) -> Result<Option<Tuple>, DecodeError> {
    let (mut source, mut destination, mut zone) = (None, None, None);
    let mut ends = Parts::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            tuple::IP => (source, destination) = addresses(value)?,
            tuple::PROTO => ends = parts(value)?,
            tuple::ZONE => zone = Some(parse_u16_be(value)?),
            _ => {}
        }
    }
    let whole = source.zip(destination).zip(ends.protocol);
    let whole = whole.map(|((source, destination), protocol)| Tuple {
        source,
        destination,
        protocol,
        ends: ends.put_together(),
        zone,
    });
    Ok(whole)
}

fn addresses(attributes: &[u8]) -> Result<(Option<Ipv4Addr>, Option<Ipv4Addr>), DecodeError> {
    let (mut source, mut destination) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let address = || parse_u32_be(attribute.value()).map(Ipv4Addr::from_bits);
        match attribute.kind() {
            ip::V4_SRC => source = Some(address()?),
            ip::V4_DST => destination = Some(address()?),
            _ => {}
        }
    }
    Ok((source, destination))
}

/// What a tuple says beyond its addresses.
#[derive(Debug, Default)]
struct Parts {
    protocol: Option<u8>,
    ports: (Option<u16>, Option<u16>),
    icmp: (Option<u16>, Option<u8>, Option<u8>),
}

impl Parts {
    fn put_together(&self) -> Ends {
        match (self.ports, self.icmp) {
            ((Some(source), Some(destination)), _) => Ends::Ports { source, destination },
            (_, (Some(id), Some(kind), Some(code))) => Ends::Icmp { id, kind, code },
            _ => Ends::None,
        }
    }
}

fn parts(attributes: &[u8]) -> Result<Parts, DecodeError> {
    let mut parts = Parts::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            proto::NUM => parts.protocol = Some(parse_u8(value)?),
            proto::SRC_PORT => parts.ports.0 = Some(parse_u16_be(value)?),
            proto::DST_PORT => parts.ports.1 = Some(parse_u16_be(value)?),
            proto::ICMP_ID => parts.icmp.0 = Some(parse_u16_be(value)?),
            proto::ICMP_TYPE => parts.icmp.1 = Some(parse_u8(value)?),
            proto::ICMP_CODE => parts.icmp.2 = Some(parse_u8(value)?),
            _ => {}
        }
    }
    Ok(parts)
}

/// What one processor counted of flows that could not be: `INSERT_FAILED`, `DROP`, `EARLY_DROP`.
pub(super) fn counters(body: &[u8]) -> Result<[u32; 3], DecodeError> {
    let attributes = body.get(NETFILTER_HEADER..).ok_or("a message is shorter than netfilter's header")?;
    let mut counters = [0; 3];
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let place = match attribute.kind() {
            counter::INSERT_FAILED => 0,
            counter::DROP => 1,
            counter::EARLY_DROP => 2,
            _ => continue,
        };
        counters[place] = parse_u32_be(attribute.value())?;
    }
    Ok(counters)
}

/// A whole question.
pub(super) fn question(question: Question, flags: u16, sequence: u32, attributes: &[u8]) -> Vec<u8> {
    let length = NETLINK_HEADER + NETFILTER_HEADER + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).expect("a question is short").to_ne_bytes());
    message.extend([question as u8, SUBSYSTEM]);
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]); // the sender's port: the kernel knows it
    message.extend([IPV4, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// The attributes that name this very flow, so that one which took its place meanwhile is not meant.
pub(super) fn naming(flow: &Flow) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.direction(attribute::TUPLE_ORIG, &flow.original);
    if let Some(id) = flow.id {
        attributes.put(attribute::ID, &id.to_be_bytes());
    }
    if flow.zone != 0 {
        attributes.put(attribute::ZONE, &flow.zone.to_be_bytes());
    }
    attributes.0
}

/// Attributes that are being written.
#[derive(Debug, Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("attributes of a flow are short");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.put(kind | NLA_F_NESTED, &inner.0);
    }

    fn direction(&mut self, kind: u16, direction: &Tuple) {
        self.nest(kind, |attributes| {
            attributes.nest(tuple::IP, |attributes| {
                attributes.put(ip::V4_SRC, &direction.source.octets());
                attributes.put(ip::V4_DST, &direction.destination.octets());
            });
            attributes.nest(tuple::PROTO, |attributes| {
                attributes.put(proto::NUM, &[direction.protocol]);
                match direction.ends {
                    Ends::Ports { source, destination } => {
                        attributes.put(proto::SRC_PORT, &source.to_be_bytes());
                        attributes.put(proto::DST_PORT, &destination.to_be_bytes());
                    }
                    Ends::Icmp { id, kind, code } => {
                        attributes.put(proto::ICMP_ID, &id.to_be_bytes());
                        attributes.put(proto::ICMP_TYPE, &[kind]);
                        attributes.put(proto::ICMP_CODE, &[code]);
                    }
                    Ends::None => {}
                }
            });
            if let Some(zone) = direction.zone {
                attributes.put(tuple::ZONE, &zone.to_be_bytes());
            }
        });
    }
}

/// A part of an answer, as the kernel would say it.
#[cfg(test)]
pub(super) fn told(flow: &Flow) -> Vec<u8> {
    let mut attributes = Attributes(naming(flow));
    attributes.direction(attribute::TUPLE_REPLY, &flow.reply);
    attributes.put(attribute::STATUS, &flow.status.0.to_be_bytes());
    attributes.put(attribute::MARK, &flow.mark.to_be_bytes());
    let mut body = vec![IPV4, 0, 0, 0];
    body.extend(attributes.0);
    body
}
