//! Fills the sets of limited sources and links, in one transaction.
//!
//! Own messages, not `nft`: sources come and go in a flood many times a second, and a process for each change would be
//! part of the damage. The sets and the rules that look into them belong to the component `nat`.

use std::io;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::counts::Source;
use super::decide::Decision;
use crate::inputs::{LIMITED_LINKS, LIMITED_RANGES, LIMITED4, LIMITED6, RULES_TABLE};

/// For how many seconds an element stays without a daemon. The daemon writes all of them again in time.
pub(super) const TIMEOUT_SECONDS: u64 = 60;
/// How long the kernel may take for a transaction.
const ANSWER_TIMEOUT_SECONDS: i64 = 5;
/// Elements in one message: an attribute has at most 64 KiB.
const ELEMENTS_PER_MESSAGE: usize = 512;
/// Bytes of an interface's name as a set's key.
const IFNAMSIZ: usize = 16;
/// Of `linux/netfilter/nfnetlink.h`.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// Of `linux/netfilter/nf_tables.h`.
const SET_ELEM_LIST_TABLE: u16 = 1;
const SET_ELEM_LIST_SET: u16 = 2;
const SET_ELEM_LIST_ELEMENTS: u16 = 3;
const LIST_ELEM: u16 = 1;
const SET_ELEM_KEY: u16 = 1;
const SET_ELEM_FLAGS: u16 = 3;
const SET_ELEM_TIMEOUT: u16 = 4;
/// The element is the first key behind a range.
const INTERVAL_END: u32 = 1;
const DATA_VALUE: u16 = 1;

/// Makes the sets hold exactly what was decided.
///
/// # Errors
/// The kernel refuses, `NotFound` if the sets are not there.
pub(super) fn write(decision: &Decision) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_cap_ack(true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_SECONDS))?;
    let batch = encode(decision);
    let length = i32::try_from(batch.len()).unwrap_or(i32::MAX);
    // A transaction is one datagram.
    if setsockopt(&socket, sockopt::SndBufForce, &usize::try_from(length).unwrap_or(usize::MAX)).is_err() {
        _ = setsockopt(&socket, sockopt::SndBuf, &batch.len());
    }
    socket.send(&batch, 0)?;
    check_answer(&socket)
}

/// Waits for the confirmation of the last message, or for an error of any.
fn check_answer(socket: &Socket) -> io::Result<()> {
    let mut buffer = vec![0; 8192];
    let length = socket.recv(&mut buffer.as_mut_slice(), 0)?;
    let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer cannot be read");
    let message = NetlinkBuffer::new_checked(&buffer[..length]).map_err(|_| unreadable())?;
    if message.message_type() != NLMSG_ERROR {
        return Err(unreadable());
    }
    match message.payload().first_chunk().copied().map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(unreadable()),
    }
}

/// The transaction: each set is emptied and filled.
fn encode(decision: &Decision) -> Vec<u8> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for source in decision.limited.keys() {
        match source {
            Source::V4(address) => v4.push(address.octets().to_vec()),
            Source::V6(prefix) => v6.push((u128::from(*prefix) << 64).to_be_bytes().to_vec()),
        }
    }
    let link = |name: &crate::net::InterfaceName| {
        let mut key = name.as_str().as_bytes().to_vec();
        key.resize(IFNAMSIZ, 0);
        key
    };
    let links: Vec<Vec<u8>> = decision.closed.iter().map(link).collect();
    let keys = |keys: Vec<Vec<u8>>| -> Vec<Element> {
        keys.into_iter().map(|key| Element { key, is_behind: false }).collect()
    };
    let ranges: Vec<Element> = decision.ranges.iter().copied().flat_map(ends).collect();
    let mut batch = Vec::new();
    let nftables = u16::try_from(libc::NFNL_SUBSYS_NFTABLES).expect("a subsystem is a number of one byte");
    put_message(&mut batch, BATCH_BEGIN, NLM_F_REQUEST, [0, nftables], &[]);
    let sets = [(LIMITED4, keys(v4)), (LIMITED6, keys(v6)), (LIMITED_RANGES, ranges), (LIMITED_LINKS, keys(links))];
    let last = sets.len() - 1;
    for (index, (set, keys)) in sets.into_iter().enumerate() {
        // The last message of the transaction asks for a confirmation.
        let ack = |is_last: bool| if index == last && is_last { NLM_F_ACK } else { 0 };
        let delete = nftables << 8 | u16::try_from(libc::NFT_MSG_DELSETELEM).expect("a kind is one byte");
        put_message(&mut batch, delete, NLM_F_REQUEST | ack(keys.is_empty()), [1, 0], &names(set));
        let add = nftables << 8 | u16::try_from(libc::NFT_MSG_NEWSETELEM).expect("a kind is one byte");
        let chunks = keys.len().div_ceil(ELEMENTS_PER_MESSAGE);
        for (number, keys) in keys.chunks(ELEMENTS_PER_MESSAGE).enumerate() {
            let mut attributes = names(set);
            put(&mut attributes, SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED, &elements(keys));
            let flags = NLM_F_REQUEST | NLM_F_CREATE | ack(number + 1 == chunks);
            put_message(&mut batch, add, flags, [1, 0], &attributes);
        }
    }
    put_message(&mut batch, BATCH_END, NLM_F_REQUEST, [0, nftables], &[]);
    batch
}

