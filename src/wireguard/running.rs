//! An interface at work, and how it becomes what it shall be.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio::time::Instant;

use super::carrier::Carrier;
use super::keyfile;
use super::link;
use super::memory::{Active, Memory};
use super::names::{Host, Names, Vigil};
use super::plan::{self, Configured, Interface};
use super::room::Error;
use crate::config;
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::outcome::Problem;
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::key::{PrivateKey, PublicKey};
use bastiond_tunnel::model::Snapshot;

/// An interface at work.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) interface: InterfaceName,
    pub(super) backend: config::BackendChoice,
    pub(super) carrier: Carrier,
    /// What its start left to be told.
    pub(super) problems: Vec<Problem>,
    pub(super) mtu: u32,
    /// Names of the peers that have one.
    pub(super) labels: BTreeMap<PublicKey, String>,
    /// Peers whose endpoints are names.
    pub(super) named: BTreeMap<PublicKey, Host>,
    pub(super) vigils: BTreeMap<PublicKey, Vigil>,
    /// Endpoints as they were configured when they were set last.
    pub(super) configured: Configured,
    /// What stood after the last pass: if it differs later, somebody changed it.
    pub(super) stood: Option<Interface>,
    /// Whether it ever stood: before that nobody knows its port.
    pub(super) stood_once: bool,
    pub(super) memory: Memory,
    /// Who was active before, until they are called upon.
    pub(super) remembered: Active,
    pub(super) look_at: Instant,
}

impl Running {
    /// Takes over what only people and look-ups need.
    pub(super) fn describe(&mut self, config: &config::Wireguard, tunnel: &Tunnel) {
        self.mtu = tunnel.mtu;
        self.labels = config.peers.iter().filter_map(|peer| Some((peer.public_key, peer.name.clone()?))).collect();
        self.named = config.peers.iter().filter_map(|peer| Some((peer.public_key, host(peer)?))).collect();
        self.vigils.retain(|key, _| self.named.contains_key(key));
    }

    pub(super) async fn converge(
        &mut self,
        mut desired: Interface,
        changes: &mut Vec<String>,
    ) -> Result<(Snapshot, bool), Error> {
        let configured: Configured =
            desired.peers.iter().filter_map(|(key, peer)| Some((*key, peer.endpoint?))).collect();
        let remembered = std::mem::take(&mut self.remembered);
        for (key, peer) in &mut desired.peers {
            // Where it was last heard is a better guess than where it was once configured to be.
            peer.endpoint = remembered.get(key).copied().or(peer.endpoint);
        }
        let before = self.carrier.snapshot().await?;
        let update = plan::plan(&desired, &before, &self.configured);
        let drifted = update.is_some() && self.stood.as_ref() == Some(&desired);
        self.stood = None;
        let mut callees: Vec<PublicKey> = remembered.into_keys().collect();
        if let Some(update) = update {
            let label = |key: &PublicKey| self.labels.get(key).cloned().unwrap_or_else(|| key.to_string());
            let told = plan::told(&update, &before, label);
            if update.listen_port.is_some() && self.stood_once {
                // They know the former port. A packet from the new one tells them, where no NAT is in its way.
                let now = SystemTime::now();
                callees.extend(before.peers.iter().filter(|peer| peer.is_active(now)).map(|peer| peer.public_key));
            }
            self.carrier.set(update).await?;
            changes.extend(told);
        }
        self.set_link(changes).await?;
        callees.retain(|key| desired.peers.contains_key(key));
        if !callees.is_empty() {
            changes.push(format!("{} peer(s) that were active are called upon", callees.len()));
            self.carrier.initiate(callees).await?;
        }
        self.stood_once = true;
        self.configured = configured;
        self.stood = Some(desired);
        let after = self.carrier.snapshot().await?;
        self.memory.keep(&after, SystemTime::now());
        Ok((after, drifted))
    }

    /// Somebody may have set it down, or changed its MTU.
    async fn set_link(&self, changes: &mut Vec<String>) -> Result<(), Error> {
        let Some(link) = link::observe(&self.interface).await? else { return Ok(()) }; // the next pass makes it anew
        if link.up && link.mtu == self.mtu {
            return Ok(());
        }
        link::set(&self.interface, link.index, self.mtu).await?;
        if !link.up {
            changes.push(format!("{} set up", self.interface));
        }
        if link.mtu != self.mtu {
            changes.push(format!("{}: MTU {} -> {}", self.interface, link.mtu, self.mtu));
        }
        Ok(())
    }
}

/// The configured key, or that of the file, which is made if it is missing.
pub(super) fn private_key(config: &config::Wireguard, changes: &mut Vec<String>) -> Result<PrivateKey, Error> {
    if let Some(key) = &config.private_key {
        return Ok(key.clone());
    }
    let (key, is_new) = keyfile::read_or_make(&config.private_key_file)?;
    if is_new {
        changes.push(format!("private key made in {}", config.private_key_file.display()));
    }
    Ok(key)
}

pub(super) fn host(peer: &config::Peer) -> Option<Host> {
    match peer.endpoint.as_ref()? {
        EndpointName::Name { host, port } => Some((host.clone(), *port)),
        EndpointName::Address(_) => None,
    }
}

pub(super) fn interface(config: &config::Wireguard, private_key: PrivateKey, names: &Names) -> Interface {
    let endpoint = |peer: &config::Peer| match peer.endpoint.as_ref()? {
        EndpointName::Address(address) => Some(*address),
        EndpointName::Name { host, port } => names.address(&(host.clone(), *port)),
    };
    let peer = |peer: &config::Peer| {
        let desired = plan::Peer {
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: peer.allowed_ips.iter().copied().collect(),
            endpoint: endpoint(peer),
            persistent_keepalive: peer.persistent_keepalive.unwrap_or(0),
        };
        (peer.public_key, desired)
    };
    let peers = config.peers.iter().map(peer).collect();
    Interface { private_key, listen_port: config.listen_port, fwmark: config.fwmark, peers }
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
