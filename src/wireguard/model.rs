//! The tunnel as the configuration wants it, in the terms of the data plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use super::names::{Host, Names};
use crate::config;
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::key::{PresharedKey, PrivateKey, PublicKey};

/// Which data plane carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// Our own, in a process of its own.
    Userspace,
    /// The kernel's.
    Kernel,
}

/// What an interface is wanted to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its key; `None` if it has yet to be made.
    pub(super) private_key: Option<PrivateKey>,
    /// Its UDP port, from 1.
    pub(super) listen_port: u16,
    /// The mark of outgoing UDP packets (`SO_MARK`); 0 is none.
    pub(super) fwmark: u32,
    /// Its peers, by key.
    pub(super) peers: BTreeMap<PublicKey, Peer>,
}

/// What a peer is wanted to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Peer {
    /// The preshared key, if there is one.
    pub(super) preshared_key: Option<PresharedKey>,
    /// Its prefixes. No two peers share one.
    pub(super) allowed_ips: BTreeSet<IpNet>,
    /// The configured endpoint, once its name is resolved.
    pub(super) endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 is off.
    pub(super) persistent_keepalive: u16,
}

/// Endpoints as they are configured. A peer may have roamed since, so an endpoint is only set when its configuration
/// changes.
pub(super) type ConfiguredEndpoints = BTreeMap<PublicKey, SocketAddr>;

impl Interface {
    /// The interface that the configuration wants, with the addresses that are known for the names of its endpoints.
    pub(super) fn desired(config: &config::Wireguard, private_key: Option<PrivateKey>, names: &Names) -> Self {
        let endpoint = |peer: &config::Peer| match peer.endpoint.as_ref()? {
            EndpointName::Address(address) => Some(*address),
            EndpointName::Name { host, port } => names.address(&(host.clone(), *port)),
        };
        let peer = |peer: &config::Peer| {
            let desired = Peer {
                preshared_key: peer.preshared_key.clone(),
                allowed_ips: peer.allowed_ips.iter().copied().collect(),
                endpoint: endpoint(peer),
                persistent_keepalive: peer.persistent_keepalive.unwrap_or(0),
            };
            (peer.public_key, desired)
        };
        let peers = config.peers.iter().map(peer).collect();
        Self { private_key, listen_port: config.listen_port, fwmark: config.fwmark, peers }
    }

    /// The same, with these endpoints for the peers that have one there: where a peer was last is a better guess than
    /// where it was once configured to be.
    pub(super) fn with_endpoints(&self, endpoints: &BTreeMap<PublicKey, SocketAddr>) -> Self {
        let mut interface = self.clone();
        for (key, peer) in &mut interface.peers {
            peer.endpoint = endpoints.get(key).copied().or(peer.endpoint);
        }
        interface
    }

    /// The endpoints of its peers.
    pub(super) fn endpoints(&self) -> ConfiguredEndpoints {
        self.peers.iter().filter_map(|(key, peer)| Some((*key, peer.endpoint?))).collect()
    }
}

/// The name in a peer's endpoint, if it is one.
pub(super) fn host(peer: &config::Peer) -> Option<Host> {
    match peer.endpoint.as_ref()? {
        EndpointName::Name { host, port } => Some((host.clone(), *port)),
        EndpointName::Address(_) => None,
    }
}
