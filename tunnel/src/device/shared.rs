//! What the threads of one interface share: its peers, who of them has timers running, and what was thrown away.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use parking_lot::{Mutex, RwLock};

use super::message::INITIATION_LEN;
use super::peer::{Peer, State};
use super::table::Table;
use super::transport::Endpoint;
use crate::key::PublicKey;

/// Handshake messages that may wait (kernel: `MAX_QUEUED_INCOMING_HANDSHAKES`, 4096; here each peer answers slower).
pub const MAX_QUEUED_HANDSHAKES: usize = 1024;

/// Handshakes that are started before those that came are answered.
const INITIATIONS_AT_ONCE: usize = 64;

/// A handshake message on its way from the thread that received it to the one that answers.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeMessage {
    /// From where.
    pub from: Endpoint,
    /// How much of `bytes` it is.
    pub len: usize,
    /// The message.
    pub bytes: [u8; INITIATION_LEN],
}

/// What the protocol's thread is woken for.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are handshake messages, and a box each would be an allocation each"
)]
pub enum Call {
    /// A handshake message came.
    Handshake(HandshakeMessage),
    /// A peer's timers start, a handshake shall be started, or the thread shall look whether it is to end.
    Look,
}

/// Packets that were thrown away, by reason.
#[derive(Debug, Default)]
pub struct Counters {
    /// From the inside: no IP packet, or an offload that contradicts itself.
    pub malformed_inside: AtomicU64,
    /// From the inside: no peer has the destination among its allowed-ips, or the peer has no endpoint.
    pub unroutable: AtomicU64,
    /// From the inside: larger than the path to the peer.
    pub too_big: AtomicU64,
    /// From the outside: no message of WireGuard's, or for nobody here.
    pub malformed_outside: AtomicU64,
    /// From the outside: not authentic, replayed, or of a session that is over.
    pub rejected: AtomicU64,
    /// From the outside: authentic, but from an address that is not the peer's.
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
    /// The peers. Read for each batch of packets, written by configuration only; never held over a system call.
    pub table: RwLock<Table>,
    /// Counts changes of the table: what was looked up under the same number still holds.
    pub generation: AtomicU64,
    /// What was thrown away.
    pub counters: Counters,
    /// The TUN interface's MTU: padding does not go past it.
    pub mtu: AtomicUsize,
    /// Peers whose timers run.
    ticking: Mutex<Vec<Arc<Peer>>>,
    /// Peers with whom a handshake shall be started.
    asked: Mutex<HashSet<PublicKey>>,
    calls: SyncSender<Call>,
    queued: AtomicUsize,
}

impl Shared {
    /// An interface without peers, whose protocol thread listens at the other end of `calls`.
    pub fn new(scramble: u32, mtu: usize, calls: SyncSender<Call>) -> Self {
        Self {
            table: RwLock::new(Table::new(scramble)),
            generation: AtomicU64::new(0),
            counters: Counters::default(),
            mtu: AtomicUsize::new(mtu),
            ticking: Mutex::default(),
            asked: Mutex::default(),
            calls,
            queued: AtomicUsize::new(0),
        }
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
            self.look();
        }
    }

    /// Has a handshake with a peer started.
    pub fn initiate(&self, peer: PublicKey) {
        // Not through the queue: whoever asks would wait for a place in it for as long as a flood lasts.
        self.asked.lock().insert(peer);
        self.look();
    }

    /// Peers with whom a handshake shall be started now. Some of many at once: their answers come meanwhile.
    pub fn asked(&self) -> Vec<PublicKey> {
        let mut asked = self.asked.lock();
        let some: Vec<PublicKey> = asked.iter().take(INITIATIONS_AT_ONCE).copied().collect();
        for key in &some {
            asked.remove(key);
        }
        if !asked.is_empty() {
            self.look();
        }
        some
    }

    /// Hands a handshake message on. Under a flood it is dropped: the threads that carry packets do not wait.
    pub fn call(&self, message: HandshakeMessage) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.calls.try_send(Call::Handshake(message))
        {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            Counters::count(&self.counters.handshakes_dropped);
        }
    }

    /// Wakes the protocol's thread.
    pub fn look(&self) {
        // Full: it is awake, and looks when it has nothing to wait for.
        let _ = self.calls.try_send(Call::Look);
    }

    /// A handshake message was taken from the queue; how many wait behind it.
    pub fn taken(&self) -> usize {
        self.queued.fetch_sub(1, Ordering::Relaxed).saturating_sub(1)
    }

    /// The peers whose timers run. They are given back with [`Shared::keep_ticking`].
    pub fn ticking(&self) -> Vec<Arc<Peer>> {
        std::mem::take(&mut *self.ticking.lock())
    }

    /// Whether anyone's timers run.
    pub fn is_ticking(&self) -> bool {
        !self.ticking.lock().is_empty()
    }

    /// Gives back those whose timers go on.
    pub fn keep_ticking(&self, mut peers: Vec<Arc<Peer>>) {
        let mut ticking = self.ticking.lock();
        // Usually nobody came in between, and the list goes back as it is.
        peers.append(&mut ticking);
        *ticking = peers;
    }
}
