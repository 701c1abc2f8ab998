//! Rewrites a change so that it means the same to the kernel as to our own data plane.
//!
//! Two parts of a change do not. `WGDEVICE_F_REPLACE_PEERS` removes every peer first, and with it the sessions of those
//! that stay; here a peer that stays keeps its session. And kernels before `WGALLOWEDIP_F_REMOVE_ME` cannot remove a
//! single allowed-ip: the peer's list is replaced by the rest of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;

use bastiond_tunnel::key::{self, PresharedKey, PublicKey};
use bastiond_tunnel::model::{AllowedIp, PeerUpdate, Snapshot, Update};

/// How a kernel removes a single allowed-ip from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// By `WGALLOWEDIP_F_REMOVE_ME`.
    Flag,
    /// It cannot: the peer's list is replaced, and for that moment the peer's other packets are lost too.
    ByReplacing,
}

impl Removal {
    /// What the kernel of this release does (`uname -r`). The flag came with Linux 6.16 (commit ba3d7b93dbe3); kernels
    /// before refuse it as an unknown attribute, in the middle of a change. A release that cannot be read counts as an
    /// old one.
    pub(crate) fn from_release(release: &str) -> Self {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) if (major, minor) >= (6, 16) => Self::Flag,
            _ => Self::ByReplacing,
        }
    }
}

/// Whether a change can be translated only with a snapshot of the interface.
pub(crate) fn needs_snapshot(update: &Update, removal: Removal) -> bool {
    let removes = || update.peers.iter().flat_map(|peer| &peer.allowed_ips).any(|allowed_ip| allowed_ip.remove);
    // If no peer is named, none stays.
    (update.replace_peers && !update.peers.is_empty()) || (removal == Removal::ByReplacing && removes())
}

/// The change that makes of the observed interface what `update` would make of it in our own data plane.
pub(crate) fn translate(mut update: Update, observed: &Snapshot, removal: Removal) -> Update {
    let private_key = update.private_key.as_ref().map_or(observed.private_key.as_ref(), Option::as_ref);
    let ourselves = private_key.map(key::PrivateKey::public);
    let mut owners = Owners::observed(observed);
    if let Some(ourselves) = ourselves {
        owners.remove(&ourselves);
    }
    let mut steps = Vec::with_capacity(update.peers.len());
    let mut kept = HashSet::new();
    if update.replace_peers {
        let named: HashSet<PublicKey> = update.peers.iter().map(|peer| peer.public_key).collect();
        let (staying, going): (Vec<_>, Vec<_>) =
            observed.peers.iter().map(|peer| peer.public_key).partition(|key| named.contains(key));
        for key in &going {
            owners.remove(key);
        }
        if !staying.is_empty() {
            update.replace_peers = false;
            steps.extend(going.into_iter().map(|key| PeerUpdate { remove: true, ..PeerUpdate::new(key) }));
            kept = staying.into_iter().collect();
        }
    }
    for mut peer in std::mem::take(&mut update.peers) {
        if kept.remove(&peer.public_key) {
            // Its session and its endpoint stay, but nothing that was configured.
            peer.replace_allowed_ips = true;
            peer.preshared_key.get_or_insert(PresharedKey([0; key::LENGTH]));
            peer.persistent_keepalive.get_or_insert(0);
        }
        if peer.remove {
            owners.remove(&peer.public_key);
            steps.push(PeerUpdate { remove: true, ..PeerUpdate::new(peer.public_key) });
            continue;
        }
        let ignored = ourselves == Some(peer.public_key) || (peer.update_only && !owners.knows(&peer.public_key));
        if !ignored {
            owners.translate(peer, removal, &mut steps);
        }
    }
    update.peers = steps;
    update
}

/// Which peer has which allowed-ips at a point of the change.
#[derive(Debug, Default)]
struct Owners {
    by_peer: HashMap<PublicKey, BTreeSet<IpNet>>,
    by_net: HashMap<IpNet, PublicKey>,
}

impl Owners {
    fn observed(snapshot: &Snapshot) -> Self {
        let mut owners = Self::default();
        for peer in &snapshot.peers {
            owners.by_peer.insert(peer.public_key, BTreeSet::new());
            peer.allowed_ips.iter().for_each(|net| owners.give(peer.public_key, *net));
        }
        owners
    }

    fn knows(&self, peer: &PublicKey) -> bool {
        self.by_peer.contains_key(peer)
    }

    fn remove(&mut self, peer: &PublicKey) {
        for net in self.by_peer.remove(peer).unwrap_or_default() {
            self.by_net.remove(&net);
        }
    }

    fn give(&mut self, peer: PublicKey, net: IpNet) {
        let former = self.by_net.insert(net, peer);
        if let Some(nets) = former.and_then(|former| self.by_peer.get_mut(&former)) {
            nets.remove(&net);
        }
        self.by_peer.entry(peer).or_default().insert(net);
    }

    fn take(&mut self, peer: &PublicKey, net: IpNet) {
        if self.by_peer.get_mut(peer).is_some_and(|nets| nets.remove(&net)) {
            self.by_net.remove(&net);
        }
    }

    /// Applies a peer's change to this table, and adds the steps for the kernel. If the kernel can do it, the
    /// allowed-ips that the peer keeps are never missing in between.
    fn translate(&mut self, mut peer: PeerUpdate, removal: Removal, steps: &mut Vec<PeerUpdate>) {
        let key = peer.public_key;
        peer.allowed_ips.iter_mut().for_each(|allowed_ip| allowed_ip.net = allowed_ip.net.trunc());
        let before = self.by_peer.entry(key).or_default().clone();
        let added: BTreeSet<IpNet> = peer.allowed_ips.iter().filter(|ip| !ip.remove).map(|ip| ip.net).collect();
        let dropped: Vec<IpNet> =
            if peer.replace_allowed_ips { before.difference(&added).copied().collect() } else { Vec::new() };
        for net in &dropped {
            self.take(&key, *net);
        }
        for AllowedIp { net, remove } in peer.allowed_ips.iter().copied() {
            if remove { self.take(&key, net) } else { self.give(key, net) }
        }
        peer.replace_allowed_ips = false;
        if removal == Removal::Flag {
            let dropped = dropped.into_iter().map(|net| AllowedIp { net, remove: true });
            peer.allowed_ips = dropped.chain(peer.allowed_ips).collect();
            steps.push(peer);
            return;
        }
        let after = &self.by_peer[&key];
        let add = |net: &IpNet| AllowedIp { net: *net, remove: false };
        // An allowed-ip that is added and removed again is lost to the peer that had it.
        let passing = !added.is_subset(after);
        if before.is_subset(after) && !passing {
            peer.allowed_ips.retain(|allowed_ip| !allowed_ip.remove);
            steps.push(peer);
            return;
        }
        peer.replace_allowed_ips = true;
        peer.allowed_ips = after.union(&added).map(add).collect();
        steps.push(peer);
        if passing {
            let replace = PeerUpdate { update_only: true, replace_allowed_ips: true, ..PeerUpdate::new(key) };
            steps.push(PeerUpdate { allowed_ips: after.iter().map(add).collect(), ..replace });
        }
    }
}
