//! One peer: where it is, its session, its counts. Everything that the protocol core says about a single peer passes here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use parking_lot::{Mutex, MutexGuard};

use super::allowed_ips::Slot;
use super::clock::Now;
use super::identity::Identity;
use super::message::{self, Kind};
use super::transport::Endpoint;
use crate::key::{PresharedKey, PublicKey};

/// After so many messages of a session a new handshake is started (WireGuard's Rekey-After-Messages, 2^60).
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// After so many messages a session carries nothing more (WireGuard's Reject-After-Messages, 2^64 - 2^13 - 1).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Whoever sent a packet hears of us after so long at the latest: WireGuard's Keepalive-Timeout.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// After so long without an answer a new handshake is started: WireGuard's Keepalive-Timeout and Rekey-Timeout together.
const SILENCE: Duration = Duration::from_secs(15);
/// Between two looks at the path to a peer that is spoken to. A look is three system calls.
const PATH_INTERVAL: Duration = Duration::from_secs(2);
/// A peer's handshake initiations that come closer together than this are dropped (kernel: `INITIATIONS_PER_SECOND`, 50).
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// How long the session of a former preshared key still opens packets that are on their way, once the next one stands.
const RETIREMENT: Duration = Duration::from_secs(10);

/// A peer of the interface.
pub struct Peer {
    /// Who.
    pub key: PublicKey,
    /// Its place in the table.
    pub slot: Slot,
    /// Peers are listed in the order in which they were made.
    pub order: u64,
    /// What this device's indices are scrambled with.
    scramble: u32,
    state: Mutex<State>,
}

/// What changes about a peer.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; none excludes another")]
pub struct State {
    /// Made when the peer first speaks or is first spoken to: it takes some 18 KB, and most of ten thousand peers are silent.
    tunn: Option<Box<Tunn>>,
    /// The session of a former preshared key, used until a handshake with the new one is done.
    retiring: Option<Box<Tunn>>,
    /// When the retiring session goes, once the next one stands.
    retires_at: Option<Duration>,
    /// Whether `tunn` has ever had a session.
    stands: bool,
    /// Each protocol core of a peer has an index of its own, so a message tells whether it is for the retiring one.
    odd: bool,
    preshared_key: Option<PresharedKey>,
    keepalive: u16,
    endpoint: Option<Endpoint>,
    /// The largest inner packet whose datagram gets to the endpoint whole; unknown if `None`.
    inner_limit: Option<usize>,
    /// Whether the limit is to be looked up.
    path_unknown: bool,
    /// When it was looked up last, and how much had been sent by then.
    path_looked_up: Duration,
    sent_at_look: u64,
    /// The receiver index of a session that the peer started and has not used yet.
    unconfirmed: Option<u32>,
    /// Whether the protocol core keeps packets that wait for a session.
    staged: bool,
    rekey_due: bool,
    /// Whether the peer is among those whose timers run.
    pub(super) ticking: bool,
    removed: bool,
    last_initiation: Option<Duration>,
    /// When a packet was sent that nothing authentic has followed yet.
    unanswered_since: Option<Duration>,
    /// When an authenticated message last went either way.
    last_traversal: Duration,
    /// When a packet came that nothing was sent after yet.
    owing_since: Option<Duration>,
    last_handshake: Option<SystemTime>,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// What became of a packet that was to be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// A data message of this length.
    Message(usize),
    /// The packet waits for a session; a handshake initiation of this length is to be sent.
    Initiation(usize),
    /// The packet waits for a session, and a handshake is on its way.
    Staged,
    /// The session has carried as many messages as it may.
    Exhausted,
}

/// What an authentic data message held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet of this length, at the start of the output.
    Packet(usize),
    /// Nothing: the peer said that it is alive.
    Keepalive,
}

/// What a tick of a peer's timers wants.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ticked {
    /// A message of this length is to be sent.
    pub message: Option<usize>,
    /// A handshake is under way: tick again soon.
    pub hurry: bool,
    /// Nothing is left to time.
    pub idle: bool,
}

