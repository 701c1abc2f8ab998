//! Handshakes and timers, in a thread of their own, so that a flood of initiations costs the packet threads one check
//! per message and no more.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::{Packet, Tunn, TunnResult};

use super::clock::Now;
use super::identity::Identity;
use super::inbound::add_staged;
use super::message::{self, INITIATION_LEN, Kind};
use super::peer::Peer;
use super::rate::SourceLimiter;
use super::refused::Reason;
use super::run::Runs;
use super::shared::{Counters, HandshakeMessage, MAX_QUEUED_HANDSHAKES, Shared};
use super::transport::{Endpoint, MAX_RUN, UdpSend};
use crate::key::PublicKey;

/// With so many handshake messages waiting, the interface is under load (kernel: an eighth of the queue, receive.c).
const UNDER_LOAD_QUEUE: usize = MAX_QUEUED_HANDSHAKES / 8;
/// It stays under load for this long after the queue was last so full (kernel: one second).
const UNDER_LOAD_DURATION: Duration = Duration::from_secs(1);
/// How often timers run while a handshake is under way; the core retries after five seconds.
const FAST_TICK: Duration = Duration::from_millis(250);
/// How often timers run otherwise: the shortest times of the protocol are seconds.
const SLOW_TICK: Duration = Duration::from_secs(1);

/// The thread's state.
#[derive(Debug)]
pub(crate) struct Protocol {
    shared: Arc<Shared>,
    source_limiter: SourceLimiter,
    under_load_until: Duration,
    next_tick: Option<Duration>,
    runs: Runs,
    out: Box<[u8]>,
    /// The peer that initiated last from an address: the next initiation from there is most likely from the same peer.
    hints: PeerHints,
}

