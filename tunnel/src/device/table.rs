//! The interface's peers, by key, by index and by address, and the changes that may be made to them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::allowed_ips::{AllowedIps, Slot};
use super::identity::Identity;
use super::message;
use super::peer::Peer;
use super::transport::Endpoint;
use crate::key::{PrivateKey, PublicKey};
use crate::model::{PeerSnapshot, PeerUpdate, RefusedPeer, Snapshot};

/// What decides where a packet goes and which peer it may come from.
#[derive(Debug, Default)]
pub struct Table {
    identity: Option<Arc<Identity>>,
    slots: Vec<Option<Entry>>,
    /// Slots of removed peers, the longest unused first, so that a late message for a former peer does not reach the
    /// next one.
    free: VecDeque<Slot>,
    by_key: HashMap<PublicKey, Slot>,
    allowed_ips: AllowedIps,
    scramble: u32,
    created: u64,
}

#[derive(Debug)]
struct Entry {
    peer: Arc<Peer>,
    /// Sorted.
    allowed_ips: Vec<IpNet>,
}

impl Table {
    /// A table without peers. `scramble` is any random number.
    pub fn new(scramble: u32) -> Self {
        Self { scramble, ..Self::default() }
    }

    /// The interface's keys; `None` before it has any.
    #[inline]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// The peer for packets to this address.
    #[inline]
    pub fn route(&self, destination: IpAddr) -> Option<&Arc<Peer>> {
        self.by_slot(self.allowed_ips.owner(destination)?)
    }

    /// Whether a peer may send packets from this address.
    #[inline]
    pub fn may_use_source(&self, peer: &Peer, source: IpAddr) -> bool {
        self.allowed_ips.owner(source) == Some(peer.slot)
    }

    /// The peer of a message's receiver index.
    #[inline]
    pub fn by_index(&self, receiver: u32) -> Option<&Arc<Peer>> {
        self.by_slot(message::slot_of(receiver, self.scramble))
    }

    /// The peer of a public key.
    pub fn by_key(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.by_slot(*self.by_key.get(key)?)
    }

