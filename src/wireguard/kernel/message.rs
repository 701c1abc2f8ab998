//! The messages to and from the kernel's WireGuard, without a socket: an [`Update`] becomes messages, messages become a
//! [`Snapshot`].
//!
//! The names are those of the kernel's `include/uapi/linux/wireguard.h`. A message is limited, a configuration is not:
//! a large change becomes several messages, and several messages of an answer become one snapshot.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use netlink_packet_core::{DecodeError, Emitable, NLA_HEADER_SIZE, NetlinkHeader, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAllowedIpFlags, WireguardAttribute,
    WireguardCmd, WireguardDeviceFlags, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
    WireguardTimeSpec,
};
use zeroize::{Zeroize, Zeroizing};

use crate::net::InterfaceName;
use bastiond_tunnel::key::{LENGTH, PresharedKey, PrivateKey, PublicKey};
use bastiond_tunnel::model::{AllowedIp, PeerSnapshot, PeerUpdate, Snapshot, Update};

/// The longest message to the kernel, in bytes, with its headers: what libmnl calls the ideal size, which wg(8) uses.
/// The hard limit is near 64 KiB, as all peers are one attribute and its length a 16-bit number.
pub(crate) const LIMIT: usize = 8192;

/// `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 16 + 4;

/// One message of the WireGuard family. Its secrets are overwritten when it is dropped, and do not show in `Debug`.
pub(crate) struct Message(WireguardMessage);

impl Message {
    /// `WG_CMD_GET_DEVICE`: the request for everything about an interface.
    pub(crate) fn get_device(interface: &InterfaceName) -> Self {
        let attributes = vec![WireguardAttribute::IfName(interface.as_str().to_owned())];
        Self(WireguardMessage { cmd: WireguardCmd::GetDevice, attributes })
    }

    /// The attributes, including secrets.
    pub(crate) fn attributes(&self) -> &[WireguardAttribute] {
        &self.0.attributes
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        WireguardMessage::family_name()
    }

    fn command(&self) -> u8 {
        self.0.command()
    }

    fn version(&self) -> u8 {
        self.0.version()
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.0.buffer_len()
    }

