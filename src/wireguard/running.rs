//! The interface that this daemon runs, and what it knows of it between passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use tokio::time::Instant;

use super::active_peers::{ActivePeers, ActivePeersFile};
use super::backend::Backend;
use super::model::{ConfiguredEndpoints, Interface, host};
use super::names::Host;
use super::refused::{RefusedLog, seconds_since_1970};
use super::status::OutReport;
use crate::config::{self, BackendChoice};
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::outcome::Problem;
use bastiond_tunnel::key::{PrivateKey, PublicKey};
use bastiond_tunnel::model::{PeerSnapshot, Snapshot};
use bastiond_tunnel::watch::{AnswerWatch, Change};

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
    /// Labels of the peers that have one, also of those that may not use the tunnel.
    pub(super) labels: BTreeMap<PublicKey, String>,
    /// When the access of peers ends, in seconds since 1970-01-01 UTC.
    pub(super) expiries: BTreeMap<PublicKey, u64>,
    /// Peers that may not use the tunnel.
    pub(super) out: Vec<OutReport>,
    /// Peers whose endpoints are names.
    pub(super) hosts: BTreeMap<PublicKey, Host>,
    /// Peers that should always answer: those with an endpoint and persistent keepalives.
    pub(super) sites: BTreeSet<PublicKey>,
    pub(super) watches: BTreeMap<PublicKey, AnswerWatch>,
    pub(super) refused_log: RefusedLog,
    /// Endpoints as they were configured when they were set last.
    pub(super) configured: ConfiguredEndpoints,
    /// What stood after the last pass: if it differs later, another program changed it.
    pub(super) settled: Option<Interface>,
    /// The key that it has.
    pub(super) key: Option<PrivateKey>,
    /// Whether a pass ever succeeded: before that, no peer knows its port.
    pub(super) has_settled: bool,
    /// The endpoints of peers that were active before the start, until a handshake with them is initiated.
    pub(super) last_seen: ActivePeers,
    /// Whether the sessions of these peers go on, since a former daemon left the process to this one: nothing is
    /// initiated.
    pub(super) sessions_live: bool,
    /// Whether the end of the data plane's process has been told.
    pub(super) is_end_told: bool,
    pub(super) active_peers: ActivePeersFile,
    /// When the peers are checked next.
    pub(super) next_check: Instant,
}

impl Running {
    /// Takes over what the configuration says for people and for look-ups.
    pub(super) fn take_configuration(&mut self, config: &config::Wireguard, tunnel: &Tunnel) {
        self.mtu = tunnel.mtu;
        self.choice = config.backend;
        let labelled = config.peers.iter().chain(&config.out);
        self.labels = labelled.filter_map(|peer| Some((peer.public_key, peer.name.clone()?))).collect();
        let expiry = |peer: &config::Peer| Some((peer.public_key, seconds_since_1970(peer.expires?)?));
        self.expiries = config.peers.iter().filter_map(expiry).collect();
        self.out = config.out.iter().map(OutReport::new).collect();
        self.hosts = config.peers.iter().filter_map(|peer| Some((peer.public_key, host(peer)?))).collect();
        let is_site = |peer: &&config::Peer| peer.endpoint.is_some() && peer.persistent_keepalive.is_some();
        self.sites = config.peers.iter().filter(is_site).map(|peer| peer.public_key).collect();
        let peers: BTreeSet<PublicKey> = config.peers.iter().map(|peer| peer.public_key).collect();
        self.watches.retain(|key, _| peers.contains(key));
    }

    /// The label of a peer, or its key.
    pub(super) fn label(&self, key: &PublicKey) -> String {
        self.labels.get(key).cloned().unwrap_or_else(|| key.to_string())
    }

    /// A line of the log when a peer stops to answer, and when it answers again.
    pub(super) fn log_change(&self, peer: &PeerSnapshot, change: Change) {
        let label = self.label(&peer.public_key);
        let endpoint = peer.endpoint.map_or_else(|| "no endpoint".to_owned(), |endpoint| endpoint.to_string());
        match change {
            Change::Silent => {
                tracing::warn!(component = "wireguard", peer = label, "peer {label} ({endpoint}) does not answer");
            }
            Change::Answers => {
                tracing::info!(component = "wireguard", peer = label, "peer {label} ({endpoint}) answers again");
            }
        }
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
