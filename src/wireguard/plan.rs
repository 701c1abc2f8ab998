//! What the interface shall be and what it is in, one change out. Pure.
//!
//! Only what differs is changed: the sessions of other peers live on, and an endpoint that roamed stays where the peer is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnet::IpNet;

use bastiond_tunnel::key::{LENGTH, PresharedKey, PrivateKey, PublicKey};
use bastiond_tunnel::model::{AllowedIp, PeerSnapshot, PeerUpdate, Snapshot, Update};

/// What the interface shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its key.
    pub private_key: PrivateKey,
    /// Its UDP port.
    pub listen_port: u16,
    /// The mark of outgoing UDP packets; 0 is none.
    pub fwmark: u32,
    /// Its peers, by key.
    pub peers: BTreeMap<PublicKey, Peer>,
}

/// What a peer shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// The preshared key, if there is one.
    pub preshared_key: Option<PresharedKey>,
    /// Its prefixes. No two peers share one.
    pub allowed_ips: BTreeSet<IpNet>,
    /// Where it is configured to be, once its name is resolved.
    pub endpoint: Option<SocketAddr>,
    /// Seconds between persistent keepalives; 0 is off.
    pub persistent_keepalive: u16,
}

/// Endpoints as they were configured last. One that is configured anew is set; one that is not may have roamed.
pub type Configured = BTreeMap<PublicKey, SocketAddr>;

/// The change that makes the interface as desired; `None` when it is so already.
pub fn plan(desired: &Interface, observed: &Snapshot, configured: &Configured) -> Option<Update> {
    let there: BTreeMap<PublicKey, &PeerSnapshot> = observed.peers.iter().map(|peer| (peer.public_key, peer)).collect();
    let removed = there.keys().filter(|key| !desired.peers.contains_key(key));
    let removed = removed.map(|&key| PeerUpdate { remove: true, ..PeerUpdate::of(key) });
    let mut peers: Vec<PeerUpdate> = removed.collect();
    let (mut gives, mut takes) = (Vec::new(), Vec::new());
    for (&key, peer) in &desired.peers {
        let (give, take) = changes(key, peer, there.get(&key).copied(), configured.get(&key).copied());
        gives.extend(give);
        takes.extend(take);
    }
    // Whoever gives an allowed-ip away does so before somebody else is given it.
    peers.extend(gives);
    peers.extend(takes);
    let private_key =
        (observed.private_key.as_ref() != Some(&desired.private_key)).then(|| desired.private_key.clone());
    let update = Update {
        private_key: private_key.map(Some),
        listen_port: (observed.listen_port != desired.listen_port).then_some(desired.listen_port),
        fwmark: (observed.fwmark != desired.fwmark).then_some(desired.fwmark),
        replace_peers: false,
        peers,
    };
    (update != Update::default()).then_some(update)
}

/// What one peer loses, and everything else that changes about it.
fn changes(
    key: PublicKey,
    desired: &Peer,
    observed: Option<&PeerSnapshot>,
    configured: Option<SocketAddr>,
) -> (Option<PeerUpdate>, Option<PeerUpdate>) {
    let there: BTreeSet<IpNet> = observed.into_iter().flat_map(|peer| &peer.allowed_ips).copied().collect();
    let listed = |nets: &mut dyn Iterator<Item = &IpNet>, remove| -> Vec<AllowedIp> {
        nets.map(|&net| AllowedIp { net, remove }).collect()
    };
    let lost = listed(&mut there.difference(&desired.allowed_ips), true);
    let give = (!lost.is_empty()).then(|| PeerUpdate { update_only: true, allowed_ips: lost, ..PeerUpdate::of(key) });
    let no_key = PresharedKey([0; LENGTH]);
    let same_key = observed.is_some_and(|peer| peer.preshared_key == desired.preshared_key);
    let keepalive = observed.map_or(0, |peer| peer.persistent_keepalive);
    let has_endpoint = observed.is_some_and(|peer| peer.endpoint.is_some());
    let is_news = !has_endpoint || desired.endpoint != configured;
    let take = PeerUpdate {
        preshared_key: if same_key || (observed.is_none() && desired.preshared_key.is_none()) {
            None
        } else {
            Some(desired.preshared_key.clone().unwrap_or(no_key))
        },
        endpoint: desired.endpoint.filter(|_| is_news),
        persistent_keepalive: (keepalive != desired.persistent_keepalive).then_some(desired.persistent_keepalive),
        allowed_ips: listed(&mut desired.allowed_ips.difference(&there), false),
        ..PeerUpdate::of(key)
    };
    let changed = observed.is_none() || take != PeerUpdate::of(key);
    (give, changed.then_some(take))
}

/// The change in words, by the names that people have for their peers. Never a secret.
pub fn told(update: &Update, observed: &Snapshot, label: impl Fn(&PublicKey) -> String) -> Vec<String> {
    let mut lines = Vec::new();
    if update.private_key.is_some() && observed.private_key.is_some() {
        lines.push("the private key is another one".to_owned());
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
