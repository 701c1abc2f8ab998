//! The tunnel's part of the status: what `wg show` prints, and which data plane it is. No secrets.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::refused::{RefusedReport, seconds_since_1970};
use crate::net::InterfaceName;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{PeerSnapshot, Snapshot};

/// An interface and its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelReport {
    /// The interface's name.
    pub interface: InterfaceName,
    /// Its public key, for the configuration of peers.
    pub public_key: Option<PublicKey>,
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// Largest IP packet inside, in bytes.
    pub mtu: u32,
    /// Which data plane carries its packets, and what the kernel does for it.
    pub data_plane: Vec<String>,
    /// The peers, in the order of their public keys.
    pub peers: Vec<PeerReport>,
    /// Whom it refuses; `None` if the data plane does not tell: the kernel's counts none.
    #[serde(default)]
    pub refused: Option<RefusedReport>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its label, if it has one.
    pub name: Option<String>,
    /// The peer's public key, which identifies it.
    pub public_key: PublicKey,
    /// Its newest address, or the configured one.
    pub endpoint: Option<SocketAddr>,
    /// The peer's allowed IPs: sources of its packets, and destinations that are sent to it.
    pub allowed_ips: Vec<IpNet>,
    /// When the newest handshake was completed, seconds since 1970-01-01 UTC.
    pub last_handshake_unix: Option<u64>,
    /// Bytes received from it.
    pub rx_bytes: u64,
    /// Bytes sent to it.
    pub tx_bytes: u64,
}

impl TunnelReport {
    /// The status of an interface; `name` gives the label of a peer.
    pub fn new(
        interface: &InterfaceName,
        mtu: u32,
        data_plane: Vec<String>,
        snapshot: &Snapshot,
        refused: Option<RefusedReport>,
        name: impl Fn(&PublicKey) -> Option<String>,
    ) -> Self {
        let peer = |peer: &PeerSnapshot| PeerReport {
            name: name(&peer.public_key),
            public_key: peer.public_key,
            endpoint: peer.endpoint,
            allowed_ips: peer.allowed_ips.clone(),
            last_handshake_unix: peer.last_handshake.and_then(seconds_since_1970),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        };
        Self {
            interface: interface.clone(),
            public_key: snapshot.private_key.as_ref().map(bastiond_tunnel::key::PrivateKey::public),
            listen_port: snapshot.listen_port,
            mtu,
            data_plane,
            peers: snapshot.peers.iter().map(peer).collect(),
            refused,
        }
    }
}
