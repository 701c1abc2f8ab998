//! The tunnel's part of the status: what `wg show` prints, and which data plane it is. No secrets.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::refused::{RefusedReport, seconds_since_1970};
use crate::config;
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
    /// Peers that are configured and may not use the tunnel, in the order of the configuration.
    #[serde(default)]
    pub out: Vec<OutReport>,
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
    /// When its access ends, seconds since 1970-01-01 UTC; `None`: never.
    #[serde(default)]
    pub expires_unix: Option<u64>,
}

/// A peer that is configured and may not use the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutReport {
    /// Its label, if it has one.
    pub name: Option<String>,
    /// Its public key, which identifies it.
    pub public_key: PublicKey,
    /// The addresses and ranges that are kept for it.
    pub allowed_ips: Vec<IpNet>,
    /// Whether the configuration disables it; otherwise it has expired.
    pub is_disabled: bool,
    /// When its access ends or ended, seconds since 1970-01-01 UTC; `None`: never.
    pub expires_unix: Option<u64>,
}

impl OutReport {
    /// Why the peer may not use the tunnel: `disabled`, `expired 2027-01-31T18:00:00Z`.
    pub fn reason(&self) -> String {
        let time = |seconds| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
        match self.expires_unix.filter(|_| !self.is_disabled) {
            Some(seconds) => format!("expired {}", time(seconds)),
            None => "disabled".to_owned(),
        }
    }

    /// The report of a peer that is out.
    pub(super) fn new(peer: &config::Peer) -> Self {
        Self {
            name: peer.name.clone(),
            public_key: peer.public_key,
            allowed_ips: peer.allowed_ips.clone(),
            is_disabled: !peer.enabled,
            expires_unix: peer.expires.and_then(seconds_since_1970),
        }
    }
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
            expires_unix: None,
        };
        Self {
            interface: interface.clone(),
            public_key: snapshot.private_key.as_ref().map(bastiond_tunnel::key::PrivateKey::public),
            listen_port: snapshot.listen_port,
            mtu,
            data_plane,
            peers: snapshot.peers.iter().map(peer).collect(),
            out: Vec::new(),
            refused,
        }
    }
}
