use std::ffi::CString;

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{PacketNla, ULogMessage};
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage};
use proptest::prelude::*;

use super::*;

fn message(attributes: Vec<PacketNla>) -> Vec<u8> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, JOURNAL_GROUP);
    let payload = NetlinkPayload::from(NetfilterMessage::new(header, ULogMessage::Packet(attributes)));
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn prefix(text: &str) -> PacketNla {
    PacketNla::Prefix(CString::new(text).unwrap())
}

/// 192.0.2.7:1234 to 198.51.100.2:22 over TCP, as far as 24 bytes go.
fn tcp() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 7, 198, 51, 100, 2];
    packet.extend([1234u16.to_be_bytes(), 22u16.to_be_bytes()].concat());
    packet
}

fn of_tcp() -> Dropped {
    Dropped {
        reason: "dropped_banned".to_owned(),
        from: Some(2),
        to: None,
        source: Some("192.0.2.7".parse().unwrap()),
        destination: Some("198.51.100.2".parse().unwrap()),
        protocol: Some(6),
        ports: Some((1234, 22)),
    }
}

#[test]
fn a_packet_is_described_with_its_reason_its_addresses_and_its_ports() {
    let logged = vec![prefix("bastiond dropped_banned"), PacketNla::IfIndexInDev(2), PacketNla::Payload(tcp())];
    // The kernel collects packets in one datagram and ends it with a message of its own.
    let mut end = vec![0; 20];
    end[..8].copy_from_slice(&[20, 0, 0, 0, 3, 0, 2, 0]);
    let datagram = [message(logged.clone()), message(logged), end].concat();
    assert_eq!(read(&datagram), [of_tcp(), of_tcp()]);
    assert_eq!(of_tcp().to_string(), "dropped_banned: tcp 192.0.2.7:1234 -> 198.51.100.2:22");
}

#[test]
fn a_datagram_of_a_real_kernel_is_read() {
    let described: Vec<String> =
        read(include_bytes!("../../tests/data/nflog/two-packets.bin")).iter().map(ToString::to_string).collect();
    let expected = ["dropped_input: udp 192.0.2.7:5000 -> 192.0.2.7:53", "dropped_input: tcp [::1]:5001 -> [::1]:443"];
    assert_eq!(described, expected);
}

#[test]
fn packets_of_ipv6_and_packets_without_ports_are_described_as_far_as_possible() {
    let mut ping = vec![0x60, 0, 0, 0, 0, 8, 58, 64];
    ping.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    ping.extend("2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    ping.extend([128, 0, 0, 0, 0, 0, 0, 0]);
    let described = |payload: Vec<u8>| {
        let datagram = message(vec![PacketNla::Payload(payload), prefix("bastiond dropped_pings")]);
        read(&datagram).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(described(ping), ["dropped_pings: icmpv6 2001:db8::7 -> 2001:db8::2"]);
    let mut fragment = tcp();
    fragment[6..8].copy_from_slice(&[0x20, 0x10]);
    assert_eq!(described(fragment), ["dropped_pings: tcp 192.0.2.7 -> 198.51.100.2"]);
    assert_eq!(described(tcp()[..20].to_vec()), ["dropped_pings: tcp 192.0.2.7 -> 198.51.100.2"]);
    assert_eq!(described(tcp()[..19].to_vec()), ["dropped_pings"]);
    assert_eq!(described(Vec::new()), ["dropped_pings"]);
}

#[test]
fn packets_that_other_rules_log_to_the_group_are_left_out() {
    for foreign in ["", "[UFW BLOCK] ", "bastiond", "bastiond ", "bastiond dropped_x\nfaked=1", "bastiond Dropped"] {
        assert_eq!(read(&message(vec![prefix(foreign), PacketNla::Payload(tcp())])), [], "{foreign:?}");
    }
    assert_eq!(read(&message(vec![PacketNla::Payload(tcp())])), []);
}

#[test]
fn an_unreadable_message_does_not_hide_the_next_one() {
    let good = message(vec![prefix("bastiond dropped_banned"), PacketNla::IfIndexInDev(2), PacketNla::Payload(tcp())]);
    let mut bad = good.clone();
    bad[20] = 0xff; // the first attribute's length
    bad[21] = 0xff;
    assert_eq!(read(&[bad, good].concat()), [of_tcp()]);
    assert_eq!(read(&[0; 64]), [], "a length of zero must not loop");
}

#[tokio::test]
async fn without_log_drops_to_the_journal_no_task_runs() {
    let mut log = DropLog::default();
    log.listen(LogDrops::Off).await;
    assert!(log.task.is_none());
    log.listen(LogDrops::Group(7)).await;
    assert!(log.task.is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(0u8.., 0..300)) {
        prop_assert!(read(&bytes).len() <= bytes.len() / 16);
        nflog::answer(&bytes);
    }

    #[test]
    fn any_packet_is_described_on_one_line(
        payload in proptest::collection::vec(0u8.., 0..160), at in 0usize..300, byte: u8) {
        let mut datagram = message(vec![prefix("bastiond dropped_input"), PacketNla::Payload(payload)]);
        let described = read(&datagram);
        prop_assert_eq!(described.len(), 1);
        let line = described[0].to_string();
        prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{line}");
        let at = at % datagram.len();
        datagram[at] = byte;
        read(&datagram);
    }
}