impl Protocol {
    /// A protocol without peers.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            source_limiter: SourceLimiter::new(),
            under_load_until: Duration::ZERO,
            next_tick: None,
            runs: Runs::new(),
            out: vec![0; MAX_RUN].into_boxed_slice(),
            hints: PeerHints::default(),
        }
    }

    /// When [`Protocol::tick`] has to run next; `None` while no timer runs.
    pub(crate) fn next_tick(&self) -> Option<Duration> {
        self.next_tick
    }

    /// Schedules a tick soon: a peer's timers were started.
    pub(crate) fn tick_soon(&mut self, now: Now) {
        let soon = now.elapsed + FAST_TICK;
        self.next_tick = Some(self.next_tick.map_or(soon, |next| next.min(soon)));
    }

    /// Runs all timers, and sends their messages.
    pub(crate) fn tick(&mut self, net: &impl UdpSend, now: Now) {
        self.source_limiter.forget_old(now.elapsed);
        let mut peers = self.shared.take_ticking();
        let mut retry_soon = false;
        peers.retain(|peer| {
            let keeps = self.tick_peer(peer, net, now);
            retry_soon |= keeps == NextTick::Fast;
            keeps != NextTick::None
        });
        self.runs.send(&self.shared, net, false);
        self.next_tick = (!peers.is_empty()).then(|| now.elapsed + if retry_soon { FAST_TICK } else { SLOW_TICK });
        self.shared.return_ticking(peers);
    }

    fn tick_peer(&mut self, peer: &Arc<Peer>, net: &impl UdpSend, now: Now) -> NextTick {
        if !self.runs.has_room() {
            self.runs.send(&self.shared, net, false);
        }
        let mut state = peer.lock();
        if !state.is_awake() && state.keepalive() > 0 && state.endpoint().is_some() {
            // It has no protocol core, but its keepalive needs one.
            drop(state);
            let table = self.shared.table.read();
            state = peer.lock();
            self.shared.wake(&table, peer, &mut state);
        }
        let ticked = state.tick(&mut self.out, now);
        if let (Some(len), Some(endpoint)) = (ticked.message, state.endpoint()) {
            self.runs.add(&endpoint, peer.slot, &self.out[..len]);
        }
        let path = state.path_to_look_up(now);
        drop(state);
        if let Some(endpoint) = path {
            let limit = net.path_mtu(&endpoint).map(|mtu| inner_limit(&endpoint, mtu));
            peer.lock().set_inner_limit(limit);
        }
        match (ticked.idle, ticked.retry_soon) {
            (true, _) => NextTick::None,
            (false, true) => NextTick::Fast,
            (false, false) => NextTick::Slow,
        }
    }

    /// Starts a handshake with a peer, if it has an endpoint.
    pub(crate) fn initiate(&mut self, key: &PublicKey, net: &impl UdpSend, now: Now) {
        let table = self.shared.table.read();
        let Some(peer) = table.by_key(key) else { return };
        let mut state = peer.lock();
        let Some(endpoint) = state.endpoint() else { return };
        self.shared.wake(&table, peer, &mut state);
        if let Some(len) = state.initiate(&mut self.out, now) {
            self.runs.add_handshake(&endpoint, Some(peer.slot), &self.out[..len]);
        }
        drop(state);
        drop(table);
        self.runs.send(&self.shared, net, false);
        self.tick_soon(now);
    }

    /// Handles one handshake message, behind which `waiting` more wait.
    pub(crate) fn receive(&mut self, message: &HandshakeMessage, waiting: usize, net: &impl UdpSend, now: Now) {
        if self.next_tick.is_none() && self.shared.has_ticking() {
            // The queue was too full for the wake-up.
            self.tick_soon(now);
        }
        if waiting >= UNDER_LOAD_QUEUE {
            self.under_load_until = now.elapsed + UNDER_LOAD_DURATION;
        }
        let Some(identity) = self.shared.table.read().identity().cloned() else { return };
        let Some(bytes) = message.bytes.get(..message.len) else { return };
        let accepted = match message::kind(bytes) {
            Some(Kind::CookieReply) => self.cookie_reply(bytes).ok_or(Reason::WrongAnswer),
            Some(kind @ (Kind::Initiation | Kind::Response)) => {
                self.admit(&identity, bytes, &message.from, now).and_then(|is_admitted| match kind {
                    _ if !is_admitted => Ok(()),
                    Kind::Initiation => self.initiation(&identity, bytes, &message.from, now),
                    _ => self.response(bytes, &message.from, net, now).ok_or(Reason::WrongAnswer),
                })
            }
            _ => Ok(()),
        };
        if let Err(reason) = accepted {
            Counters::count(&self.shared.counters.rejected);
            self.shared.refused_handshakes.lock().count(reason, message.from.address, now);
        }
        self.runs.send(&self.shared, net, false);
    }

    /// Whether a handshake message is processed: its first MAC is right, and, under load, its sender has proven by a
    /// cookie that it receives at its address, and is within its rate limit. A wrong MAC is refused.
    fn admit(&mut self, identity: &Identity, bytes: &[u8], from: &Endpoint, now: Now) -> Result<bool, Reason> {
        let loaded = now.elapsed < self.under_load_until;
        let limiter = if loaded { &identity.strict } else { identity.relaxed.as_ref() };
        let mut cookie = [0; INITIATION_LEN];
        match limiter.verify_packet(Some(identity.cookie_address(&from.address)), bytes, &mut cookie) {
            Ok(_) => {
                let admitted = !loaded || self.source_limiter.admit(from.address.ip(), now.elapsed);
                if !admitted {
                    Counters::count(&self.shared.counters.handshakes_dropped);
                }
                Ok(admitted)
            }
            Err(TunnResult::WriteToNetwork(reply)) => {
                Counters::count(&self.shared.counters.cookies_sent);
                self.runs.add_handshake(from, None, reply);
                Ok(false)
            }
            Err(_) => Err(Reason::WrongServerKey),
        }
    }

    fn initiation(&mut self, identity: &Identity, bytes: &[u8], from: &Endpoint, now: Now) -> Result<(), Reason> {
        let hinted = self.hints.get(from);
        if let Some(peer) = hinted {
            if self.answer(&peer, bytes, from, now).is_ok() {
                return Ok(());
            }
        }
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(bytes) else {
            return Err(Reason::Malformed);
        };
        let half = parse_handshake_anon(&identity.secret, &identity.public, &initiation);
        let key = PublicKey(half.map_err(|_| Reason::Malformed)?.peer_static_public);
        let peer = self.shared.table.read().by_key(&key).cloned().ok_or(Reason::UnknownKey(key))?;
        self.answer(&peer, bytes, from, now)?;
        self.hints.set(from, &peer);
        Ok(())
    }

    fn answer(&mut self, peer: &Arc<Peer>, bytes: &[u8], from: &Endpoint, now: Now) -> Result<(), Reason> {
        let table = self.shared.table.read();
        let mut state = peer.lock();
        let was_awake = state.is_awake();
        self.shared.wake(&table, peer, &mut state);
        let len = match state.answer(bytes, &mut self.out, now) {
            Ok(len) => len,
            Err(error) => {
                if !was_awake {
                    // It was not from this peer: everyone who knows a public key can name it.
                    state.sleep();
                }
                return Err(error.into());
            }
        };
        drop(state);
        self.runs.add_handshake(from, Some(peer.slot), &self.out[..len]);
        drop(table);
        self.tick_soon(now);
        Ok(())
    }

    fn response(&mut self, bytes: &[u8], from: &Endpoint, net: &impl UdpSend, now: Now) -> Option<()> {
        let peer = self.shared.table.read().by_index(message::response_receiver(bytes)).cloned()?;
        let mut state = peer.lock();
        let len = state.accept(from, bytes, &mut self.out, now).ok()?;
        self.runs.add(from, peer.slot, &self.out[..len]);
        add_staged(&peer, &mut state, from, &mut self.runs, now);
        while state.has_staged() {
            // There are more than are sent at once.
            drop(state);
            self.runs.send(&self.shared, net, false);
            state = peer.lock();
            add_staged(&peer, &mut state, from, &mut self.runs, now);
        }
        Some(())
    }

    fn cookie_reply(&mut self, bytes: &[u8]) -> Option<()> {
        let peer = self.shared.table.read().by_index(message::receiver(bytes)).cloned()?;
        peer.lock().take_cookie(bytes, &mut self.out).ok()
    }
}