    fn emit(&self, bytes: &mut [u8]) {
        self.0.emit(bytes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        WireguardMessage::parse_with_param(bytes, header).map(Self)
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        for attribute in &mut self.0.attributes {
            match attribute {
                WireguardAttribute::PrivateKey(key) => key.zeroize(),
                WireguardAttribute::Peers(peers) => {
                    for attribute in peers.iter_mut().flat_map(|peer| &mut peer.0) {
                        if let WireguardPeerAttribute::PresharedKey(key) = attribute {
                            key.zeroize();
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("cmd", &self.0.cmd).finish_non_exhaustive()
    }
}

/// A generic netlink message as bytes.
///
/// # Panics
/// If it is longer than 4 GiB.
pub(crate) fn encode<F: GenlFamily + Emitable>(
    payload: &F,
    family: u16,
    flags: u16,
    sequence: u32,
) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; HEADERS + payload.buffer_len()]);
    let mut header = NetlinkHeader::default();
    header.length = u32::try_from(bytes.len()).expect("a message is a few kilobytes");
    header.message_type = family;
    header.flags = flags;
    header.sequence_number = sequence;
    header.emit(&mut bytes);
    let generic = GenlHeader { cmd: payload.command(), version: payload.version() };
    generic.emit(&mut bytes[header.buffer_len()..]);
    payload.emit(&mut bytes[HEADERS..]);
    bytes
}

/// The `WG_CMD_SET_DEVICE` messages that carry out a change, in the order in which they are to be sent. None is longer
/// than `limit` bytes, unless a single allowed-ip of a peer makes it so; there is always one.
///
/// Only the first one has the interface's own settings and `WGDEVICE_F_REPLACE_PEERS`, which would take the peers of
/// the messages before it away again. A peer whose allowed-ips do not fit is continued in the next message, where it
/// must not lose those that it just got, and must not come back if another program removed it in between.
pub(crate) fn changes(interface: &InterfaceName, update: &Update, limit: usize) -> Vec<Message> {
    let mut messages = Messages::start(interface, update, limit);
    for peer in &update.peers {
        let mut rest = messages.push(first_part(peer), &peer.allowed_ips);
        while !rest.is_empty() {
            rest = messages.push(later_part(peer), rest);
        }
    }
    messages.end()
}

/// The messages of a change, while they are filled.
struct Messages<'a> {
    interface: &'a InterfaceName,
    limit: usize,
    finished: Vec<Message>,
    attributes: Vec<WireguardAttribute>,
    peers: Vec<WireguardPeer>,
    length: usize,
}

impl<'a> Messages<'a> {
    fn start(interface: &'a InterfaceName, update: &Update, limit: usize) -> Self {
        // Capacity for all from the start: a reallocation would leave a copy of the key behind.
        let mut attributes = Vec::with_capacity(6);
        attributes.push(WireguardAttribute::IfName(interface.as_str().to_owned()));
        if update.replace_peers {
            attributes.push(WireguardAttribute::Flags(WireguardDeviceFlags::ReplacePeers));
        }
        if let Some(key) = &update.private_key {
            // All zeroes take the key away.
            attributes.push(WireguardAttribute::PrivateKey(key.as_ref().map_or([0; LENGTH], |key| *key.bytes())));
        }
        attributes.extend(update.listen_port.map(WireguardAttribute::ListenPort));
        attributes.extend(update.fwmark.map(WireguardAttribute::Fwmark));
        let length = HEADERS + attributes.as_slice().buffer_len() + NLA_HEADER_SIZE;
        Self { interface, limit, finished: Vec::new(), attributes, peers: Vec::new(), length }
    }

    /// Adds as much of a peer as fits, but at least one allowed-ip; the allowed-ips that are left.
    fn push<'p>(&mut self, mut part: Vec<WireguardPeerAttribute>, allowed_ips: &'p [AllowedIp]) -> &'p [AllowedIp] {
        let mut head = NLA_HEADER_SIZE + part.as_slice().buffer_len();
        let mut coming = allowed_ips.iter().map(allowed_ip).peekable();
        let first = coming.peek().map_or(0, |first| NLA_HEADER_SIZE + first.buffer_len());
        if !self.peers.is_empty() && self.length + head + first > self.limit {
            self.start_next();
        }
        if first > 0 {
            head += NLA_HEADER_SIZE;
        }
        self.length += head;
        let mut added = Vec::new();
        while let Some(next) = coming.next_if(|next| added.is_empty() || self.length + next.buffer_len() <= self.limit)
        {
            self.length += next.buffer_len();
            added.push(next);
        }
        let left = &allowed_ips[added.len()..];
        if !added.is_empty() {
            part.push(WireguardPeerAttribute::AllowedIps(added));
        }
        self.peers.push(WireguardPeer(part));
        if !left.is_empty() {
            self.start_next();
        }
        left
    }

    /// Ends a message and starts the next.
    fn start_next(&mut self) {
        let next = vec![WireguardAttribute::IfName(self.interface.as_str().to_owned())];
        self.length = HEADERS + next.as_slice().buffer_len() + NLA_HEADER_SIZE;
        let mut attributes = std::mem::replace(&mut self.attributes, next);
        attributes.push(WireguardAttribute::Peers(std::mem::take(&mut self.peers)));
        self.finished.push(Message(WireguardMessage { cmd: WireguardCmd::SetDevice, attributes }));
    }

    fn end(mut self) -> Vec<Message> {
        if !self.peers.is_empty() {
            self.start_next();
        } else if self.finished.is_empty() {
            let attributes = std::mem::take(&mut self.attributes);
            self.finished.push(Message(WireguardMessage { cmd: WireguardCmd::SetDevice, attributes }));
        }
        self.finished
    }
}

/// A peer's first part, without its allowed-ips.
fn first_part(peer: &PeerUpdate) -> Vec<WireguardPeerAttribute> {
    let mut part = Vec::with_capacity(6);
    part.push(WireguardPeerAttribute::PublicKey(peer.public_key.0));
    let flags = [
        (peer.remove, WireguardPeerFlags::RemoveMe),
        (peer.replace_allowed_ips, WireguardPeerFlags::ReplaceAllowedIps),
        (peer.update_only, WireguardPeerFlags::UpdateOnly),
    ];
    let flags =
        flags.into_iter().filter(|(wanted, _)| *wanted).fold(WireguardPeerFlags::empty(), |all, (_, flag)| all | flag);
    if !flags.is_empty() {
        part.push(WireguardPeerAttribute::Flags(flags));
    }
    part.extend(peer.preshared_key.as_ref().map(|key| WireguardPeerAttribute::PresharedKey(key.0)));
    part.extend(peer.endpoint.map(WireguardPeerAttribute::Endpoint));
    part.extend(peer.persistent_keepalive.map(WireguardPeerAttribute::PersistentKeepalive));
    part
}

