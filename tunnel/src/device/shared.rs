//! What the threads of one interface share: its peers, the list of those whose timers run, and the counters of dropped
//! packets.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use parking_lot::{Mutex, RwLock};

use super::message::INITIATION_LEN;
use super::peer::{Peer, State};
use super::refused::RefusedTable;
use super::table::Table;
use super::transport::Endpoint;
use crate::key::PublicKey;
use crate::model::Refused;

/// The most handshake messages that may wait (kernel: `MAX_QUEUED_INCOMING_HANDSHAKES`, 4096; here one thread answers
/// them).
pub(crate) const MAX_QUEUED_HANDSHAKES: usize = 1024;

/// The most handshakes that are started before received messages are answered.
const INITIATIONS_AT_ONCE: usize = 64;

/// A handshake message on its way from the thread that received it to the one that answers.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeMessage {
    /// The address that sent the message.
    pub from: Endpoint,
    /// Its length in `bytes`.
    pub len: usize,
    /// The message.
    pub bytes: [u8; INITIATION_LEN],
}

/// What wakes the protocol thread.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are handshake messages, and a box each would be an allocation each"
)]
pub enum ProtocolEvent {
    /// A handshake message was received.
    Handshake(HandshakeMessage),
    /// A peer's timers start, a handshake was requested, or the thread has to end.
    Wake,
}

/// Dropped packets, by reason.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the inside: no IP packet, or an offload that contradicts itself.
    pub malformed_inside: AtomicU64,
    /// From the inside: no peer has the destination among its allowed-ips, or the peer has no endpoint.
    pub unroutable: AtomicU64,
    /// From the inside: larger than the path to the peer.
    pub too_big: AtomicU64,
    /// From the outside: not a WireGuard message, or for no peer of this interface.
    pub malformed_outside: AtomicU64,
    /// From the outside: not authentic, replayed, or of a session that is over.
    pub rejected: AtomicU64,
    /// From the outside: authentic, but the inner source address is not among the peer's allowed-ips.
    pub spoofed: AtomicU64,
    /// Handshake messages that came faster than they could be answered.
    pub handshakes_dropped: AtomicU64,
    /// Handshake messages that were answered with a cookie.
    pub cookies_sent: AtomicU64,
    /// Datagrams that the kernel did not take.
    pub send_failed: AtomicU64,
    /// Packets that the TUN interface did not take.
    pub write_failed: AtomicU64,
}

impl Counters {
    /// Counts one.
    #[inline]
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The state that all threads of an interface work on.
#[derive(Debug)]
pub struct Shared {
    /// The peers. Locked for reading per batch of packets, for writing by configuration only; never during a system
    /// call.
    pub table: RwLock<Table>,
    /// Counts changes of the table: a look-up is still valid while this number is the same.
    pub generation: AtomicU64,
    /// Dropped packets.
    pub counters: Counters,
    /// Refused handshakes. Only the protocol thread counts here.
    pub refused_handshakes: Mutex<RefusedTable>,
    /// The TUN interface's MTU, in bytes: padding does not exceed it.
    pub mtu: AtomicUsize,
    /// Peers whose timers run.
    ticking: Mutex<Vec<Arc<Peer>>>,
    /// Peers with which a handshake was requested.
    requested: Mutex<HashSet<PublicKey>>,
    events: SyncSender<ProtocolEvent>,
    queued: AtomicUsize,
}

impl Shared {
    /// An interface without peers, whose protocol thread receives the `events`.
    pub fn new(scramble: u32, mtu: usize, events: SyncSender<ProtocolEvent>) -> Self {
        Self {
            table: RwLock::new(Table::new(scramble)),
            generation: AtomicU64::new(0),
            counters: Counters::default(),
            refused_handshakes: Mutex::default(),
            mtu: AtomicUsize::new(mtu),
            ticking: Mutex::default(),
            requested: Mutex::default(),
            events,
            queued: AtomicUsize::new(0),
        }
    }

    /// What was refused since the device started.
    pub fn refused(&self) -> Refused {
        let mut handshakes = self.refused_handshakes.lock().report();
        let counters = &self.counters;
        handshakes.under_load += counters.handshakes_dropped.load(Ordering::Relaxed);
        handshakes.under_load += counters.cookies_sent.load(Ordering::Relaxed);
        Refused { handshakes, peers: self.table.read().refused() }
    }

    /// Makes a peer's protocol core if it has none, and starts its timers.
    pub fn wake(&self, table: &Table, peer: &Arc<Peer>, state: &mut State) {
        if let Some(identity) = table.identity() {
            peer.wake(identity, state);
            self.start_state_timers(peer, state);
        }
    }

    /// Starts a peer's timers.
    pub fn start_timers(&self, peer: &Arc<Peer>) {
        self.start_state_timers(peer, &mut peer.lock());
    }

    fn start_state_timers(&self, peer: &Arc<Peer>, state: &mut State) {
        if !std::mem::replace(&mut state.ticking, true) {
            self.ticking.lock().push(Arc::clone(peer));
            self.wake_protocol();
        }
    }

    /// Requests a handshake with a peer.
    pub fn initiate(&self, peer: PublicKey) {
        // Not through the queue: during a flood it has no free place.
        self.requested.lock().insert(peer);
        self.wake_protocol();
    }

    /// Takes peers with which a handshake was requested: some of many at once, so that their answers are handled in
    /// between.
    pub fn take_requested_handshakes(&self) -> Vec<PublicKey> {
        let mut requested = self.requested.lock();
        let some: Vec<PublicKey> = requested.iter().take(INITIATIONS_AT_ONCE).copied().collect();
        for key in &some {
            requested.remove(key);
        }
        if !requested.is_empty() {
            self.wake_protocol();
        }
        some
    }

    /// Queues a handshake message. During a flood it is dropped: the packet threads do not wait.
    pub fn queue_handshake(&self, message: HandshakeMessage) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.events.try_send(ProtocolEvent::Handshake(message))
        {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            Counters::count(&self.counters.handshakes_dropped);
        }
    }

    /// Wakes the protocol thread.
    pub fn wake_protocol(&self) {
        // Full: the thread is awake, and checks before it waits.
        let _ = self.events.try_send(ProtocolEvent::Wake);
    }

    /// Notes that a handshake message was taken from the queue; how many wait behind it.
    pub fn take_queued(&self) -> usize {
        self.queued.fetch_sub(1, Ordering::Relaxed).saturating_sub(1)
    }

    /// Takes the peers whose timers run. [`Shared::return_ticking`] returns them.
    pub fn take_ticking(&self) -> Vec<Arc<Peer>> {
        std::mem::take(&mut *self.ticking.lock())
    }

    /// Whether timers of any peer run.
    pub fn has_ticking(&self) -> bool {
        !self.ticking.lock().is_empty()
    }

    /// Returns the peers whose timers go on.
    pub fn return_ticking(&self, mut peers: Vec<Arc<Peer>>) {
        let mut ticking = self.ticking.lock();
        // Usually no peer was added in between, and the list is returned as it is.
        peers.append(&mut ticking);
        *ticking = peers;
    }
}