/// A small table of which peer initiated from which address: it saves one of five Curve25519 operations of an answer.
/// One entry per hash, the newest wins; a wrong hint only costs a calculation, since the protocol core checks the
/// peer's key.
#[derive(Debug, Default)]
struct PeerHints {
    entries: Vec<Option<(SocketAddr, Weak<Peer>)>>,
}

impl PeerHints {
    const ENTRIES: usize = 4096;

    fn index(from: &Endpoint) -> usize {
        let mut hasher = DefaultHasher::new();
        from.address.hash(&mut hasher);
        usize::try_from(hasher.finish() % Self::ENTRIES as u64).unwrap_or(0)
    }

    fn get(&self, from: &Endpoint) -> Option<Arc<Peer>> {
        let (address, peer) = self.entries.get(Self::index(from))?.as_ref()?;
        if *address == from.address { peer.upgrade() } else { None }
    }

    fn set(&mut self, from: &Endpoint, peer: &Arc<Peer>) {
        if self.entries.is_empty() {
            self.entries.resize(Self::ENTRIES, None);
        }
        if let Some(place) = self.entries.get_mut(Self::index(from)) {
            *place = Some((from.address, Arc::downgrade(peer)));
        }
    }
}

/// When a peer has to tick next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextTick {
    None,
    Slow,
    Fast,
}

/// The largest inner packet, in bytes, whose message reaches an endpoint without fragmentation. Rounded down to the
/// padding multiple.
fn inner_limit(endpoint: &Endpoint, path_mtu: usize) -> usize {
    const UDP: usize = 8;
    let ip = if endpoint.address.is_ipv4() { 20 } else { 40 };
    path_mtu.saturating_sub(ip + UDP + message::DATA_OVERHEAD) / 16 * 16
}