    /// All peers, in no order.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.slots.iter().flatten().map(|entry| &entry.peer)
    }

    /// The peer of a slot.
    #[inline]
    pub fn by_slot(&self, slot: Slot) -> Option<&Arc<Peer>> {
        Some(&self.slots.get(slot.0 as usize)?.as_ref()?.peer)
    }

    /// Changes the private key. Every session ends, since its peer knows the former key; a peer with our own public key
    /// is removed.
    pub fn set_private_key(&mut self, key: Option<PrivateKey>) {
        if self.identity.as_ref().map(|identity| &identity.private_key) == key.as_ref() {
            return;
        }
        self.identity = key.map(|key| Arc::new(Identity::new(key)));
        if let Some(ourselves) = self.identity.as_ref().map(|identity| identity.public_key()) {
            self.remove(&ourselves);
        }
        for peer in self.peers() {
            peer.lock().end_sessions();
        }
    }

    /// Removes all peers except these; those of these that exist.
    pub fn retain(&mut self, wanted: &HashSet<PublicKey>) -> HashSet<PublicKey> {
        let (kept, dropped): (Vec<_>, Vec<_>) = self.by_key.keys().copied().partition(|key| wanted.contains(key));
        for key in dropped {
            self.remove(&key);
        }
        kept.into_iter().collect()
    }

    /// Carries out one peer's change. The peer, if its timers have to run now: it has a keepalive and an endpoint.
    pub fn change(&mut self, update: PeerUpdate) -> Option<Arc<Peer>> {
        if update.remove {
            self.remove(&update.public_key);
            return None;
        }
        let ourselves = self.identity.as_ref().map(|identity| identity.public_key());
        if ourselves == Some(update.public_key) {
            // As the kernel does (drivers/net/wireguard/netlink.c, set_peer): a configuration shared by all ends may
            // name it.
            return None;
        }
        let slot = match self.by_key.get(&update.public_key) {
            Some(&slot) => slot,
            None if update.update_only => return None,
            None => self.add(update.public_key)?,
        };
        if update.replace_allowed_ips {
            for net in std::mem::take(&mut self.entry(slot)?.allowed_ips) {
                self.allowed_ips.remove(net, slot);
            }
        }
        for allowed_ip in update.allowed_ips {
            if allowed_ip.remove {
                self.remove_allowed_ip(slot, allowed_ip.net.trunc());
            } else {
                self.add_allowed_ip(slot, allowed_ip.net.trunc());
            }
        }
        let identity = self.identity.clone();
        let peer = &self.entry(slot)?.peer;
        let mut state = peer.lock();
        if let Some(key) = update.preshared_key {
            peer.set_preshared_key(identity.as_deref(), &mut state, Some(key).filter(|key| !key.is_none()));
        }
        if let Some(address) = update.endpoint {
            state.set_endpoint(Endpoint::from(address));
        }
        if let Some(seconds) = update.persistent_keepalive {
            state.set_keepalive(seconds);
        }
        (state.keepalive() > 0 && state.endpoint().is_some()).then(|| Arc::clone(peer))
    }

    /// `None` if the interface has its maximum of peers.
    fn add(&mut self, key: PublicKey) -> Option<Slot> {
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None => Slot(u32::try_from(self.slots.len()).ok().filter(|&next| next < message::MAX_PEERS)?),
        };
        self.created += 1;
        let entry =
            Entry { peer: Arc::new(Peer::new(key, slot, self.created, self.scramble)), allowed_ips: Vec::new() };
        match self.slots.get_mut(slot.0 as usize) {
            Some(place) => *place = Some(entry),
            None => self.slots.push(Some(entry)),
        }
        self.by_key.insert(key, slot);
        Some(slot)
    }

    fn remove(&mut self, key: &PublicKey) {
        let Some(slot) = self.by_key.remove(key) else { return };
        let Some(entry) = self.slots.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        for net in entry.allowed_ips {
            self.allowed_ips.remove(net, slot);
        }
        entry.peer.lock().remove();
        self.free.push_back(slot);
    }

    fn entry(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.slots.get_mut(slot.0 as usize)?.as_mut()
    }

    fn add_allowed_ip(&mut self, slot: Slot, net: IpNet) {
        let former = self.allowed_ips.insert(net, slot);
        if former == Some(slot) {
            return;
        }
        if let Some(former) = former.and_then(|former| self.entry(former)) {
            former.allowed_ips.retain(|other| *other != net);
        }
        if let Some(entry) = self.entry(slot) {
            if let Err(place) = entry.allowed_ips.binary_search(&net) {
                entry.allowed_ips.insert(place, net);
            }
        }
    }

    fn remove_allowed_ip(&mut self, slot: Slot, net: IpNet) {
        self.allowed_ips.remove(net, slot);
        if let Some(entry) = self.entry(slot) {
            entry.allowed_ips.retain(|other| *other != net);
        }
    }

    /// The peers of which something is refused, in the order in which they were made.
    pub fn refused(&self) -> Vec<RefusedPeer> {
        let mut peers: Vec<_> = self
            .peers()
            .filter_map(|peer| {
                let state = peer.lock();
                let (foreign_source, unconfirmed) = (state.foreign_source(), state.unconfirmed_answers());
                let is_refused = foreign_source.is_some() || unconfirmed > 0;
                is_refused.then(|| (peer.order, RefusedPeer { public_key: peer.key, foreign_source, unconfirmed }))
            })
            .collect();
        peers.sort_unstable_by_key(|(order, _)| *order);
        peers.into_iter().map(|(_, peer)| peer).collect()
    }

    /// The interface as it is, without the port and the mark of its sockets.
    pub fn snapshot(&self) -> Snapshot {
        let mut entries: Vec<&Entry> = self.slots.iter().flatten().collect();
        entries.sort_unstable_by_key(|entry| entry.peer.order);
        let peers = entries.into_iter().map(|entry| {
            let state = entry.peer.lock();
            let (last_handshake, rx_bytes, tx_bytes) = state.statistics();
            PeerSnapshot {
                public_key: entry.peer.key,
                preshared_key: state.preshared_key().cloned(),
                endpoint: state.endpoint().map(|endpoint| endpoint.address),
                persistent_keepalive: state.keepalive(),
                allowed_ips: entry.allowed_ips.clone(),
                last_handshake,
                rx_bytes,
                tx_bytes,
            }
        });
        Snapshot {
            private_key: self.identity.as_ref().map(|identity| identity.private_key.clone()),
            listen_port: 0,
            fwmark: 0,
            peers: peers.collect(),
        }
    }
}
