//! The table's named counters, read from the kernel without `nft`.
//!
//! `nft list counters` is no option: nft 1.0.6 then fetches the sets of all tables with their elements, ours of ten
//! thousand forwards, and other programs' that it may crash on. This is one question, and an answer of as many bytes as
//! there are counters.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::model::{TUNNEL_ARRIVED, TUNNEL_PASSED};
use super::netlink::{attribute, attributes, check_error, message_type, messages, question, table_name, unreadable};

/// Attributes of `linux/netfilter/nf_tables.h`, which `libc` does not have.
const NFTA_OBJ_TABLE: u16 = 1;
const NFTA_OBJ_NAME: u16 = 2;
const NFTA_OBJ_TYPE: u16 = 3;
const NFTA_OBJ_DATA: u16 = 4;
const NFTA_COUNTER_BYTES: u16 = 1;
const NFTA_COUNTER_PACKETS: u16 = 2;
/// The value of `NFTA_OBJ_TYPE` for counters.
const NFT_OBJECT_COUNTER: u32 = 1;
/// An answer has two or three datagrams. One that has more than this does not end.
const MAX_DATAGRAMS: usize = 1000;

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of packets.
    pub packets: u64,
    /// Bytes of these packets, with their IP headers.
    pub bytes: u64,
}

/// Packets for the tunnel's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortCount {
    /// That came in, before any chain for packets to this server.
    pub arrived: u64,
    /// That no such chain has dropped.
    pub passed: u64,
}

/// What the rules have counted at the tunnel's port; `None` without a tunnel, or if the counters cannot be read.
pub(crate) fn tunnel_port_count() -> Option<PortCount> {
    let counters = read_counters()
        .map_err(|error| tracing::debug!(component = "nat", %error, "the counters cannot be read"))
        .ok()?;
    let packets = |name: &str| counters.get(name).map(|count| count.packets);
    Some(PortCount { arrived: packets(TUNNEL_ARRIVED)?, passed: packets(TUNNEL_PASSED)? })
}

/// All named counters of our table; none if there is no table.
pub(super) fn read_counters() -> io::Result<BTreeMap<String, Count>> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut wanted = attribute(NFTA_OBJ_TABLE, &table_name());
    wanted.extend(attribute(NFTA_OBJ_TYPE, &NFT_OBJECT_COUNTER.to_be_bytes()));
    socket.send(&question(libc::NFT_MSG_GETOBJ, NLM_F_REQUEST | NLM_F_DUMP, &wanted), 0)?;
    let mut counters = BTreeMap::new();
    for _ in 0..MAX_DATAGRAMS {
        let (datagram, _) = socket.recv_from_full()?;
        if add_counters(&datagram, &mut counters)? {
            return Ok(counters);
        }
    }
    Err(unreadable())
}

/// The counters in a datagram of the answer, each with its packets and bytes.
pub fn counters_in(datagram: &[u8]) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let mut counters = BTreeMap::new();
    add_counters(datagram, &mut counters)?;
    Ok(counters.into_iter().map(|(name, Count { packets, bytes })| (name, (packets, bytes))).collect())
}

/// Adds the counters in a datagram of the answer. Returns whether it was the last datagram.
fn add_counters(datagram: &[u8], counters: &mut BTreeMap<String, Count>) -> io::Result<bool> {
    if datagram.is_empty() {
        return Err(unreadable());
    }
    for message in messages(datagram) {
        let message = message.ok_or_else(unreadable)?;
        check_error(&message)?;
        match message.message_type() {
            kind if [libc::NLMSG_DONE, libc::NLMSG_ERROR].contains(&kind.into()) => return Ok(true),
            kind if kind == message_type(libc::NFT_MSG_NEWOBJ) => {
                let (name, count) = read_counter(&message).ok_or_else(unreadable)?;
                counters.insert(name, count);
            }
            _ => {}
        }
    }
    Ok(false)
}

fn read_counter(message: &NetlinkBuffer<&[u8]>) -> Option<(String, Count)> {
    let (mut name, mut count) = (None, Count::default());
    for attribute in attributes(message) {
        let attribute = attribute.ok()?;
        match attribute.kind() {
            NFTA_OBJ_NAME => {
                let text = attribute.value().strip_suffix(b"\0")?;
                name = Some(std::str::from_utf8(text).ok()?.to_owned());
            }
            NFTA_OBJ_DATA => count = read_count(attribute.value())?,
            _ => {}
        }
    }
    Some((name?, count))
}

fn read_count(attributes: &[u8]) -> Option<Count> {
    let mut count = Count::default();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.ok()?;
        let number = || attribute.value().try_into().ok().map(u64::from_be_bytes);
        match attribute.kind() {
            NFTA_COUNTER_BYTES => count.bytes = number()?,
            NFTA_COUNTER_PACKETS => count.packets = number()?,
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
    fn counters_are_read_until_the_answer_ends() {
        let mut counters = BTreeMap::new();
        let first = [object("dropped_input", 1 << 40, u64::MAX), object("egress_flows", 0, 0)].concat();
        assert!(!add_counters(&first, &mut counters).unwrap());
        assert!(add_counters(&message(3, &[0; 4]), &mut counters).unwrap());
        let expected = [
            ("dropped_input".to_owned(), Count { packets: 1 << 40, bytes: u64::MAX }),
            ("egress_flows".to_owned(), Count::default()),
        ];
        assert_eq!(counters, BTreeMap::from(expected));
    }

    #[test]
    fn an_error_message_and_a_broken_answer_are_errors() {
        let mut counters = BTreeMap::new();
        let refused = add_counters(&message(2, &(-1i32).to_ne_bytes()), &mut counters).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(1));
        add_counters(&[], &mut counters).unwrap_err();
        add_counters(&[0; 64], &mut counters).unwrap_err();
        add_counters(&object("a", 1, 1)[..40], &mut counters).unwrap_err();
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(0u8.., 0..200), at in 0usize..100, byte: u8
        ) {
            let _ = add_counters(&bytes, &mut BTreeMap::new());
            let mut object = object("dropped_input", 1, 2);
            let at = at % object.len();
            object[at] = byte;
            let _ = add_counters(&object, &mut BTreeMap::new());
        }
    }
}