impl Peer {
    /// A peer that has neither spoken nor been spoken to.
    pub fn new(key: PublicKey, slot: Slot, order: u64, scramble: u32) -> Self {
        Self { key, slot, order, scramble, state: Mutex::default() }
    }

    /// The peer's state, alone for the holder. Never held over a system call.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn make_tunn(&self, identity: &Identity, state: &State) -> Box<Tunn> {
        Box::new(Tunn::new(
            identity.secret.clone(),
            x25519::PublicKey::from(self.key.0),
            state.preshared_key.as_ref().map(|key| key.0),
            // The persistent keepalive is timed here: the core's cannot be changed on a living peer.
            None,
            message::index_of(self.slot, state.odd, self.scramble),
            Some(Arc::clone(&identity.relaxed)),
        ))
    }

    /// Makes the peer's protocol core if there is none.
    pub fn wake(&self, identity: &Identity, state: &mut State) {
        if state.tunn.is_none() && !state.removed {
            state.tunn = Some(self.make_tunn(identity, state));
            state.stands = false;
        }
    }

    /// Changes the preshared key. The session that stands goes on until a handshake with the new key is done.
    pub fn set_preshared_key(&self, identity: Option<&Identity>, state: &mut State, key: Option<PresharedKey>) {
        if state.preshared_key == key {
            return;
        }
        state.preshared_key = key;
        let Some(old) = state.tunn.take() else { return };
        let Some(identity) = identity else { return };
        if state.stands {
            state.retiring = Some(old);
            state.retires_at = None;
            // One that never stood leaves its index to the next: the other one may still be the retiring session's.
            state.odd = !state.odd;
        }
        state.unconfirmed = None;
        state.staged = false;
        state.stands = false;
        state.tunn = Some(self.make_tunn(identity, state));
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("key", &self.key).field("slot", &self.slot).finish_non_exhaustive()
    }
}

impl State {
    /// Whether a protocol core is there.
    #[inline]
    pub fn is_awake(&self) -> bool {
        self.tunn.is_some()
    }