/// The same peer in a later message.
fn later_part(peer: &PeerUpdate) -> Vec<WireguardPeerAttribute> {
    vec![
        WireguardPeerAttribute::PublicKey(peer.public_key.0),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly),
    ]
}

fn allowed_ip(allowed_ip: &AllowedIp) -> WireguardAllowedIp {
    let family = match allowed_ip.net {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    let mut attributes = vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(allowed_ip.net.network()),
        WireguardAllowedIpAttr::Cidr(allowed_ip.net.prefix_len()),
    ];
    if allowed_ip.remove {
        attributes.push(WireguardAllowedIpAttr::Flags(WireguardAllowedIpFlags::RemoveMe));
    }
    WireguardAllowedIp(attributes)
}

/// The kernel's answer to [`Message::get_device`], joined from its messages.
#[derive(Debug, Default)]
pub(crate) struct Dump(Snapshot);

impl Dump {
    /// Adds the next message.
    pub(crate) fn add(&mut self, message: &Message) -> Result<(), DecodeError> {
        for attribute in message.attributes() {
            match attribute {
                WireguardAttribute::PrivateKey(key) => self.0.private_key = Some(PrivateKey::from_bytes(*key)),
                WireguardAttribute::ListenPort(port) => self.0.listen_port = *port,
                WireguardAttribute::Fwmark(mark) => self.0.fwmark = *mark,
                WireguardAttribute::Peers(peers) => peers.iter().try_for_each(|peer| self.add_peer(peer))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// A peer whose allowed-ips did not fit comes again in the next message, with nothing but its key and more of them.
    fn add_peer(&mut self, part: &WireguardPeer) -> Result<(), DecodeError> {
        let key = part.iter().find_map(|attribute| match attribute {
            WireguardPeerAttribute::PublicKey(key) => Some(PublicKey(*key)),
            _ => None,
        });
        let key = key.ok_or_else(|| DecodeError::from("a peer has no public key"))?;
        if self.0.peers.last().is_none_or(|last| last.public_key != key) {
            self.0.peers.push(PeerSnapshot::new(key));
        }
        let peer = self.0.peers.last_mut().expect("one was just pushed if there was none");
        for attribute in part.iter() {
            match attribute {
                WireguardPeerAttribute::PresharedKey(key) => {
                    peer.preshared_key = Some(PresharedKey(*key)).filter(|key| !key.is_none());
                }
                WireguardPeerAttribute::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
                WireguardPeerAttribute::PersistentKeepalive(seconds) => peer.persistent_keepalive = *seconds,
                WireguardPeerAttribute::LastHandshake(time) => peer.last_handshake = handshake_time(time),
                WireguardPeerAttribute::RxBytes(bytes) => peer.rx_bytes = *bytes,
                WireguardPeerAttribute::TxBytes(bytes) => peer.tx_bytes = *bytes,
                WireguardPeerAttribute::AllowedIps(nets) => {
                    for net in nets {
                        peer.allowed_ips.push(prefix(net)?);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The interface as the messages describe it.
    pub(crate) fn finish(mut self) -> Snapshot {
        // The kernel lists them in the order in which they came.
        self.0.peers.iter_mut().for_each(|peer| peer.allowed_ips.sort_unstable());
        self.0
    }
}

/// All zeroes mean never.
fn handshake_time(time: &WireguardTimeSpec) -> Option<SystemTime> {
    let (seconds, nanos) = (u64::try_from(time.seconds).ok()?, u32::try_from(time.nano_seconds).ok()?);
    let since_1970 = Duration::from_secs(seconds).checked_add(Duration::from_nanos(nanos.into()))?;
    SystemTime::UNIX_EPOCH.checked_add(since_1970).filter(|_| !since_1970.is_zero())
}

fn prefix(net: &WireguardAllowedIp) -> Result<IpNet, DecodeError> {
    let (mut address, mut length) = (None::<IpAddr>, None);
    for attribute in net.iter() {
        match attribute {
            WireguardAllowedIpAttr::IpAddr(found) => address = Some(*found),
            WireguardAllowedIpAttr::Cidr(found) => length = Some(*found),
            _ => {}
        }
    }
    let net = address.zip(length).and_then(|(address, length)| IpNet::new(address, length).ok());
    net.map(|net| net.trunc()).ok_or_else(|| DecodeError::from("an allowed-ip is no prefix"))
}
