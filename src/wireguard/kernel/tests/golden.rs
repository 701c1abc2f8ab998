//! Messages byte for byte, written down from include/uapi/linux/wireguard.h and netlink(7), not by the crate that makes
//! them.

use std::time::{Duration, SystemTime};

use netlink_packet_core::ParseableParametrized;
use netlink_packet_generic::GenlHeader;

use super::super::message::{Dump, LIMIT, Message, changes, encode};
use super::{add, peer, take};
use bastiond_tunnel::key::{LENGTH, PresharedKey, PrivateKey};
use bastiond_tunnel::model::{PeerSnapshot, PeerUpdate, Snapshot, Update};

const NESTED: u16 = 0x8000;
const SECRET: [u8; LENGTH] = [0x48; LENGTH];

/// `struct nlattr`: length, type, value, and zeroes up to the next multiple of four.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nest(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind, &attributes.concat())
}

/// `struct nlmsghdr` of type 28 with `NLM_F_REQUEST | NLM_F_ACK`, sequence 7; `struct genlmsghdr` of version 1.
fn message(command: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes = attributes.concat();
    let length = u32::try_from(20 + attributes.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([28_u16.to_ne_bytes(), 5_u16.to_ne_bytes()].concat());
    bytes.extend([7_u32.to_ne_bytes(), 0_u32.to_ne_bytes()].concat());
    bytes.extend([command, 1, 0, 0]);
    bytes.extend(attributes);
    bytes
}

#[test]
fn a_change_is_encoded_as_in_the_kernels_header() {
    let first = PeerUpdate {
        preshared_key: Some(PresharedKey([3; LENGTH])),
        endpoint: Some("192.95.5.67:1234".parse().unwrap()),
        persistent_keepalive: Some(25),
        replace_allowed_ips: true,
        allowed_ips: vec![add("10.192.124.0/24"), add("2001:db8::/32")],
        ..PeerUpdate::new(peer(1))
    };
    let second = PeerUpdate {
        update_only: true,
        endpoint: Some(std::net::SocketAddrV6::new("2607:5300:60:6b0::c05f:543".parse().unwrap(), 2468, 0, 9).into()),
        allowed_ips: vec![take("10.0.0.0/8")],
        ..PeerUpdate::new(peer(2))
    };
    let update = Update {
        private_key: Some(Some(PrivateKey::from_bytes(SECRET))),
        listen_port: Some(51820),
        fwmark: Some(0xca6c),
        replace_peers: true,
        peers: vec![first, second, PeerUpdate { remove: true, ..PeerUpdate::new(peer(4)) }],
    };
    let net = |family: u16, address: &[u8], length: u8, flags: &[u32]| {
        let mut attributes = vec![attribute(1, &family.to_ne_bytes()), attribute(2, address), attribute(3, &[length])];
        attributes.extend(flags.iter().map(|flags| attribute(4, &flags.to_ne_bytes())));
        nest(NESTED, &attributes)
    };
    let v4 = [&[2, 0, 0x04, 0xd2, 192, 95, 5, 67][..], &[0; 8]].concat();
    let v6 = [
        &[10, 0, 0x09, 0xa4, 0, 0, 0, 0][..],
        &[0x26, 0x07, 0x53, 0, 0, 0x60, 0x06, 0xb0, 0, 0, 0, 0, 0xc0, 0x5f, 0x05, 0x43],
        &9_u32.to_ne_bytes(),
    ]
    .concat();
    let documentation: Vec<u8> = [0x20, 0x01, 0x0d, 0xb8].into_iter().chain([0; 12]).collect();
    let first = nest(
        NESTED,
        &[
            attribute(1, &[1; 32]),
            attribute(3, &2_u32.to_ne_bytes()),
            attribute(2, &[3; 32]),
            attribute(4, &v4),
            attribute(5, &25_u16.to_ne_bytes()),
            nest(9 | NESTED, &[net(2, &[10, 192, 124, 0], 24, &[]), net(10, &documentation, 32, &[])]),
        ],
    );
    let second = nest(
        NESTED,
        &[
            attribute(1, &[2; 32]),
            attribute(3, &4_u32.to_ne_bytes()),
            attribute(4, &v6),
            nest(9 | NESTED, &[net(2, &[10, 0, 0, 0], 8, &[1])]),
        ],
    );
    let third = nest(NESTED, &[attribute(1, &[4; 32]), attribute(3, &1_u32.to_ne_bytes())]);
    let expected = message(
        1,
        &[
            attribute(2, b"wg0\0"),
            attribute(5, &1_u32.to_ne_bytes()),
            attribute(3, &SECRET),
            attribute(6, &51820_u16.to_ne_bytes()),
            attribute(7, &0xca6c_u32.to_ne_bytes()),
            nest(8 | NESTED, &[first, second, third]),
        ],
    );
    let messages = changes(&"wg0".parse().unwrap(), &update, LIMIT);
    let bytes: Vec<_> = messages.iter().map(|message| encode(message, 28, 5, 7).to_vec()).collect();
    assert_eq!(bytes, [expected]);
}

#[test]
fn zeroes_remove_the_key_and_an_empty_change_is_one_message() {
    let bytes = |update| {
        let messages = changes(&"wg0".parse().unwrap(), &update, 0);
        messages.iter().map(|message| encode(message, 28, 5, 7).to_vec()).collect::<Vec<_>>()
    };
    let without_key = Update { private_key: Some(None), ..Update::default() };
    assert_eq!(bytes(without_key), [message(1, &[attribute(2, b"wg0\0"), attribute(3, &[0; 32])])]);
    assert_eq!(bytes(Update::default()), [message(1, &[attribute(2, b"wg0\0")])]);
}

#[test]
fn the_request_names_the_interface() {
    let question = Message::get_device(&"wg-office".parse().unwrap());
    assert_eq!(encode(&question, 28, 5, 7).to_vec(), message(0, &[attribute(2, b"wg-office\0")]));
}

/// The end of a message's headers on: the attributes.
fn parsed(attributes: &[Vec<u8>]) -> Message {
    Message::parse_with_param(&attributes.concat(), GenlHeader { cmd: 0, version: 1 }).unwrap()
}

#[test]
fn an_answer_in_two_messages_is_one_snapshot() {
    let net = |address: &[u8], length: u8| {
        let family: u16 = if address.len() == 4 { 2 } else { 10 };
        nest(0, &[attribute(3, &[length]), attribute(1, &family.to_ne_bytes()), attribute(2, address)])
    };
    let handshake = |seconds: i64, nanos: i64| attribute(6, &[seconds.to_ne_bytes(), nanos.to_ne_bytes()].concat());
    let documentation: Vec<u8> = [0x20, 0x01, 0x0d, 0xb8].into_iter().chain([0; 12]).collect();
    let first = parsed(&[
        attribute(6, &51820_u16.to_ne_bytes()),
        attribute(7, &0xca6c_u32.to_ne_bytes()),
        attribute(1, &7_u32.to_ne_bytes()),
        attribute(2, b"wg0\0"),
        attribute(3, &SECRET),
        attribute(4, &PrivateKey::from_bytes(SECRET).public().0),
        nest(
            8,
            &[
                nest(
                    0,
                    &[
                        attribute(1, &[1; 32]),
                        attribute(2, &[0; 32]),
                        handshake(0, 0),
                        attribute(5, &0_u16.to_ne_bytes()),
                        // WGPEER_A_UNSPEC: padding before a 64-bit number.
                        attribute(0, &[]),
                        attribute(8, &0_u64.to_ne_bytes()),
                        attribute(7, &0_u64.to_ne_bytes()),
                        attribute(10, &1_u32.to_ne_bytes()),
                    ],
                ),
                nest(
                    0,
                    &[
                        attribute(1, &[2; 32]),
                        attribute(2, &[3; 32]),
                        handshake(1_700_000_000, 5),
                        attribute(5, &25_u16.to_ne_bytes()),
                        attribute(8, &u64::MAX.to_ne_bytes()),
                        attribute(7, &9_u64.to_ne_bytes()),
                        attribute(10, &1_u32.to_ne_bytes()),
                        attribute(4, &[&[2, 0, 0x04, 0xd2, 192, 95, 5, 67][..], &[0; 8]].concat()),
                        nest(9, &[net(&documentation, 32)]),
                        // From a kernel newer than this.
                        attribute(99, b"what"),
                    ],
                ),
            ],
        ),
        attribute(99, b"what"),
    ]);
    let second = parsed(&[nest(8, &[nest(0, &[attribute(1, &[2; 32]), nest(9, &[net(&[10, 0, 0, 7], 8)])])])]);
    let mut dump = Dump::default();
    dump.add(&first).unwrap();
    dump.add(&second).unwrap();
    let nothing = PeerSnapshot {
        public_key: peer(1),
        preshared_key: None,
        endpoint: None,
        persistent_keepalive: 0,
        allowed_ips: vec![],
        last_handshake: None,
        rx_bytes: 0,
        tx_bytes: 0,
    };
    let all = PeerSnapshot {
        public_key: peer(2),
        preshared_key: Some(PresharedKey([3; LENGTH])),
        endpoint: Some("192.95.5.67:1234".parse().unwrap()),
        persistent_keepalive: 25,
        allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        last_handshake: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
        rx_bytes: 9,
        tx_bytes: u64::MAX,
    };
    let expected = Snapshot {
        private_key: Some(PrivateKey::from_bytes(SECRET)),
        listen_port: 51820,
        fwmark: 0xca6c,
        peers: vec![nothing, all],
    };
    assert_eq!(dump.finish(), expected);
}

#[test]
fn an_answer_without_a_key_or_a_valid_prefix_is_refused() {
    let refused = |peer: Vec<u8>| Dump::default().add(&parsed(&[nest(8, &[peer])])).unwrap_err().to_string();
    assert_eq!(refused(nest(0, &[])), "a peer has no public key");
    let net = |attributes: &[Vec<u8>]| nest(0, &[attribute(1, &[1; 32]), nest(9, &[nest(0, attributes)])]);
    assert_eq!(refused(net(&[attribute(2, &[10, 0, 0, 0])])), "an allowed-ip is no prefix");
    assert_eq!(refused(net(&[attribute(2, &[10, 0, 0, 0]), attribute(3, &[33])])), "an allowed-ip is no prefix");
}
