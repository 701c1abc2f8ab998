//! Encodes and decodes the messages of ctnetlink.
//!
//! Own code, although the crate `netlink-packet-netfilter` exists: its 0.4 does not decode half of what is needed here
//! (ICMP types and identifiers, the entry's number, zones, the counters of each processor), and makes some fifteen
//! allocations for each entry of a table that may have a million. The attributes are walked by `netlink-packet-core`,
//! on which that crate builds too.

use std::net::Ipv4Addr;

use netlink_packet_core::{
    DecodeError, NLA_F_NESTED, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator, parse_u8,
    parse_u16_be, parse_u32_be,
};
use netlink_packet_netfilter::NetfilterSubsystem;
use nix::libc::AF_INET;

use super::model::{Flow, Layer4, Status, Tuple};

/// Size of `struct nlmsghdr` in bytes.
pub(super) const NETLINK_HEADER: usize = 16;
/// Size of `struct nfgenmsg` in bytes.
pub(super) const NETFILTER_HEADER: usize = 4;

/// A kind of request (`enum cntl_msg_types` of `linux/netfilter/nfnetlink_conntrack.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// `IPCTNL_MSG_CT_GET`: all flows of IPv4, or the one that the attributes name.
    ListFlows,
    /// The same for IPv4 and IPv6.
    ListFlowsOfBothFamilies,
    /// `IPCTNL_MSG_CT_DELETE`
    Delete,
    /// `IPCTNL_MSG_CT_GET_STATS_CPU`
    ListCounters,
}

impl Request {
    fn message_type(self) -> u8 {
        match self {
            Self::ListFlows | Self::ListFlowsOfBothFamilies => 1,
            Self::Delete => 2,
            Self::ListCounters => 4,
        }
    }

    /// The address family in `struct nfgenmsg`; 0 is `AF_UNSPEC`.
    fn family(self) -> u8 {
        if self == Self::ListFlowsOfBothFamilies { 0 } else { ipv4() }
    }
}

/// The address family in `struct nfgenmsg`, which is one byte wide.
fn ipv4() -> u8 {
    u8::try_from(AF_INET).expect("address families fit into a byte")
}

/// `enum ctattr_type`
mod attribute {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const MARK: u16 = 8;
    pub(super) const ID: u16 = 12;
    pub(super) const ZONE: u16 = 18;
    pub(super) const FILTER: u16 = 25;
    pub(super) const STATUS_MASK: u16 = 26;
}

