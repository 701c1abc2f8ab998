//! The questions that go to nftables' netlink family directly, without `nft`.
//!
//! Notifications are read just far enough to know whether they are about our table: other programs change theirs all
//! day long (bans, containers), and each listing of ours costs a process. Whether our table exists must be known even
//! when `nft` is broken. And the kernel counts the generations of all its rules: while the number is the same, ten
//! thousand elements need not be listed again.
//!
//! `netlink-packet-core` reads headers and attributes. It has no messages of nftables, so those are put together here.

use std::io;

use netlink_packet_core::{DefaultNla, Emitable, NLM_F_REQUEST, NetlinkBuffer, NlaBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;

use super::model::TABLE;
use crate::inputs::{LIMITED_LINKS, LIMITED_RANGES, LIMITED4, LIMITED6};

/// Of a netlink message's header, in bytes (`struct nlmsghdr`, `linux/netlink.h`).
const HEADER: usize = 16;
/// Of `struct nfgenmsg`, which comes before the attributes, in bytes (`linux/netfilter/nfnetlink.h`).
pub(super) const NFGENMSG: usize = 4;
/// Attributes of `linux/netfilter/nf_tables.h` that `libc` does not have. The table's name is attribute 1 of every
/// nftables message but the generation's.
const NFTA_TABLE_NAME: u16 = 1;
/// The flags of a table, a number in network byte order, and the one of a table whose chains see no packets.
const NFTA_TABLE_FLAGS: u16 = 2;
const TABLE_DORMANT: u32 = 1;
/// The type of a base chain as text: `nat`.
const NFTA_CHAIN_TYPE: u16 = 7;
/// The name of the set whose elements change.
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
/// The expressions of a rule, each with its name and its data, and in the data of `payload` what is written.
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_PAYLOAD_SREG: u16 = 5;
/// A number in network byte order.
const NFTA_GEN_ID: u16 = 1;

/// Whether one of the messages in `datagram` says that something in our table was added, changed or deleted, that a nat
/// chain was registered anywhere, which may come before ours, or that a new rule writes into packets, so that the last
/// chain of all has to look at what leaves. What cannot be read counts as such a message: a needless listing is
/// harmless.
pub fn concerns_our_table(datagram: &[u8]) -> bool {
    let concerns = |message: &NetlinkBuffer<&[u8]>| is_about_our_table(message).unwrap_or(true);
    datagram.is_empty() || messages(datagram).any(|message| message.as_ref().is_none_or(concerns))
}

/// Whether one of the messages in `datagram` says that a table, chain or rule of any program was added, changed or
/// deleted: it may need every packet from then on. Elements of sets are left out.
pub fn changes_rules(datagram: &[u8]) -> bool {
    const KINDS: [libc::c_int; 6] = [
        libc::NFT_MSG_NEWTABLE,
        libc::NFT_MSG_DELTABLE,
        libc::NFT_MSG_NEWCHAIN,
        libc::NFT_MSG_DELCHAIN,
        libc::NFT_MSG_NEWRULE,
        libc::NFT_MSG_DELRULE,
    ];
    let changes =
        |message: &NetlinkBuffer<&[u8]>| KINDS.iter().any(|kind| message_type(*kind) == message.message_type());
    datagram.is_empty() || messages(datagram).any(|message| message.as_ref().is_none_or(changes))
}

/// How our table stands in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Absent,
    /// It is there, and its chains see no packets (`flags dormant`).
    Dormant,
    Active,
}

/// Whether our table is in the kernel, and its chains see packets.
pub(crate) fn table_filters() -> io::Result<bool> {
    Ok(standing()? == Standing::Active)
}

/// How our table stands. nft's JSON does not say whether a table is dormant before version 1.1.
pub(super) fn standing() -> io::Result<Standing> {
    let answer = ask(libc::NFT_MSG_GETTABLE, &attribute(NFTA_TABLE_NAME, &table_name()))?;
    let message = messages(&answer).next().flatten().ok_or_else(unreadable)?;
    match check_error(&message) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Standing::Absent),
        Err(error) => Err(error),
        Ok(()) if message.message_type() == message_type(libc::NFT_MSG_NEWTABLE) => {
            let is_flags = |attribute: &NlaBuffer<&[u8]>| attribute.kind() == NFTA_TABLE_FLAGS;
            let flags = attributes(&message).map_while(Result::ok).find(is_flags);
            let flags = flags.and_then(|flags| flags.value().try_into().ok()).map_or(0, u32::from_be_bytes);
            Ok(if flags & TABLE_DORMANT != 0 { Standing::Dormant } else { Standing::Active })
        }
        Ok(()) => Err(unreadable()),
    }
}

/// The kernel's generation of rules, of all tables together. Every transaction of any program raises it.
pub(super) fn generation() -> io::Result<u32> {
    let answer = ask(libc::NFT_MSG_GETGEN, &[])?;
    let message = messages(&answer).next().flatten().ok_or_else(unreadable)?;
    check_error(&message)?;
    if message.message_type() != message_type(libc::NFT_MSG_NEWGEN) {
        return Err(unreadable());
    }
    let is_generation = |attribute: &NlaBuffer<&[u8]>| attribute.kind() == NFTA_GEN_ID;
    let id = attributes(&message).map_while(Result::ok).find(is_generation);
    id.and_then(|id| id.value().try_into().ok()).map(u32::from_be_bytes).ok_or_else(unreadable)
}

