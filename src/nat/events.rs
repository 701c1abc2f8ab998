//! Reads nftables' netlink notifications just far enough to know whether they are about our table: other programs change
//! theirs all day long (bans, containers), and each look at ours costs a process.

use super::model::TABLE;

/// Sizes and numbers from the kernel's `linux/netlink.h` and `linux/netfilter/nfnetlink.h`.
const NLMSG_HEADER: usize = 16;
const NFGENMSG: usize = 4;
const NFPROTO_INET: u8 = 1;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
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
