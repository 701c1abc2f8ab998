//! The change of an interface: what is wanted and what is there in, an update out. Pure.
//!
//! Only what differs is changed: the sessions of other peers live on, and an endpoint that roamed stays where the peer
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use super::model::{ConfiguredEndpoints, Interface, Peer};
use bastiond_tunnel::key::{LENGTH, PresharedKey, PublicKey};
use bastiond_tunnel::model::{AllowedIp, PeerSnapshot, PeerUpdate, Snapshot, Update};

/// The change that makes the interface as desired; `None` if it is so already. `configured` are the endpoints that were
/// configured when the interface was changed last.
pub(super) fn update(desired: &Interface, observed: &Snapshot, configured: &ConfiguredEndpoints) -> Option<Update> {
    let there: BTreeMap<PublicKey, &PeerSnapshot> = observed.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let removed = there.keys().filter(|key| !desired.peers.contains_key(key));
    let removed = removed.map(|&key| PeerUpdate { remove: true, ..PeerUpdate::new(key) });
    let mut peers: Vec<PeerUpdate> = removed.collect();
    let (mut losses, mut others) = (Vec::new(), Vec::new());
    for (&key, peer) in &desired.peers {
        let (loss, other) = peer_updates(key, peer, there.get(&key).copied(), configured.get(&key).copied());
        losses.extend(loss);
        others.extend(other);
    }
    // A peer loses an allowed-ip before another one gets it.
    peers.extend(losses);
    peers.extend(others);
    let private_key = desired.private_key.clone().filter(|wanted| observed.private_key.as_ref() != Some(wanted));
    let update = Update {
        private_key: private_key.map(Some),
        listen_port: (observed.listen_port != desired.listen_port).then_some(desired.listen_port),
        fwmark: (observed.fwmark != desired.fwmark).then_some(desired.fwmark),
        replace_peers: false,
        peers,
    };
    (update != Update::default()).then_some(update)
}

/// The allowed-ips that one peer loses, and everything else that changes about it.
fn peer_updates(
    key: PublicKey,
    desired: &Peer,
    observed: Option<&PeerSnapshot>,
    configured: Option<SocketAddr>,
) -> (Option<PeerUpdate>, Option<PeerUpdate>) {
    let there: BTreeSet<IpNet> = observed.into_iter().flat_map(|peer| &peer.allowed_ips).copied().collect();
    let listed = |nets: &mut dyn Iterator<Item = &IpNet>, remove| -> Vec<AllowedIp> {
        nets.map(|&net| AllowedIp { net, remove }).collect()
    };
    let unwanted = listed(&mut there.difference(&desired.allowed_ips), true);
    let loss =
        (!unwanted.is_empty()).then(|| PeerUpdate { update_only: true, allowed_ips: unwanted, ..PeerUpdate::new(key) });
    let no_key = PresharedKey([0; LENGTH]);
    let same_key = observed.is_some_and(|peer| peer.preshared_key == desired.preshared_key);
    let keepalive = observed.map_or(0, |peer| peer.persistent_keepalive);
    let has_endpoint = observed.is_some_and(|peer| peer.endpoint.is_some());
    let is_new_endpoint = !has_endpoint || desired.endpoint != configured;
    let other = PeerUpdate {
        preshared_key: if same_key || (observed.is_none() && desired.preshared_key.is_none()) {
            None
        } else {
            Some(desired.preshared_key.clone().unwrap_or(no_key))
        },
        endpoint: desired
            .endpoint
            .filter(|wanted| is_new_endpoint && observed.and_then(|peer| peer.endpoint) != Some(*wanted)),
        persistent_keepalive: (keepalive != desired.persistent_keepalive).then_some(desired.persistent_keepalive),
        allowed_ips: listed(&mut desired.allowed_ips.difference(&there), false),
        ..PeerUpdate::new(key)
    };
    let changed = observed.is_none() || other != PeerUpdate::new(key);
    (loss, changed.then_some(other))
}

/// The change in words, with the labels of the peers. Never a secret.
pub(super) fn describe(update: &Update, observed: &Snapshot, label: impl Fn(&PublicKey) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(Some(key)), Some(former)) = (&update.private_key, &observed.private_key) {
        let (former, key) = (former.public(), key.public());
        lines.push(format!(
            "the private key changes; the public key was {former}, and is {key}, which every peer needs"
        ));
    }
    if let Some(port) = update.listen_port {
        lines.push(format!("listens on UDP {port}"));
    }
    if let Some(mark) = update.fwmark {
        lines.push(format!("fwmark {mark:#x}"));
    }
    let known: BTreeSet<PublicKey> = observed.peers.iter().map(|peer| peer.public_key).collect();
    let count = |wanted: &dyn Fn(&PeerUpdate) -> bool| -> BTreeSet<PublicKey> {
        update.peers.iter().filter(|peer| wanted(peer)).map(|peer| peer.public_key).collect()
    };
    let kinds = [
        ("removed", count(&|peer| peer.remove)),
        ("added", count(&|peer| !peer.remove && !known.contains(&peer.public_key))),
        ("changed", count(&|peer| !peer.remove && known.contains(&peer.public_key))),
    ];
    for (what, peers) in kinds {
        match peers.len() {
            0 => {}
            1..=5 => lines.extend(peers.iter().map(|key| format!("peer {} {what}", label(key)))),
            count => lines.push(format!("{count} peers {what}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests;
