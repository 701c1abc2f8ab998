//! The kernel's side, as drivers/net/wireguard/netlink.c does it: what each attribute of each message changes, and what
//! is returned when it is asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, ParseableParametrized};
use netlink_packet_generic::{GenlHeader, GenlMessage};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAllowedIpFlags, WireguardAttribute,
    WireguardDeviceFlags, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags, WireguardTimeSpec,
};

use super::super::message::{Dump, Message, changes, encode};
use bastiond_tunnel::key::{LENGTH, PrivateKey, PublicKey};
use bastiond_tunnel::model::{Snapshot, Update};

/// When every peer of the model had its handshake.
pub(super) const HANDSHAKE: Duration = Duration::new(1_700_000_000, 5);

/// An interface of the kernel.
#[derive(Debug, Clone, Default)]
pub(super) struct Kernel {
    knows_removal: bool,
    private_key: Option<PrivateKey>,
    listen_port: u16,
    fwmark: u32,
    /// In the order in which they were made.
    peers: Vec<Peer>,
    owners: BTreeMap<IpNet, PublicKey>,
    made: usize,
}

#[derive(Debug, Clone)]
struct Peer {
    key: PublicKey,
    preshared_key: [u8; LENGTH],
    endpoint: Option<SocketAddr>,
    keepalive: u16,
    /// The how manieth of the interface: a peer that was removed and made again is another one, without a session.
    number: usize,
}

impl Kernel {
    pub(super) fn new(knows_removal: bool) -> Self {
        Self { knows_removal, ..Self::default() }
    }

    /// Takes a change, over the bytes of its messages.
    pub(super) fn carry_out(&mut self, update: &Update, limit: usize) {
        for message in changes(&"wg0".parse().unwrap(), update, limit) {
            let bytes = encode(&message, 28, 5, 1);
            let received = NetlinkMessage::<GenlMessage<Message>>::deserialize(&bytes).unwrap();
            let NetlinkPayload::InnerMessage(received) = received.payload else { panic!("{received:?}") };
            self.set_device(&received.payload);
        }
    }

