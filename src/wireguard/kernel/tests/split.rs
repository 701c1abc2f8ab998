//! Large changes in several messages.

use netlink_packet_core::Emitable;
use netlink_packet_wireguard::{
    WireguardAttribute, WireguardDeviceFlags, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use super::super::message::{LIMIT, Message, changes, encode};
use super::{configured, model, peer};
use bastiond_tunnel::model::{AllowedIp, PeerUpdate, Update};

fn peers(message: &Message) -> &[WireguardPeer] {
    let peers = message.attributes().iter().find_map(|attribute| match attribute {
        WireguardAttribute::Peers(peers) => Some(peers.as_slice()),
        _ => None,
    });
    peers.unwrap_or_default()
}

fn flags(peer: &WireguardPeer) -> WireguardPeerFlags {
    let flags = peer.iter().find_map(|attribute| match attribute {
        WireguardPeerAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.unwrap_or(WireguardPeerFlags::empty())
}

/// One peer with so many allowed-ips, and the start of a new configuration.
fn large(nets: u32) -> Update {
    let net = |number: u32| AllowedIp {
        net: ipnet::Ipv4Net::new((0x0a00_0000 | number).into(), 32).unwrap().into(),
        remove: false,
    };
    let allowed_ips = (0..nets).map(net).collect();
    let peer = PeerUpdate { allowed_ips, persistent_keepalive: Some(25), ..configured(1, &[]) };
    Update { replace_peers: true, listen_port: Some(51820), peers: vec![peer], ..Update::default() }
}

#[test]
fn only_the_first_message_replaces_and_only_the_first_part_of_a_peer_configures() {
    let messages = changes(&"wg0".parse().unwrap(), &large(1000), LIMIT);
    assert!(messages.len() > 1);
    for (number, message) in messages.iter().enumerate() {
        let (first, attributes) = (number == 0, message.attributes());
        assert_eq!(attributes.contains(&WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers)), first);
        assert_eq!(attributes.contains(&WireguardAttribute::ListenPort(51820)), first);
        let [part] = peers(message) else { panic!("one peer, one part a message") };
        let expected = if first { WireguardPeerFlags::ReplaceAllowedIps } else { WireguardPeerFlags::UpdateOnly };
        assert_eq!(flags(part), expected);
        assert_eq!(part.contains(&WireguardPeerAttribute::PersistentKeepalive(25)), first);
    }
}

#[test]
fn messages_are_filled_to_the_limit_and_not_beyond() {
    let messages = changes(&"wg0".parse().unwrap(), &large(1000), LIMIT);
    let lengths: Vec<usize> = messages.iter().map(|message| encode(message, 28, 5, 1).len()).collect();
    // An IPv4 allowed-ip takes 28 bytes.
    let (last, full) = lengths.split_last().unwrap();
    assert!(full.iter().all(|length| (LIMIT - 28 + 1..=LIMIT).contains(length)), "{lengths:?}");
    assert!(*last <= LIMIT, "{lengths:?}");
}

#[test]
fn a_limit_that_is_too_small_still_splits_into_single_allowed_ips() {
    let messages = changes(&"wg0".parse().unwrap(), &large(5), 0);
    let said: Vec<usize> = messages.iter().map(|message| peers(message).len()).collect();
    assert_eq!(said, [1; 5]);
    let mut kernel = model::Kernel::new(false);
    kernel.carry_out(&large(5), 0);
    assert_eq!(kernel.snapshot(1).peers[0].allowed_ips.len(), 5);
}

#[test]
fn small_peers_share_messages() {
    let peers_of = |count: u8| (1..=count).map(|number| PeerUpdate::new(peer(number))).collect();
    let update = Update { peers: peers_of(250), ..Update::default() };
    let messages = changes(&"wg0".parse().unwrap(), &update, LIMIT);
    // 32 bytes of headers and the name; a nest and a key are 40.
    assert_eq!(messages.iter().map(|message| peers(message).len()).collect::<Vec<_>>(), [204, 46]);
    assert!(messages.iter().all(|message| message.buffer_len() <= LIMIT));
}

#[test]
fn ten_thousand_peers_are_split_into_messages_without_a_loss() {
    let key = |number: u16| {
        let mut key = peer(0);
        key.0[..2].copy_from_slice(&number.to_be_bytes());
        key
    };
    let peers = (0..10_000_u16).map(|number| {
        let net = ipnet::Ipv4Net::new((0x0a00_0000 | u32::from(number)).into(), 32).unwrap();
        let allowed_ips = vec![AllowedIp { net: net.into(), remove: false }];
        PeerUpdate { replace_allowed_ips: true, allowed_ips, ..PeerUpdate::new(key(number)) }
    });
    let update = Update { replace_peers: true, peers: peers.collect(), ..Update::default() };
    let messages = changes(&"wg0".parse().unwrap(), &update, LIMIT);
    let said: Vec<_> = messages.iter().flat_map(peers_keys).collect();
    assert_eq!(said, (0..10_000).map(|number| key(number).0).collect::<Vec<_>>());
}

fn peers_keys(message: &Message) -> impl Iterator<Item = [u8; 32]> + '_ {
    peers(message).iter().filter_map(|peer| match peer.first() {
        Some(WireguardPeerAttribute::PublicKey(key)) => Some(*key),
        _ => None,
    })
}
