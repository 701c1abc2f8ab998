//! One peer: its endpoint, its keys, its statistics. Its session is in [`session`], its timers are in [`timers`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boringtun::noise::Tunn;
use boringtun::x25519;
use parking_lot::{Mutex, MutexGuard};

use super::allowed_ips::Slot;
use super::clock::Now;
use super::identity::Identity;
use super::message;
use super::transport::Endpoint;
use crate::key::{PresharedKey, PublicKey};
use crate::model::ForeignSource;

mod session;
mod timers;

pub(crate) use session::{Opened, Sealed};

/// How often the path MTU to a peer is looked up while something is sent to it. A look-up takes three system calls.
const PATH_INTERVAL: Duration = Duration::from_secs(2);
/// After so many answers without a session the answers do not reach the peer, or it cannot read them.
const LOST_ANSWERS: u32 = 3;

/// A peer of the interface.
pub struct Peer {
    /// The peer's public key, which identifies it.
    pub key: PublicKey,
    /// Its index in the table.
    pub slot: Slot,
    /// Peers are listed by this number, in the order in which they were made.
    pub order: u64,
    /// The number with which this device scrambles its indices.
    scramble: u32,
    state: Mutex<State>,
}

/// The part of a peer that changes.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; none excludes another")]
pub struct State {
    /// The protocol core. It is made with the first packet from or to the peer: it takes some 18 KB, and most of 10
    /// 000 peers are silent.
    tunn: Option<Box<Tunn>>,
    /// The session of a former preshared key, used until a handshake with the new one is done.
    retiring: Option<Box<Tunn>>,
    /// When the retiring session ends, once the next one is there.
    retires_at: Option<Duration>,
    /// Whether `tunn` has had a session.
    has_session: bool,
    /// Which of the peer's two indices `tunn` uses; the retiring one uses the other, so that a message names its
    /// session.
    uses_odd_index: bool,
    preshared_key: Option<PresharedKey>,
    keepalive: u16,
    endpoint: Option<Endpoint>,
    /// The largest inner packet, in bytes, whose datagram reaches the endpoint without fragmentation; `None`: unknown.
    inner_limit: Option<usize>,
    /// Whether the limit has to be looked up.
    path_lookup_due: bool,
    /// When it was looked up last, and how many bytes had been sent by then.
    path_looked_up: Duration,
    sent_at_path_lookup: u64,
    /// Our index of a session that the peer started and has not used yet.
    unconfirmed: Option<u32>,
    /// Whether the protocol core keeps packets that wait for a session.
    staged: bool,
    rekey_due: bool,
    /// Whether the peer is in the list of those whose timers run.
    pub(super) ticking: bool,
    removed: bool,
    last_initiation: Option<Duration>,
    /// When a packet was sent, if nothing authentic was received since.
    unanswered_since: Option<Duration>,
    /// When an authenticated message was last sent or received.
    last_traversal: Duration,
    /// When a packet was received, if nothing was sent since.
    received_since: Option<Duration>,
    last_handshake: Option<SystemTime>,
    /// Answers to the peer's handshakes since its last session.
    unconfirmed_answers: u32,
    /// In a box, because nearly all peers use their own addresses only.
    foreign_source: Option<Box<ForeignSource>>,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Peer {
    /// A peer without a protocol core.
    pub fn new(key: PublicKey, slot: Slot, order: u64, scramble: u32) -> Self {
        Self { key, slot, order, scramble, state: Mutex::default() }
    }

    /// Locks the peer's state. Never held during a system call.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn make_tunn(&self, identity: &Identity, state: &State) -> Box<Tunn> {
        Box::new(Tunn::new(
            identity.secret.clone(),
            x25519::PublicKey::from(self.key.0),
            state.preshared_key.as_ref().map(|key| key.0),
            // The persistent keepalive is timed here: the core cannot change its own on a live peer.
            None,
            message::index_of(self.slot, state.uses_odd_index, self.scramble),
            Some(Arc::clone(&identity.relaxed)),
        ))
    }

    /// Makes the peer's protocol core, if there is none.
    pub fn wake(&self, identity: &Identity, state: &mut State) {
        if state.tunn.is_none() && !state.removed {
            state.tunn = Some(self.make_tunn(identity, state));
            state.has_session = false;
        }
    }

