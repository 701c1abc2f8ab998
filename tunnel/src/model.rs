//! Changes and snapshots of a WireGuard interface, in the terms that the control socket, the configuration and the
//! kernel's WireGuard share.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// A change of an interface: UAPI's `set=1`, netlink's `WG_CMD_SET_DEVICE`. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// A new private key; `Some(None)` removes the key, and the interface answers no peer.
    pub private_key: Option<Option<PrivateKey>>,
    /// A new UDP port; 0 lets the kernel choose.
    pub listen_port: Option<u16>,
    /// The mark of outgoing UDP packets (`SO_MARK`); 0 is none.
    pub fwmark: Option<u32>,
    /// Whether the peers that are not named here are removed.
    pub replace_peers: bool,
    /// Changes of single peers, carried out in this order.
    pub peers: Vec<PeerUpdate>,
}

/// A change of one peer, made if it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerUpdate {
    /// The peer's public key, which identifies it.
    pub public_key: PublicKey,
    /// Remove the peer.
    pub remove: bool,
    /// Change the peer only if it is there.
    pub update_only: bool,
    /// A new preshared key; all zeroes remove it.
    pub preshared_key: Option<PresharedKey>,
    /// A new endpoint.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 is off.
    pub persistent_keepalive: Option<u16>,
    /// Whether the allowed-ips that are not named here are removed.
    pub replace_allowed_ips: bool,
    /// Allowed-ips to add or remove, in this order. An added one is removed from the peer that had it.
    pub allowed_ips: Vec<AllowedIp>,
}

/// One allowed-ip of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedIp {
    /// The prefix, without host bits.
    pub net: IpNet,
    /// Remove it from this peer instead of adding it (UAPI's leading `-`).
    pub remove: bool,
}

impl PeerUpdate {
    /// A change that makes the peer and changes nothing else.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// An interface as it is: UAPI's `get=1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The private key, if there is one.
    pub private_key: Option<PrivateKey>,
    /// The UDP port; 0 before one is bound.
    pub listen_port: u16,
    /// The mark of outgoing UDP packets; 0 is none.
    pub fwmark: u32,
    /// The peers, in the order in which they were made.
    pub peers: Vec<PeerSnapshot>,
}

/// One peer as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// The peer's public key, which identifies it.
    pub public_key: PublicKey,
    /// The preshared key, if there is one.
    pub preshared_key: Option<PresharedKey>,
    /// Its configured endpoint, or the sender of its newest message.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 is off.
    pub persistent_keepalive: u16,
    /// Its prefixes, sorted.
    pub allowed_ips: Vec<IpNet>,
    /// When the newest handshake was completed.
    pub last_handshake: Option<SystemTime>,
    /// Bytes received from it in valid messages, as they were on the wire (UDP payload).
    pub rx_bytes: u64,
    /// Bytes sent to it, as they were on the wire (UDP payload).
    pub tx_bytes: u64,
}

/// What an interface refused since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Handshake messages.
    pub handshakes: RefusedHandshakes,
    /// What is refused of single peers; only peers of which something is.
    pub peers: Vec<RefusedPeer>,
}

/// Handshake messages that were refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedHandshakes {
    /// Addresses that send handshakes with a public key that no peer has: at most 32, the most frequent first.
    pub unknown_keys: Vec<UnknownKey>,
    /// Such handshakes from addresses that have lost their place in the list.
    pub unknown_keys_elsewhere: u64,
    /// Handshakes for another public key than the interface's.
    pub wrong_server_key: RefusedCount,
    /// Handshakes that were received before, or whose sender's clock has gone back.
    pub replayed: RefusedCount,
    /// Answers to our handshakes that do not fit: another preshared key, a handshake that is over, a forgery.
    pub wrong_answer: RefusedCount,
    /// Handshakes that contradict themselves.
    pub malformed: RefusedCount,
    /// Handshake messages that came faster than they are answered, or that were answered with a cookie.
    pub under_load: u64,
}

/// How often something was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedCount {
    /// How often.
    pub times: u64,
    /// The sender of the newest one. Without load it may be forged.
    pub last_from: Option<SocketAddr>,
}

/// An address that sends handshakes with an unknown key. Without load it may be forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownKey {
    /// The address.
    pub address: IpAddr,
    /// The newest key from there.
    pub public_key: PublicKey,
    /// How many handshakes.
    pub times: u64,
    /// When the newest one was received.
    pub last: SystemTime,
}

/// What is refused of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedPeer {
    /// The peer.
    pub public_key: PublicKey,
    /// Packets from an inner address that is not among its allowed-ips.
    pub foreign_source: Option<ForeignSource>,
    /// Handshakes of the peer that were answered since its last session, and that it has not completed: it does not get
    /// the answers, or has another preshared key.
    pub unconfirmed: u32,
}

/// Packets of a peer from an inner address that is not its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignSource {
    /// The newest such address.
    pub address: IpAddr,
    /// Packets from all such addresses.
    pub packets: u64,
    /// When the newest one was received.
    pub last: SystemTime,
}

/// How long a session may carry data: WireGuard's Reject-After-Time.
pub const REJECT_AFTER: Duration = Duration::from_secs(180);

impl PeerSnapshot {
    /// A peer with nothing but its key.
    pub fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    /// Whether the peer has a session that still carries data.
    pub fn is_active(&self, now: SystemTime) -> bool {
        self.last_handshake.is_some_and(|then| now.duration_since(then).is_ok_and(|age| age < REJECT_AFTER))
    }
}