    /// `wg_set_device`
    fn set_device(&mut self, message: &Message) {
        let attributes = message.attributes();
        assert!(attributes.contains(&WireguardAttribute::IfName("wg0".to_owned())), "no interface is named");
        for attribute in attributes {
            match attribute {
                WireguardAttribute::ListenPort(port) => self.listen_port = *port,
                WireguardAttribute::Fwmark(mark) => self.fwmark = *mark,
                _ => {}
            }
        }
        if attributes.contains(&WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers)) {
            self.peers.clear();
            self.owners.clear();
        }
        for attribute in attributes {
            if let WireguardAttribute::PrivateKey(key) = attribute {
                self.private_key = (*key != [0; LENGTH]).then(|| PrivateKey::from_bytes(*key));
                if let Some(ourselves) = self.ourselves() {
                    self.remove(ourselves);
                }
            }
        }
        for attribute in attributes {
            if let WireguardAttribute::Peers(peers) = attribute {
                for peer in peers {
                    self.set_peer(peer);
                }
            }
        }
    }

    fn ourselves(&self) -> Option<PublicKey> {
        self.private_key.as_ref().map(PrivateKey::public)
    }

    fn remove(&mut self, key: PublicKey) {
        self.peers.retain(|peer| peer.key != key);
        self.owners.retain(|_, owner| *owner != key);
    }

    /// `set_peer`
    fn set_peer(&mut self, said: &WireguardPeer) {
        let key =
            said.iter().find_map(|a| if let WireguardPeerAttribute::PublicKey(key) = a { Some(*key) } else { None });
        let key = PublicKey(key.expect("EINVAL: a peer without a key"));
        let flags =
            said.iter().find_map(|a| if let WireguardPeerAttribute::Flags(flags) = a { Some(*flags) } else { None });
        let flags = flags.unwrap_or(WireguardPeerFlags::empty());
        if !self.peers.iter().any(|peer| peer.key == key) {
            if flags.intersects(WireguardPeerFlags::RemoveMe | WireguardPeerFlags::UpdateOnly)
                || self.ourselves() == Some(key)
            {
                return;
            }
            let number = self.made;
            self.made += 1;
            self.peers.push(Peer { key, preshared_key: [0; LENGTH], endpoint: None, keepalive: 0, number });
        }
        if flags.contains(WireguardPeerFlags::RemoveMe) {
            return self.remove(key);
        }
        if flags.contains(WireguardPeerFlags::ReplaceAllowedIps) {
            self.owners.retain(|_, owner| *owner != key);
        }
        let peer = self.peers.iter_mut().find(|peer| peer.key == key).unwrap();
        for attribute in said.iter() {
            match attribute {
                WireguardPeerAttribute::PresharedKey(key) => peer.preshared_key = *key,
                WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
                WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.keepalive = *seconds,
                WireguardPeerAttribute::AllowedIps(nets) => {
                    for net in nets {
                        let (net, remove) = read(net, self.knows_removal);
                        if !remove {
                            self.owners.insert(net, key);
                        } else if self.owners.get(&net) == Some(&key) {
                            self.owners.remove(&net);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// `wg_get_device_dump`, with so many allowed-ips in each message.
    pub(super) fn snapshot(&self, in_a_message: usize) -> Snapshot {
        let mut first = vec![
            WireguardAttribute::ListenPort(self.listen_port),
            WireguardAttribute::Fwmark(self.fwmark),
            WireguardAttribute::IfIndex(7),
            WireguardAttribute::IfName("wg0".to_owned()),
        ];
        if let Some(key) = &self.private_key {
            first.push(WireguardAttribute::PrivateKey(*key.bytes()));
            first.push(WireguardAttribute::PublicKey(key.public().0));
        }
        let mut messages = vec![first];
        let (mut peers, mut left) = (Vec::new(), in_a_message);
        for peer in &self.peers {
            let nets: Vec<_> =
                self.owners.iter().filter(|(_, owner)| **owner == peer.key).map(|(net, _)| *net).collect();
            let mut part = peer.attributes();
            // In reverse, as the kernel knows no order.
            for net in nets.iter().rev() {
                if left == 0 {
                    peers.push(part);
                    messages.last_mut().unwrap().push(WireguardAttribute::Peers(std::mem::take(&mut peers)));
                    messages.push(Vec::new());
                    part = WireguardPeer(vec![WireguardPeerAttribute::PublicKey(peer.key.0)]);
                    left = in_a_message;
                }
                left -= 1;
                match part.0.last_mut() {
                    Some(WireguardPeerAttribute::AllowedIps(nets)) => nets.push(allowed_ip(*net)),
                    _ => part.0.push(WireguardPeerAttribute::AllowedIps(vec![allowed_ip(*net)])),
                }
            }
            peers.push(part);
        }
        messages.last_mut().unwrap().push(WireguardAttribute::Peers(peers));
        let mut dump = Dump::default();
        for attributes in messages {
            let mut bytes = vec![0; netlink_packet_core::Emitable::buffer_len(&attributes.as_slice())];
            netlink_packet_core::Emitable::emit(&attributes.as_slice(), &mut bytes);
            dump.add(&Message::parse_with_param(&bytes, GenlHeader { cmd: 0, version: 1 }).unwrap()).unwrap();
        }
        dump.finish()
    }

    /// The peers' keys and numbers.
    pub(super) fn numbers(&self) -> Vec<(PublicKey, usize)> {
        self.peers.iter().map(|peer| (peer.key, peer.number)).collect()
    }
}

impl Peer {
    fn attributes(&self) -> WireguardPeer {
        let mut attributes = vec![
            WireguardPeerAttribute::PublicKey(self.key.0),
            WireguardPeerAttribute::PresharedKey(self.preshared_key),
            WireguardPeerAttribute::LastHandshake(WireguardTimeSpec {
                seconds: HANDSHAKE.as_secs().try_into().unwrap(),
                nano_seconds: HANDSHAKE.subsec_nanos().into(),
            }),
            WireguardPeerAttribute::PersistentKeepalive(self.keepalive),
            WireguardPeerAttribute::TxBytes(u64::MAX),
            WireguardPeerAttribute::RxBytes(7),
            WireguardPeerAttribute::ProtocolVersion(1),
        ];
        attributes.extend(self.endpoint.map(WireguardPeerAttribute::Endpoint));
        WireguardPeer(attributes)
    }
}

/// What the model tells of each peer that our own data plane would not.
pub(super) fn without_statistics(mut snapshot: Snapshot) -> Snapshot {
    for peer in &mut snapshot.peers {
        assert_eq!(peer.last_handshake.take(), Some(SystemTime::UNIX_EPOCH + HANDSHAKE));
        assert_eq!((std::mem::take(&mut peer.tx_bytes), std::mem::take(&mut peer.rx_bytes)), (u64::MAX, 7));
    }
    snapshot
}

fn allowed_ip(net: IpNet) -> WireguardAllowedIp {
    let family = if net.addr().is_ipv4() { WireguardAddressFamily::Ipv4 } else { WireguardAddressFamily::Ipv6 };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Cidr(net.prefix_len()),
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(net.addr()),
    ])
}

/// `set_allowedip`, and whether it is a removal.
fn read(said: &WireguardAllowedIp, knows_removal: bool) -> (IpNet, bool) {
    let (mut family, mut address, mut length, mut remove) = (None, None, None, false);
    for attribute in said.iter() {
        match attribute {
            WireguardAllowedIpAttr::Family(said) => family = Some(*said),
            WireguardAllowedIpAttr::IpAddr(said) => address = Some(*said),
            WireguardAllowedIpAttr::Cidr(said) => length = Some(*said),
            WireguardAllowedIpAttr::Flags(flags) => {
                assert!(knows_removal, "EINVAL: an unknown attribute");
                remove = flags.contains(WireguardAllowedIpFlags::RemoveMe);
            }
            other => panic!("EINVAL: {other:?}"),
        }
    }
    let net = IpNet::new(address.unwrap(), length.unwrap()).expect("EINVAL: too long a prefix");
    assert_eq!(net.addr().is_ipv4(), family == Some(WireguardAddressFamily::Ipv4), "EINVAL: another family");
    (net, remove)
}
