//! The interface that this daemon runs, and what it knows of it between passes.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio::time::Instant;

use super::active_peers::{ActivePeers, ActivePeersFile};
use super::backend::Backend;
use super::handshake_watch::HandshakeWatch;
use super::model::{ConfiguredEndpoints, Interface, host};
use super::names::Host;
use crate::config::{self, BackendChoice};
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::outcome::Problem;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::Snapshot;

/// An interface at work.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) interface: InterfaceName,
    /// The configuration's choice of a data plane.
    pub(super) choice: BackendChoice,
    pub(super) backend: Box<dyn Backend>,
    /// What its start found wrong.
    pub(super) problems: Vec<Problem>,
    /// The wanted MTU, in bytes.
    pub(super) mtu: u32,
    /// Labels of the peers that have one.
    pub(super) labels: BTreeMap<PublicKey, String>,
    /// Peers whose endpoints are names.
    pub(super) hosts: BTreeMap<PublicKey, Host>,
    pub(super) watches: BTreeMap<PublicKey, HandshakeWatch>,
    /// Endpoints as they were configured when they were set last.
    pub(super) configured: ConfiguredEndpoints,
    /// What stood after the last pass: if it differs later, another program changed it.
    pub(super) settled: Option<Interface>,
    /// Whether a pass ever succeeded: before that, no peer knows its port.
    pub(super) has_settled: bool,
    /// The endpoints of peers that were active before the start, until a handshake with them is initiated.
    pub(super) last_seen: ActivePeers,
    pub(super) active_peers: ActivePeersFile,
    /// When the peers are checked next.
    pub(super) next_check: Instant,
}

impl Running {
    /// Takes over what the configuration says for people and for look-ups.
    pub(super) fn take_configuration(&mut self, config: &config::Wireguard, tunnel: &Tunnel) {
        self.mtu = tunnel.mtu;
        self.choice = config.backend;
        self.labels = config.peers.iter().filter_map(|peer| Some((peer.public_key, peer.name.clone()?))).collect();
        self.hosts = config.peers.iter().filter_map(|peer| Some((peer.public_key, host(peer)?))).collect();
        self.watches.retain(|key, _| self.hosts.contains_key(key));
    }
}

/// The line of the status table.
pub(super) fn detail(config: &config::Wireguard, snapshot: &Snapshot, now: SystemTime) -> String {
    let active = snapshot.peers.iter().filter(|peer| peer.is_active(now)).count();
    let public_key = snapshot.private_key.as_ref().map_or_else(String::new, |key| format!("; {}", key.public()));
    format!(
        "{} on UDP {}: {} peer(s), {active} active{public_key}",
        config.interface,
        snapshot.listen_port,
        snapshot.peers.len()
    )
}