    /// Where the peer is.
    #[inline]
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint
    }

    /// Configures where the peer is.
    pub fn set_endpoint(&mut self, endpoint: Endpoint) {
        if self.endpoint.map(|known| known.address) != Some(endpoint.address) {
            self.move_to(endpoint);
        }
    }

    fn move_to(&mut self, endpoint: Endpoint) {
        self.endpoint = Some(endpoint);
        self.inner_limit = None;
        self.path_unknown = true;
    }

    /// Our address that the peer spoke to is gone: let the kernel choose.
    pub fn forget_local_address(&mut self) {
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.local = None;
        }
    }

    /// The largest inner packet for this peer, as far as it is known.
    #[inline]
    pub fn inner_limit(&self) -> Option<usize> {
        self.inner_limit
    }

    /// The endpoint whose path is to be looked up: once when something says so, and now and then while something is sent. A
    /// router's word that a single datagram was too large is heard by the kernel alone, which fragments the next ones silently.
    pub fn path_to_look_up(&mut self, now: Now) -> Option<Endpoint> {
        let sent = self.tx_bytes != self.sent_at_look;
        let is_due = self.path_unknown || (sent && now.elapsed >= self.path_looked_up + PATH_INTERVAL);
        if is_due {
            (self.path_unknown, self.path_looked_up, self.sent_at_look) = (false, now.elapsed, self.tx_bytes);
        }
        self.endpoint.filter(|_| is_due)
    }

    /// What the look-up said; `inner_limit` in bytes of an inner packet.
    pub fn set_inner_limit(&mut self, inner_limit: Option<usize>) {
        self.inner_limit = inner_limit;
    }

    /// A datagram did not fit: the path is to be looked up again.
    pub fn doubt_path(&mut self) {
        self.path_unknown = true;
    }

    /// The preshared key.
    pub fn preshared_key(&self) -> Option<&PresharedKey> {
        self.preshared_key.as_ref()
    }

    /// Seconds between persistent keepalives; 0 is off.
    pub fn keepalive(&self) -> u16 {
        self.keepalive
    }

    /// Changes the persistent keepalive. Switching it on says that the peer shall hear of us now.
    pub fn set_keepalive(&mut self, seconds: u16) {
        if self.keepalive == 0 && seconds > 0 {
            self.last_traversal = Duration::ZERO;
        }
        self.keepalive = seconds;
    }

    /// When the newest handshake was done, and bytes received and sent.
    pub fn account(&self) -> (Option<SystemTime>, u64, u64) {
        (self.last_handshake, self.rx_bytes, self.tx_bytes)
    }

    /// Does without a protocol core until one is needed again.
    pub fn sleep(&mut self) {
        self.tunn = None;
        self.staged = false;
        self.stands = false;
    }

    /// Ends all sessions: the interface's key changed, or the peer goes.
    pub fn forget_sessions(&mut self) {
        self.tunn = None;
        self.retiring = None;
        self.unconfirmed = None;
        self.staged = false;
        self.stands = false;
    }

    /// The peer was taken from the table; whoever still holds it finds nothing to work with.
    pub fn remove(&mut self) {
        self.forget_sessions();
        self.removed = true;
        self.endpoint = None;
    }

    /// Seals a packet (with its padding) into `out`, which holds at least 32 bytes more than the packet and at least 148.
    ///
    /// # Panics
    /// If `out` is too small, or the peer is asleep.
    #[inline]
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8], now: Now) -> Sealed {
        if !self.stands && self.retiring.is_some() {
            if let Some(len) = self.seal_with_retiring(packet, out) {
                self.sent(len, now);
                return Sealed::Message(len);
            }
            self.retiring = None;
        }
        let tunn = self.tunn.as_mut().expect("whoever seals has woken the peer");
        let TunnResult::WriteToNetwork(message) = tunn.encapsulate(packet, out) else {
            self.staged = true;
            return Sealed::Staged;
        };
        let len = message.len();
        if message::kind(message) != Some(Kind::Data) {
            self.staged = true;
            self.sent(len, now);
            return Sealed::Initiation(len);
        }
        let counter = message::counter(message);
        self.rekey_due |= counter >= REKEY_AFTER_MESSAGES;
        if counter >= REJECT_AFTER_MESSAGES {
            return Sealed::Exhausted;
        }
        if !packet.is_empty() && self.unanswered_since.is_none() {
            self.unanswered_since = Some(now.elapsed);
        }
        self.sent(len, now);
        Sealed::Message(len)
    }

    fn seal_with_retiring(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        match self.retiring.as_mut()?.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) if message::kind(message) == Some(Kind::Data) => Some(message.len()),
            _ => None,
        }
    }

    /// Opens a data message of at least 32 bytes into `out`, which is as long at least. Only an authentic one changes anything.
    #[inline]
    pub fn open(
        &mut self,
        from: &Endpoint,
        datagram: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Result<Opened, WireGuardError> {
        if message::counter(datagram) >= REJECT_AFTER_MESSAGES {
            // The core would count past the end of its type.
            return Err(WireGuardError::InvalidCounter);
        }
        let receiver = message::receiver(datagram);
        let is_retiring = message::is_odd(receiver) != self.odd;
        let tunn = if is_retiring { &mut self.retiring } else { &mut self.tunn };
        let Some(tunn) = tunn else { return Err(WireGuardError::NoCurrentSession) };
        let opened = match tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet.len())
            }
            TunnResult::Done => Opened::Keepalive,
            TunnResult::Err(error) => return Err(error),
            TunnResult::WriteToNetwork(_) => return Err(WireGuardError::UnexpectedPacket),
        };
        // The peer may use the session of an earlier answer than the last.
        if self.unconfirmed == Some(receiver) || !(self.stands || is_retiring) {
            self.unconfirmed = None;
            self.established(now);
        }
        self.heard(from, datagram.len(), now);
        if opened != Opened::Keepalive && self.owing_since.is_none() {
            self.owing_since = Some(now.elapsed);
        }
        Ok(opened)
    }

    /// Answers a handshake initiation into `out` (at least 148 bytes) with a response of the length given.
    ///
    /// The peer's endpoint is not changed by it: an initiation may be an old one, replayed from somewhere else, and the
    /// response goes to where it came from anyway. The first data message of the new session, which the initiator sends at
    /// once, moves the endpoint.
    pub fn answer(&mut self, initiation: &[u8], out: &mut [u8], now: Now) -> Result<usize, WireGuardError> {
        if self.last_initiation.is_some_and(|last| now.elapsed < last + INITIATION_INTERVAL) {
            return Err(WireGuardError::UnderLoad);
        }
        let Some(tunn) = &mut self.tunn else { return Err(WireGuardError::NoCurrentSession) };
        match tunn.decapsulate(None, initiation, out) {
            TunnResult::WriteToNetwork(response) => {
                self.unconfirmed = Some(message::sender(response));
                self.last_initiation = Some(now.elapsed);
                self.rx_bytes += initiation.len() as u64;
                let len = response.len();
                self.sent(len, now);
                Ok(len)
            }
            TunnResult::Err(error) => Err(error),
            _ => Err(WireGuardError::UnexpectedPacket),
        }
    }

    /// Takes a handshake response and gives the length of the keepalive in `out` that confirms the session.
    pub fn accept(
        &mut self,
        from: &Endpoint,
        response: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Result<usize, WireGuardError> {
        let Some(tunn) = &mut self.tunn else { return Err(WireGuardError::NoCurrentSession) };
        match tunn.decapsulate(None, response, out) {
            TunnResult::WriteToNetwork(keepalive) => {
                let len = keepalive.len();
                self.established(now);
                self.heard(from, response.len(), now);
                self.sent(len, now);
                Ok(len)
            }
            TunnResult::Err(error) => Err(error),
            _ => Err(WireGuardError::UnexpectedPacket),
        }
    }

    /// Takes a cookie: the next initiation carries it.
    pub fn take_cookie(&mut self, reply: &[u8], out: &mut [u8]) -> Result<(), WireGuardError> {
        let Some(tunn) = &mut self.tunn else { return Err(WireGuardError::NoCurrentSession) };
        match tunn.decapsulate(None, reply, out) {
            TunnResult::Done => {
                self.rx_bytes += reply.len() as u64;
                Ok(())
            }
            TunnResult::Err(error) => Err(error),
            _ => Err(WireGuardError::UnexpectedPacket),
        }
    }

    /// Starts a handshake unless one is under way; the initiation's length.
    pub fn initiate(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        match self.tunn.as_mut()?.format_handshake_initiation(out, false) {
            TunnResult::WriteToNetwork(initiation) => {
                let len = initiation.len();
                self.sent(len, now);
                Some(len)
            }
            _ => None,
        }
    }

    /// The initiation that the timers would send next, now.
    #[cfg(test)]
    pub(super) fn retry(&mut self, out: &mut [u8]) -> Option<usize> {
        match self.tunn.as_mut()?.format_handshake_initiation(out, true) {
            TunnResult::WriteToNetwork(initiation) => Some(initiation.len()),
            _ => None,
        }
    }

    /// Whether packets that waited for a session can go.
    #[inline]
    pub fn has_staged(&self) -> bool {
        self.staged && self.stands
    }

    /// Seals the next packet that waited for a session into `out` (room for the largest packet); its message's length.
    pub fn next_staged(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        if !self.has_staged() {
            return None;
        }
        let TunnResult::WriteToNetwork(message) = self.tunn.as_mut()?.decapsulate(None, &[], out) else {
            self.staged = false;
            return None;
        };
        let len = message.len();
        self.sent(len, now);
        Some(len)
    }

    /// Runs the timers: retries, keepalives, the end of sessions.
    pub fn tick(&mut self, out: &mut [u8], now: Now) -> Ticked {
        let mut ticked = Ticked::default();
        let handshake_wanted = self.tick_retiring(out, now);
        if let Some(tunn) = &mut self.tunn {
            match tunn.update_timers(out) {
                TunnResult::WriteToNetwork(message) => ticked.message = Some(message.len()),
                TunnResult::Err(WireGuardError::ConnectionExpired) => {
                    // Its keys were to be wiped by now: three times Reject-After-Time, or a minute and a half of silence.
                    self.sleep();
                }
                _ => {}
            }
        }
        let wanted = handshake_wanted | std::mem::take(&mut self.rekey_due) | self.is_unanswered(now);
        if ticked.message.is_none() && wanted {
            ticked.message = self.initiate(out, now);
        } else if let Some(len) = ticked.message {
            self.sent(len, now);
        }
        if ticked.message.is_none() {
            ticked.message = self.keep_alive(out, now);
        }
        ticked.hurry = ticked.message.is_some() || self.staged || self.retiring.is_some();
        let kept_alive = self.keepalive > 0 && self.endpoint.is_some();
        ticked.idle = self.removed || (self.tunn.is_none() && self.retiring.is_none() && !kept_alive);
        self.ticking = !ticked.idle;
        ticked
    }

    /// Whether the peer has been silent for so long that it may have forgotten the session. The core asks itself the same, but
    /// stamps both events with its last tick, and takes no silence from two that fall into one.
    fn is_unanswered(&mut self, now: Now) -> bool {
        let is = self.unanswered_since.is_some_and(|since| now.elapsed >= since + SILENCE);
        if is {
            self.unanswered_since = None;
        }
        is
    }

    /// The retiring session's timers. It starts no handshake: that is the next one's to do, which knows the new preshared key.
    fn tick_retiring(&mut self, out: &mut [u8], now: Now) -> bool {
        let Some(old) = &mut self.retiring else { return false };
        let result = old.update_timers(out);
        let wants_handshake =
            matches!(&result, TunnResult::WriteToNetwork(message) if message::kind(message) == Some(Kind::Initiation));
        let is_over = matches!(result, TunnResult::Err(_));
        if self.stands && self.retires_at.is_none() {
            self.retires_at = Some(now.elapsed + RETIREMENT);
        }
        // Once the next session stands, its own timers say when it is to be renewed.
        let wants_handshake = wants_handshake && !self.stands;
        if is_over || self.retires_at.is_some_and(|at| now.elapsed >= at) {
            self.retiring = None;
        }
        wants_handshake
    }

    /// The passive keepalive: whoever sent something hears of us within ten seconds. The core's own counts from what was last
    /// sent, in ticks, and forgets a packet that came in the same tick.
    fn is_owing(&self, now: Now) -> bool {
        self.owing_since.is_some_and(|since| now.elapsed >= since + KEEPALIVE)
    }

    /// The persistent keepalive: something went either way within the interval, or goes now.
    fn is_due(&self, now: Now) -> bool {
        let interval = Duration::from_secs(self.keepalive.into());
        !interval.is_zero() && (self.last_traversal.is_zero() || now.elapsed >= self.last_traversal + interval)
    }

    fn keep_alive(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        let due = self.is_due(now) || self.is_owing(now);
        if self.endpoint.is_none() || self.tunn.is_none() || !due {
            return None;
        }
        // Also when nothing can be sent: the next attempt is an interval away.
        self.last_traversal = now.elapsed.max(Duration::from_nanos(1));
        if self.staged {
            // What waits for the session says as much (kernel: send.c, `wg_packet_send_keepalive`).
            return self.initiate(out, now);
        }
        match self.seal(&[], out, now) {
            Sealed::Message(len) | Sealed::Initiation(len) => Some(len),
            Sealed::Staged | Sealed::Exhausted => None,
        }
    }

    fn established(&mut self, now: Now) {
        self.stands = true;
        self.last_handshake = Some(now.wall);
        // A path may have changed since the last one.
        self.path_unknown = true;
    }

    /// An authentic message came: that is where the peer is now.
    #[inline]
    fn heard(&mut self, from: &Endpoint, len: usize, now: Now) {
        self.rx_bytes += len as u64;
        self.last_traversal = now.elapsed;
        self.unanswered_since = None;
        if self.endpoint.as_ref() != Some(from) && !self.removed {
            if self.endpoint.map(|known| known.address) == Some(from.address) {
                self.endpoint = Some(*from);
            } else {
                self.move_to(*from);
            }
        }
    }

    #[inline]
    fn sent(&mut self, len: usize, now: Now) {
        self.tx_bytes += len as u64;
        self.last_traversal = now.elapsed;
        self.owing_since = None;
    }
}