/// Sends a question and returns the first datagram of the answer.
fn ask(kind: libc::c_int, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&question(kind, NLM_F_REQUEST, attributes), 0)?;
    Ok(socket.recv_from_full()?.0)
}

/// The type of a message of nftables: its subsystem and its kind.
pub(super) fn message_type(kind: libc::c_int) -> u16 {
    u16::try_from(libc::NFNL_SUBSYS_NFTABLES << 8 | kind).expect("both are numbers of one byte")
}

/// A message to nftables about tables of family `inet`.
pub(super) fn question(kind: libc::c_int, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + NFGENMSG + attributes.len();
    let mut message = vec![0; HEADER];
    let mut header = NetlinkBuffer::new(&mut message);
    header.set_length(u32::try_from(length).expect("a question is short"));
    header.set_message_type(message_type(kind));
    header.set_flags(flags);
    // The sequence number and the port stay 0: one question, one answer.
    message.extend([u8::try_from(libc::NFPROTO_INET).expect("a family is a number of one byte"), 0, 0, 0]);
    message.extend(attributes);
    message
}

/// An attribute with its header and padding.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// Our table's name as an attribute has it, with the final zero.
pub(super) fn table_name() -> Vec<u8> {
    [TABLE.as_bytes(), b"\0"].concat()
}

/// The messages of a datagram; `None` for one that cannot be read, which ends the iteration.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Option<NetlinkBuffer<&[u8]>>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let whole = NetlinkBuffer::new_checked(datagram).ok();
        let message = whole.and_then(|message| datagram.get(..message.length() as usize));
        // Messages start at multiples of four.
        datagram = message.and_then(|message| datagram.get(message.len().next_multiple_of(4)..)).unwrap_or_default();
        Some(message.map(NetlinkBuffer::new))
    })
}

/// The attributes of a message of nftables.
pub(super) fn attributes<'a>(message: &NetlinkBuffer<&'a [u8]>) -> NlasIterator<&'a [u8]> {
    NlasIterator::new(message.payload().get(NFGENMSG..).unwrap_or_default())
}

/// The error in a message, if that is what it is. A confirmation is an error message with the number 0.
pub(super) fn check_error(message: &NetlinkBuffer<&[u8]>) -> io::Result<()> {
    if libc::c_int::from(message.message_type()) != libc::NLMSG_ERROR {
        return Ok(());
    }
    match message.payload().first_chunk().copied().map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(unreadable()),
    }
}

pub(super) fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer cannot be read")
}

/// `None` if the message cannot be read.
fn is_about_our_table(message: &NetlinkBuffer<&[u8]>) -> Option<bool> {
    let [subsystem, _] = message.message_type().to_be_bytes();
    if libc::c_int::from(subsystem) != libc::NFNL_SUBSYS_NFTABLES {
        return Some(false);
    }
    let family = *message.payload().first_chunk::<NFGENMSG>()?.first()?;
    let kind = message.message_type();
    let changes_elements =
        [libc::NFT_MSG_NEWSETELEM, libc::NFT_MSG_DELSETELEM].iter().any(|changed| message_type(*changed) == kind);
    let is_new_chain = message.message_type() == message_type(libc::NFT_MSG_NEWCHAIN);
    let is_new_rule = message.message_type() == message_type(libc::NFT_MSG_NEWRULE);
    for attribute in attributes(message) {
        let attribute = attribute.ok()?;
        let is_ours = attribute.kind() == NFTA_TABLE_NAME
            && libc::c_int::from(family) == libc::NFPROTO_INET
            && attribute.value() == table_name();
        let is_nat = is_new_chain && attribute.kind() == NFTA_CHAIN_TYPE && attribute.value() == b"nat\0";
        if is_ours && changes_elements {
            continue;
        }
        let writes = || {
            is_new_rule
                && attribute.kind() == NFTA_RULE_EXPRESSIONS
                && writes_into_packets(attribute.value()) != Some(false)
        };
        if is_ours || is_nat || writes() {
            return Some(true);
        }
        if attribute.kind() == NFTA_SET_ELEM_LIST_SET && changes_elements {
            return Some(!is_filled_elsewhere(attribute.value()));
        }
        if attribute.kind() == NFTA_TABLE_NAME && !is_new_chain && !is_new_rule {
            return Some(false);
        }
    }
    Some(changes_elements)
}

/// Whether the daemon fills a set besides its passes, many times a second in a flood.
fn is_filled_elsewhere(set: &[u8]) -> bool {
    let name = set.strip_suffix(b"\0").unwrap_or(set);
    [LIMITED4, LIMITED6, LIMITED_RANGES, LIMITED_LINKS].iter().any(|filled| filled.as_bytes() == name)
}

/// Whether one of a rule's expressions writes into packets; `None` if they cannot be read.
fn writes_into_packets(expressions: &[u8]) -> Option<bool> {
    for expression in nested(expressions) {
        let expression = expression.ok()?;
        let (mut is_payload, mut writes) = (false, false);
        for part in nested(expression.value()) {
            let part = part.ok()?;
            match part.kind() {
                NFTA_EXPR_NAME => is_payload = part.value() == b"payload\0",
                NFTA_EXPR_DATA => {
                    writes = nested(part.value()).map_while(Result::ok).any(|it| it.kind() == NFTA_PAYLOAD_SREG);
                }
                _ => {}
            }
        }
        if is_payload && writes {
            return Some(true);
        }
    }
    Some(false)
}

fn nested(bytes: &[u8]) -> NlasIterator<&[u8]> {
    NlasIterator::new(bytes)
}