/// `enum ctattr_filter`
mod filter {
    pub(super) const ORIG_FLAGS: u16 = 1;
    pub(super) const REPLY_FLAGS: u16 = 2;
    /// Which fields of a direction are compared (`linux/netfilter/nf_internals.h` of the kernel's source).
    pub(super) const IP_SRC: u32 = 1 << 0;
    pub(super) const PROTO_NUM: u32 = 1 << 3;
    pub(super) const PROTO_SRC_PORT: u32 = 1 << 4;
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
    /// One entry of the listing: what follows the netlink header.
    Part(&'d [u8]),
    /// The end of the answer: 0, or a negative errno.
    End(i32),
}

/// Calls `handle` for every message of a datagram that answers the request with this sequence number.
pub(super) fn for_each_message<E: From<DecodeError>>(
    mut datagram: &[u8],
    sequence: u32,
    mut handle: impl FnMut(Message<'_>) -> Result<(), E>,
) -> Result<(), E> {
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram)?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        let Some(body) = datagram.get(NETLINK_HEADER..length) else {
            return Err(DecodeError::from("a netlink message is shorter than its header").into());
        };
        if message.sequence_number() == sequence {
            match message.message_type() {
                NLMSG_ERROR | NLMSG_DONE => handle(Message::End(end_code(body)))?,
                kind if kind >> 8 == u16::from(u8::from(NetfilterSubsystem::Conntrack)) => {
                    handle(Message::Part(body))?;
                }
                _ => {}
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// The code of an `NLMSG_ERROR` or `NLMSG_DONE`. An end without a code is a success.
fn end_code(body: &[u8]) -> i32 {
    body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// Decodes one entry of the answer to `Request::ListFlows`; `None` if it has no IPv4 addresses.
pub fn parse_flow(body: &[u8]) -> Result<Option<Flow>, DecodeError> {
    let Some((header, attributes)) = body.split_at_checked(NETFILTER_HEADER) else {
        return Err("a message is shorter than netfilter's header".into());
    };
    if header[0] != ipv4() {
        return Ok(None);
    }
    let (mut original, mut reply) = (None, None);
    let (mut status, mut mark, mut id, mut zone) = (Status::default(), 0, None, 0);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            attribute::TUPLE_ORIG => original = parse_tuple(value)?,
            attribute::TUPLE_REPLY => reply = parse_tuple(value)?,
            attribute::STATUS => status = Status(parse_u32_be(value)?),
            attribute::MARK => mark = parse_u32_be(value)?,
            attribute::ID => id = Some(parse_u32_be(value)?),
            attribute::ZONE => zone = parse_u16_be(value)?,
            _ => {}
        }
    }
    Ok(original.zip(reply).map(|(original, reply)| Flow { original, reply, status, mark, id, zone }))
}

/// Decodes one direction; `None` if it has no IPv4 addresses or no protocol.
fn parse_tuple(attributes: &[u8]) -> Result<Option<Tuple>, DecodeError> {
    let (mut source, mut destination, mut zone) = (None, None, None);
    let mut layer4 = Layer4Attributes::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            tuple::IP => (source, destination) = parse_addresses(value)?,
            tuple::PROTO => layer4 = parse_layer4(value)?,
            tuple::ZONE => zone = Some(parse_u16_be(value)?),
            _ => {}
        }
    }
    let required = source.zip(destination).zip(layer4.protocol);
    Ok(required.map(|((source, destination), protocol)| Tuple {
        source,
        destination,
        protocol,
        layer4: layer4.into_layer4(),
        zone,
    }))
}

fn parse_addresses(attributes: &[u8]) -> Result<(Option<Ipv4Addr>, Option<Ipv4Addr>), DecodeError> {
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

/// The attributes of a tuple's `CTA_TUPLE_PROTO`, as far as they were present.
#[derive(Debug, Default)]
struct Layer4Attributes {
    /// Number of the protocol in the IP header.
    protocol: Option<u8>,
    /// Source and destination port.
    ports: (Option<u16>, Option<u16>),
    /// Identifier, type and code.
    icmp: (Option<u16>, Option<u8>, Option<u8>),
}

impl Layer4Attributes {
    fn into_layer4(self) -> Layer4 {
        match (self.ports, self.icmp) {
            ((Some(source), Some(destination)), _) => Layer4::Ports { source, destination },
            (_, (Some(id), Some(kind), Some(code))) => Layer4::Icmp { id, kind, code },
            _ => Layer4::None,
        }
    }
}

fn parse_layer4(attributes: &[u8]) -> Result<Layer4Attributes, DecodeError> {
    let mut layer4 = Layer4Attributes::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            proto::NUM => layer4.protocol = Some(parse_u8(value)?),
            proto::SRC_PORT => layer4.ports.0 = Some(parse_u16_be(value)?),
            proto::DST_PORT => layer4.ports.1 = Some(parse_u16_be(value)?),
            proto::ICMP_ID => layer4.icmp.0 = Some(parse_u16_be(value)?),
            proto::ICMP_TYPE => layer4.icmp.1 = Some(parse_u8(value)?),
            proto::ICMP_CODE => layer4.icmp.2 = Some(parse_u8(value)?),
            _ => {}
        }
    }
    Ok(layer4)
}

/// Decodes the counters of one processor: `INSERT_FAILED`, `DROP`, `EARLY_DROP`.
pub(super) fn parse_counters(body: &[u8]) -> Result<[u32; 3], DecodeError> {
    let attributes = body.get(NETFILTER_HEADER..).ok_or("a message is shorter than netfilter's header")?;
    let mut counters = [0; 3];
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let index = match attribute.kind() {
            counter::INSERT_FAILED => 0,
            counter::DROP => 1,
            counter::EARLY_DROP => 2,
            _ => continue,
        };
        counters[index] = parse_u32_be(attribute.value())?;
    }
    Ok(counters)
}

/// A request as it is sent to the kernel.
pub(super) fn encode_request(request: Request, flags: u16, sequence: u32, attributes: &[u8]) -> Vec<u8> {
    let length = NETLINK_HEADER + NETFILTER_HEADER + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).expect("a request is short").to_ne_bytes());
    message.extend([request.message_type(), NetfilterSubsystem::Conntrack.into()]);
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]); // the sender's port ID: the kernel fills it in
    message.extend([request.family(), 0, 0, 0]);
    message.extend(attributes);
    message
}

/// Which flows a listing is to contain. Kernels before 5.15 do not know all of it, and list more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selection {
    /// Bits that are set in the entry's status.
    pub set: Status,
    /// Bits that are not.
    pub unset: Status,
    /// Where the answers come from: address, number of the protocol and, if it matters, port.
    pub answers_from: Option<(Ipv4Addr, u8, Option<u16>)>,
}