/// What is written into a set.
struct Element {
    key: Vec<u8>,
    /// Whether it is the first key behind a range.
    is_behind: bool,
}

/// A range as the kernel takes it: its first key, and the first one behind it.
fn ends(range: Ipv4Net) -> impl Iterator<Item = Element> + use<> {
    let first = Element { key: range.network().octets().to_vec(), is_behind: false };
    let behind = range.broadcast().to_bits().checked_add(1);
    let behind = behind.map(|behind| Element { key: behind.to_be_bytes().to_vec(), is_behind: true });
    std::iter::once(first).chain(behind)
}

fn names(set: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    put(&mut attributes, SET_ELEM_LIST_TABLE, &[RULES_TABLE.as_bytes(), b"\0"].concat());
    put(&mut attributes, SET_ELEM_LIST_SET, &[set.as_bytes(), b"\0"].concat());
    attributes
}

fn elements(keys: &[Element]) -> Vec<u8> {
    let mut list = Vec::new();
    for Element { key, is_behind } in keys {
        let (mut data, mut element) = (Vec::new(), Vec::new());
        put(&mut data, DATA_VALUE, key);
        put(&mut element, SET_ELEM_KEY | NLA_F_NESTED, &data);
        // The end of a range goes with its beginning, and the kernel takes no time-out for it.
        if *is_behind {
            put(&mut element, SET_ELEM_FLAGS, &INTERVAL_END.to_be_bytes());
        } else {
            put(&mut element, SET_ELEM_TIMEOUT, &(TIMEOUT_SECONDS * 1000).to_be_bytes());
        }
        put(&mut list, LIST_ELEM | NLA_F_NESTED, &element);
    }
    list
}

/// Appends an attribute with its padding.
fn put(attributes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("a message has few elements");
    attributes.extend(length.to_ne_bytes());
    attributes.extend(kind.to_ne_bytes());
    attributes.extend(value);
    attributes.resize(attributes.len().next_multiple_of(4), 0);
}

/// Appends a message. `family_and_subsystem`: the first byte and the last field of `struct nfgenmsg`.
fn put_message(batch: &mut Vec<u8>, kind: u16, flags: u16, [family, resource]: [u16; 2], attributes: &[u8]) {
    let length = u32::try_from(20 + attributes.len()).expect("a message is short");
    batch.extend(length.to_ne_bytes());
    batch.extend(kind.to_ne_bytes());
    batch.extend(flags.to_ne_bytes());
    batch.extend([0; 8]); // sequence number and port
    batch.extend([u8::try_from(family).unwrap_or_default(), 0]);
    batch.extend(resource.to_be_bytes());
    batch.extend(attributes);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::decide::LimitReason;
    use super::*;

    /// The kind and the flags of each message.
    fn messages(mut batch: &[u8]) -> Vec<(u16, u16)> {
        let mut kinds = Vec::new();
        while !batch.is_empty() {
            let message = NetlinkBuffer::new_checked(batch).unwrap();
            kinds.push((message.message_type() & 0xff, message.flags()));
            batch = &batch[usize::try_from(message.length()).unwrap()..];
        }
        kinds
    }

    #[test]
    fn a_transaction_empties_and_fills_each_set_and_its_last_change_asks_for_a_confirmation() {
        let (add, delete) = (12, 14);
        let (asks, creates) = (NLM_F_REQUEST, NLM_F_REQUEST | NLM_F_CREATE);
        let nothing = encode(&Decision::default());
        let deletes = [asks, asks, asks, asks | NLM_F_ACK].map(|flags| (delete, flags));
        let empty = [&[(BATCH_BEGIN, asks)][..], &deletes, &[(BATCH_END, asks)]].concat();
        assert_eq!(messages(&nothing), empty);
        let limited = (0..1000).map(|host| (Source::V4(Ipv4Addr::from(host)), LimitReason::Limit));
        let limited = limited.chain([(Source::V6(7), LimitReason::Share)]).collect();
        let ranges = ["192.168.0.0/22".parse().unwrap(), "10.9.0.0/24".parse().unwrap()].into();
        let full = Decision { limited, ranges, closed: ["eth0".parse().unwrap()].into(), share: None };
        assert_eq!(
            messages(&encode(&full)),
            [
                (BATCH_BEGIN, asks),
                (delete, asks),
                (add, creates),
                (add, creates),
                (delete, asks),
                (add, creates),
                (delete, asks),
                (add, creates),
                (delete, asks),
                (add, creates | NLM_F_ACK),
                (BATCH_END, asks),
            ]
        );
    }
}