    /// Changes the preshared key. The present session goes on until a handshake with the new key is done.
    pub fn set_preshared_key(&self, identity: Option<&Identity>, state: &mut State, key: Option<PresharedKey>) {
        if state.preshared_key == key {
            return;
        }
        state.preshared_key = key;
        let Some(old) = state.tunn.take() else { return };
        let Some(identity) = identity else { return };
        if state.has_session {
            state.retiring = Some(old);
            state.retires_at = None;
            // A core without a session leaves its index to the next: the retiring session may still use the other
            // index.
            state.uses_odd_index = !state.uses_odd_index;
        }
        state.unconfirmed = None;
        state.staged = false;
        state.has_session = false;
        state.tunn = Some(self.make_tunn(identity, state));
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("key", &self.key).field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl State {
    /// Whether there is a protocol core.
    #[inline]
    pub fn is_awake(&self) -> bool {
        self.tunn.is_some()
    }

    /// The peer's endpoint.
    #[inline]
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint
    }

    /// Configures the endpoint.
    pub fn set_endpoint(&mut self, endpoint: Endpoint) {
        if self.endpoint.map(|known| known.address) != Some(endpoint.address) {
            self.move_to(endpoint);
        }
    }

    fn move_to(&mut self, endpoint: Endpoint) {
        self.endpoint = Some(endpoint);
        self.inner_limit = None;
        self.path_lookup_due = true;
    }

    /// Lets the kernel choose the source address: the one that the peer sent to is gone.
    pub fn clear_local_address(&mut self) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.local = None;
        }
    }

    /// The largest inner packet for this peer, in bytes, if it is known.
    #[inline]
    pub fn inner_limit(&self) -> Option<usize> {
        self.inner_limit
    }

    /// The endpoint, if its path MTU has to be looked up: after an event, and regularly while something is sent. If a
    /// router reports that a single datagram was too large, only the kernel learns of it, and fragments the next ones
    /// silently.
    pub fn path_to_look_up(&mut self, now: Now) -> Option<Endpoint> {
        let sent = self.tx_bytes != self.sent_at_path_lookup;
        let is_due = self.path_lookup_due || (sent && now.elapsed >= self.path_looked_up + PATH_INTERVAL);
        if is_due {
            (self.path_lookup_due, self.path_looked_up, self.sent_at_path_lookup) = (false, now.elapsed, self.tx_bytes);
        }
        self.endpoint.filter(|_| is_due)
    }

    /// Sets the result of the look-up; `inner_limit` in bytes of an inner packet.
    pub fn set_inner_limit(&mut self, inner_limit: Option<usize>) {
        self.inner_limit = inner_limit;
    }

    /// Notes that a datagram did not fit: the path MTU is looked up again.
    pub fn request_path_lookup(&mut self) {
        self.path_lookup_due = true;
    }

    /// The preshared key.
    pub fn preshared_key(&self) -> Option<&PresharedKey> {
        self.preshared_key.as_ref()
    }

    /// Seconds between persistent keepalives; 0 is off.
    pub fn keepalive(&self) -> u16 {
        self.keepalive
    }

    /// Changes the persistent keepalive, in seconds. Switching it on sends one now.
    pub fn set_keepalive(&mut self, seconds: u16) {
        if self.keepalive == 0 && seconds > 0 {
            self.last_traversal = Duration::ZERO;
        }
        self.keepalive = seconds;
    }

    /// When the newest handshake was completed, and bytes received and sent.
    pub fn statistics(&self) -> (Option<SystemTime>, u64, u64) {
        (self.last_handshake, self.rx_bytes, self.tx_bytes)
    }

    /// Counts a packet from an inner address that is not the peer's. What hosts send on a link alone, without an
    /// address of the tunnel, is not worth a report.
    #[cold]
    pub fn note_foreign_source(&mut self, address: IpAddr, now: Now) {
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local() || address.is_unspecified(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_unspecified(),
        };
        if !is_link_local {
            let packets = self.foreign_source.as_ref().map_or(0, |known| known.packets) + 1;
            let source = ForeignSource { address, packets, last: now.wall };
            match &mut self.foreign_source {
                Some(known) => **known = source,
                None => self.foreign_source = Some(Box::new(source)),
            }
        }
    }

    /// Packets from an inner address that is not the peer's.
    pub fn foreign_source(&self) -> Option<ForeignSource> {
        self.foreign_source.as_deref().copied()
    }

    /// Answers to the peer's handshakes since its last session; 0 while it may still confirm one of them, since a
    /// datagram or two may be lost.
    pub fn unconfirmed_answers(&self) -> u32 {
        if self.unconfirmed_answers >= LOST_ANSWERS { self.unconfirmed_answers } else { 0 }
    }

    /// Drops the protocol core until one is needed again.
    pub fn sleep(&mut self) {
        self.tunn = None;
        self.staged = false;
        self.has_session = false;
    }

    /// Ends all sessions: the interface's key changed, or the peer is removed.
    pub fn end_sessions(&mut self) {
        self.tunn = None;
        self.retiring = None;
        self.unconfirmed = None;
        self.staged = false;
        self.has_session = false;
    }

    /// Marks the peer as removed from the table: threads that still hold it cannot use it any more.
    pub fn remove(&mut self) {
        self.end_sessions();
        self.removed = true;
        self.endpoint = None;
    }
}