impl Selection {
    /// Whether it contains the flow.
    pub(super) fn contains(&self, flow: &Flow) -> bool {
        let answers = &flow.reply;
        flow.status.has(self.set)
            && flow.status.0 & self.unset.0 == 0
            && self.answers_from.is_none_or(|(host, protocol, port)| {
                (answers.source, answers.protocol) == (host, protocol)
                    && port.is_none_or(|port| answers.source_port() == Some(port))
            })
    }
}

/// The attributes of a listing of these flows only.
pub(super) fn select_flows(selection: &Selection) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.put(attribute::STATUS, &selection.set.0.to_be_bytes());
    attributes.put(attribute::STATUS_MASK, &(selection.set | selection.unset).0.to_be_bytes());
    if let Some((source, protocol, port)) = selection.answers_from {
        let port_flag = if port.is_some() { filter::PROTO_SRC_PORT } else { 0 };
        let flags = filter::IP_SRC | filter::PROTO_NUM | port_flag;
        attributes.put_nested(attribute::FILTER, |attributes| {
            attributes.put(filter::ORIG_FLAGS, &0_u32.to_ne_bytes());
            attributes.put(filter::REPLY_FLAGS, &flags.to_ne_bytes());
        });
        let layer4 = Layer4::Ports { source: port.unwrap_or_default(), destination: 0 };
        let destination = Ipv4Addr::UNSPECIFIED;
        attributes.put_tuple(attribute::TUPLE_REPLY, &Tuple { source, destination, protocol, layer4, zone: None });
    }
    attributes.0
}

/// The attributes that name the flow with this first packet.
pub(super) fn name_flow(original: &Tuple) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.put_tuple(attribute::TUPLE_ORIG, original);
    attributes.0
}

/// The attributes that identify this very flow. With its number among them, the kernel does not delete a flow with the
/// same tuple that was created meanwhile.
pub(super) fn identify_flow(flow: &Flow) -> Vec<u8> {
    let mut attributes = Attributes::default();
    attributes.put_tuple(attribute::TUPLE_ORIG, &flow.original);
    if let Some(id) = flow.id {
        attributes.put(attribute::ID, &id.to_be_bytes());
    }
    if flow.zone != 0 {
        attributes.put(attribute::ZONE, &flow.zone.to_be_bytes());
    }
    attributes.0
}

/// An encoder of netlink attributes.
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

    fn put_nested(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.put(kind | NLA_F_NESTED, &inner.0);
    }

    fn put_tuple(&mut self, kind: u16, tuple: &Tuple) {
        self.put_nested(kind, |attributes| {
            attributes.put_nested(tuple::IP, |attributes| {
                attributes.put(ip::V4_SRC, &tuple.source.octets());
                attributes.put(ip::V4_DST, &tuple.destination.octets());
            });
            attributes.put_nested(tuple::PROTO, |attributes| {
                attributes.put(proto::NUM, &[tuple.protocol]);
                match tuple.layer4 {
                    Layer4::Ports { source, destination } => {
                        attributes.put(proto::SRC_PORT, &source.to_be_bytes());
                        attributes.put(proto::DST_PORT, &destination.to_be_bytes());
                    }
                    Layer4::Icmp { id, kind, code } => {
                        attributes.put(proto::ICMP_ID, &id.to_be_bytes());
                        attributes.put(proto::ICMP_TYPE, &[kind]);
                        attributes.put(proto::ICMP_CODE, &[code]);
                    }
                    Layer4::None => {}
                }
            });
            if let Some(zone) = tuple.zone {
                attributes.put(tuple::ZONE, &zone.to_be_bytes());
            }
        });
    }
}

/// The flows in a datagram that answers the request with this sequence number, and its counters, as far as it can be
/// read.
pub fn read_answer(datagram: &[u8], sequence: u32) -> (Vec<Flow>, Vec<[u32; 3]>) {
    let (mut flows, mut counters) = (Vec::new(), Vec::new());
    let _ = for_each_message::<DecodeError>(datagram, sequence, |message| {
        if let Message::Part(body) = message {
            counters.extend(parse_counters(body).ok());
            flows.extend(parse_flow(body)?);
        }
        Ok(())
    });
    (flows, counters)
}

/// An entry of the answer to `Request::ListFlows`, as the kernel encodes it.
pub fn encode_flow(flow: &Flow) -> Vec<u8> {
    let mut attributes = Attributes(identify_flow(flow));
    attributes.put_tuple(attribute::TUPLE_REPLY, &flow.reply);
    attributes.put(attribute::STATUS, &flow.status.0.to_be_bytes());
    attributes.put(attribute::MARK, &flow.mark.to_be_bytes());
    let mut body = vec![ipv4(), 0, 0, 0];
    body.extend(attributes.0);
    body
}
