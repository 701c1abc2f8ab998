//! The three things that are asked of nftables' netlink family directly, without `nft`.
//!
//! Notifications are read just far enough to know whether they are about our table: other programs change theirs all day long
//! (bans, containers), and each look at ours costs a process. Whether our table stands at all has to be known just when
//! `nft` is broken. And the kernel counts the generations of all its rules: while the number is the same, there is no need to
//! look at ten thousand elements again.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::model::TABLE;

/// Sizes and numbers from the kernel's `linux/netlink.h` and `linux/netfilter/nfnetlink.h`.
const NLMSG_HEADER: usize = 16;
const NFGENMSG: usize = 4;
const NFPROTO_INET: u8 = 1;
pub(super) const NFNL_SUBSYS_NFTABLES: u8 = 10;
/// `NFT_MSG_GETTABLE`, and `NFT_MSG_NEWTABLE`, its answer.
const GET_TABLE: u8 = 1;
const NEW_TABLE: u8 = 0;
/// `NFT_MSG_NEWGEN`, the answer, and `NFT_MSG_GETGEN`.
const NEW_GENERATION: u8 = 15;
const GET_GENERATION: u8 = 16;
/// `NFTA_GEN_ID`, a number in network byte order.
const NFTA_GEN_ID: u16 = 1;
/// `NLM_F_REQUEST`
pub(super) const REQUEST: u16 = 1;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// Linux' number of "no such file or directory" (`asm-generic/errno-base.h`).
const ENOENT: i32 = 2;
/// The table's name is attribute 1 of every nftables message but the generation's.
const NFTA_TABLE_NAME: u16 = 1;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` are not part of an attribute's type.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Whether one of the messages in `datagram` says that something in our table was added, changed or deleted.
/// What cannot be read is taken for one: a look too many is harmless.
pub fn concerns_our_table(mut datagram: &[u8]) -> bool {
    if datagram.is_empty() {
        return true;
    }
    while !datagram.is_empty() {
        let Some(length) = word(datagram, 0).map(|length| length as usize).filter(|&length| length >= NLMSG_HEADER)
        else {
            return true;
        };
        let Some(message) = datagram.get(..length) else { return true };
        if about_our_table(message).unwrap_or(true) {
            return true;
        }
        datagram = datagram.get(align(length)..).unwrap_or_default();
    }
    false
}

/// Whether our table is in the kernel.
pub fn table_exists() -> io::Result<bool> {
    let mut name = Vec::from(TABLE.as_bytes());
    name.push(0);
    verdict(&ask(GET_TABLE, &attribute(NFTA_TABLE_NAME, &name))?)
}

/// The kernel's generation of rules, of all tables together: every transaction of anybody raises it.
pub(super) fn generation() -> io::Result<u32> {
    let answer = ask(GET_GENERATION, &[])?;
    let wanted = u16::from_ne_bytes([NEW_GENERATION, NFNL_SUBSYS_NFTABLES]);
    let id = (half_word(&answer, 4) == Some(wanted)).then(|| attribute_of(&answer, NFTA_GEN_ID)).flatten();
    id.and_then(|id| id.try_into().ok()).map(u32::from_be_bytes).ok_or_else(unreadable)
}

fn ask(kind: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&question(kind, REQUEST, attributes), 0)?;
    Ok(socket.recv_from_full()?.0)
}

/// A question of nftables' family about our table's.
pub(super) fn question(kind: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = NLMSG_HEADER + NFGENMSG + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).expect("a question is short").to_ne_bytes());
    message.extend([kind, NFNL_SUBSYS_NFTABLES]);
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]); // sequence and port: one question, one answer
    message.extend([NFPROTO_INET, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// An attribute, padded.
pub(super) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(align(4 + payload.len()));
    bytes.extend(u16::try_from(4 + payload.len()).expect("an attribute is short").to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(align(bytes.len()), 0);
    bytes
}

/// A message's first attribute of a kind.
fn attribute_of(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut attributes = message.get(NLMSG_HEADER + NFGENMSG..)?;
    while !attributes.is_empty() {
        let length = usize::from(half_word(attributes, 0)?);
        let payload = attributes.get(4..length)?;
        if half_word(attributes, 2)? & NLA_TYPE_MASK == wanted {
            return Some(payload);
        }
        attributes = attributes.get(align(length)..).unwrap_or_default();
    }
    None
}

pub(super) fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer cannot be read")
}

fn verdict(answer: &[u8]) -> io::Result<bool> {
    let kind = half_word(answer, 4).ok_or_else(unreadable)?;
    if kind == ERROR {
        let code =
            answer.get(NLMSG_HEADER..NLMSG_HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        let code = code.ok_or_else(unreadable)?;
        return if code == -ENOENT { Ok(false) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) };
    }
    let expected = u16::from_ne_bytes([NEW_TABLE, NFNL_SUBSYS_NFTABLES]);
    if kind == expected { Ok(true) } else { Err(unreadable()) }
}

/// `None` when the message cannot be read.
fn about_our_table(message: &[u8]) -> Option<bool> {
    let subsystem = *message.get(5)?;
    if subsystem != NFNL_SUBSYS_NFTABLES {
        return Some(false);
    }
    let family = *message.get(NLMSG_HEADER)?;
    let mut attributes = message.get(NLMSG_HEADER + NFGENMSG..)?;
    while !attributes.is_empty() {
        let length = usize::from(half_word(attributes, 0)?);
        let kind = half_word(attributes, 2)? & NLA_TYPE_MASK;
        let payload = attributes.get(4..length)?;
        if kind == NFTA_TABLE_NAME {
            return Some(family == NFPROTO_INET && payload.strip_suffix(b"\0") == Some(TABLE.as_bytes()));
        }
        attributes = attributes.get(align(length)..).unwrap_or_default();
    }
    Some(false)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half_word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Messages and attributes start at multiples of four.
fn align(length: usize) -> usize {
    (length + 3) & !3
}
