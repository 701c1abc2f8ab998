//! The table's named counters, asked of the kernel itself.
//!
//! Not by `nft list counters`: for that nft 1.0.6 fetches the sets of all tables with their elements, ours of ten thousand forwards
//! and others' that it may crash on. Here is one question, and an answer of as many bytes as there are counters.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use serde::{Deserialize, Serialize};

use super::model::TABLE;
use super::netlink::{NFNL_SUBSYS_NFTABLES, REQUEST, attribute, question, unreadable};

/// Of `linux/netfilter/nf_tables.h`: `NFT_MSG_GETOBJ`, and `NFT_MSG_NEWOBJ`, its answer.
const GET_OBJECT: u8 = 19;
const NEW_OBJECT: u8 = 18;
/// `NFTA_OBJ_TABLE`, `NFTA_OBJ_NAME`, `NFTA_OBJ_TYPE`, `NFTA_OBJ_DATA`.
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`
const COUNTER: u32 = 1;
/// `NFTA_COUNTER_BYTES`, `NFTA_COUNTER_PACKETS`
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
/// `NLM_F_DUMP`
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR` and `NLMSG_DONE`
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Of `struct nfgenmsg`, in bytes.
const NFGENMSG: usize = 4;
/// An answer has two or three datagrams; this many have no end.
const DATAGRAMS: usize = 1000;

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// All named counters of our table; none if there is no table.
pub(super) fn counters() -> io::Result<BTreeMap<String, Count>> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut name = Vec::from(TABLE.as_bytes());
    name.push(0);
    let mut wanted = attribute(OBJECT_TABLE, &name);
    wanted.extend(attribute(OBJECT_TYPE, &COUNTER.to_be_bytes()));
    socket.send(&question(GET_OBJECT, REQUEST | DUMP, &wanted), 0)?;
    let mut counters = BTreeMap::new();
    for _ in 0..DATAGRAMS {
        let (datagram, _) = socket.recv_from_full()?;
        if read(&datagram, &mut counters)? {
            return Ok(counters);
        }
    }
    Err(unreadable())
}

/// Takes a datagram of the answer; whether it was the last one.
fn read(mut datagram: &[u8], counters: &mut BTreeMap<String, Count>) -> io::Result<bool> {
    if datagram.is_empty() {
        return Err(unreadable());
    }
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram).map_err(|_| unreadable())?;
        let length = message.length() as usize;
        match message.message_type() {
            DONE => return Ok(true),
            ERROR => {
                let code = message.payload().first_chunk().copied().map(i32::from_ne_bytes).ok_or_else(unreadable)?;
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) };
            }
            kind if kind == u16::from_be_bytes([NFNL_SUBSYS_NFTABLES, NEW_OBJECT]) => {
                let attributes = message.payload().get(NFGENMSG..).ok_or_else(unreadable)?;
                let (name, count) = counter(attributes).ok_or_else(unreadable)?;
                counters.insert(name, count);
            }
            _ => {}
        }
        // Messages start at multiples of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn counter(attributes: &[u8]) -> Option<(String, Count)> {
    let (mut name, mut count) = (None, Count::default());
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        match attribute.kind() {
            OBJECT_NAME => {
                let text = attribute.value().strip_suffix(b"\0")?;
                name = Some(std::str::from_utf8(text).ok()?.to_owned());
            }
            OBJECT_DATA => count = counted(attribute.value())?,
            _ => {}
        }
    }
    Some((name?, count))
}

fn counted(attributes: &[u8]) -> Option<Count> {
    let mut count = Count::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        let number = || attribute.value().try_into().ok().map(u64::from_be_bytes);
        match attribute.kind() {
            COUNTER_BYTES => count.bytes = number()?,
            COUNTER_PACKETS => count.packets = number()?,
            _ => {}
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn object(name: &str, packets: u64, bytes: u64) -> Vec<u8> {
        let values = [attribute(1, &bytes.to_be_bytes()), attribute(2, &packets.to_be_bytes())].concat();
        let mut payload = vec![1, 0, 0, 0];
        payload.extend(attribute(1, b"bastiond\0"));
        payload.extend(attribute(2, format!("{name}\0").as_bytes()));
        payload.extend(attribute(3, &1u32.to_be_bytes()));
        payload.extend(attribute(4 | 0x8000, &values));
        message(u16::from_be_bytes([10, 18]), &payload)
    }

    #[test]
    fn counters_of_any_size_are_read_until_the_answer_ends() {
        let mut counters = BTreeMap::new();
        let first = [object("dropped_input", 1 << 40, u64::MAX), object("egress_flows", 0, 0)].concat();
        assert!(!read(&first, &mut counters).unwrap());
        assert!(read(&message(3, &[0; 4]), &mut counters).unwrap());
        let expected = [
            ("dropped_input".to_owned(), Count { packets: 1 << 40, bytes: u64::MAX }),
            ("egress_flows".to_owned(), Count::default()),
        ];
        assert_eq!(counters, BTreeMap::from(expected));
    }

    #[test]
    fn a_refusal_and_a_broken_answer_are_errors() {
        let mut counters = BTreeMap::new();
        let refused = read(&message(2, &(-1i32).to_ne_bytes()), &mut counters).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(1));
        read(&[], &mut counters).unwrap_err();
        read(&[0; 64], &mut counters).unwrap_err();
        read(&object("a", 1, 1)[..40], &mut counters).unwrap_err();
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(0u8.., 0..200), at in 0usize..100, byte: u8) {
            let _ = read(&bytes, &mut BTreeMap::new());
            let mut object = object("dropped_input", 1, 2);
            let at = at % object.len();
            object[at] = byte;
            let _ = read(&object, &mut BTreeMap::new());
        }
    }
}
