//! A peer's timers: retries, keepalives, the end of sessions.

use std::time::Duration;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;

use super::{Sealed, State};
use crate::device::clock::Now;
use crate::device::message::{self, Kind};

/// A peer that sent a packet receives something from us after so long at the latest: WireGuard's Keepalive-Timeout.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long without an answer a new handshake starts: WireGuard's Keepalive-Timeout and Rekey-Timeout together.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the session of a former preshared key still opens packets in flight, once the next session is there.
const RETIRING_LIFETIME: Duration = Duration::from_secs(10);

/// The result of a tick of a peer's timers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Ticked {
    /// The length in bytes of a message that has to be sent.
    pub message: Option<usize>,
    /// Whether a handshake is under way, so that the next tick has to be soon.
    pub retry_soon: bool,
    /// Whether no timer is left.
    pub idle: bool,
}

impl State {
    /// Runs the timers: retries, keepalives, the end of sessions.
    pub fn tick(&mut self, out: &mut [u8], now: Now) -> Ticked {
        let mut ticked = Ticked::default();
        let handshake_wanted = self.tick_retiring(out, now);
        if let Some(tunn) = &mut self.tunn {
            match tunn.update_timers(out) {
                TunnResult::WriteToNetwork(message) => ticked.message = Some(message.len()),
                TunnResult::Err(WireGuardError::ConnectionExpired) => {
                    // Its keys have to be wiped by now: three times Reject-After-Time, or 90 s without an answer.
                    self.sleep();
                }
                _ => {}
            }
        }
        let wanted = handshake_wanted | std::mem::take(&mut self.rekey_due) | self.is_unanswered(now);
        if ticked.message.is_none() && wanted {
            ticked.message = self.initiate(out, now);
        } else if let Some(len) = ticked.message {
            self.note_sent(len, now);
        }
        if ticked.message.is_none() {
            ticked.message = self.keep_guard(out, now);
        }
        ticked.retry_soon = ticked.message.is_some() || self.staged || self.retiring.is_some();
        let kept_guard = self.keepalive > 0 && self.endpoint.is_some();
        ticked.idle = self.removed || (self.tunn.is_none() && self.retiring.is_none() && !kept_guard);
        self.ticking = !ticked.idle;
        ticked
    }

    /// Whether the peer has been silent for so long that it may have lost the session. The core checks this too, but
    /// dates both events with its last tick, and misses the silence if both fall into one tick.
    fn is_unanswered(&mut self, now: Now) -> bool {
        let is = self.unanswered_since.is_some_and(|since| now.elapsed >= since + SILENCE_TIMEOUT);
        if is {
            self.unanswered_since = None;
        }
        is
    }

    /// Runs the retiring session's timers; whether it wants a handshake. The next session starts it, which has the new
    /// preshared key.
    fn tick_retiring(&mut self, out: &mut [u8], now: Now) -> bool {
        let Some(old) = &mut self.retiring else { return false };
        let result = old.update_timers(out);
        let wants_handshake =
            matches!(&result, TunnResult::WriteToNetwork(message) if message::kind(message) == Some(Kind::Initiation));
        let is_over = matches!(result, TunnResult::Err(_));
        if self.has_session && self.retires_at.is_none() {
            self.retires_at = Some(now.elapsed + RETIRING_LIFETIME);
        }
        // Once there is the next session, its own timers decide when it is renewed.
        let wants_handshake = wants_handshake && !self.has_session;
        if is_over || self.retires_at.is_some_and(|at| now.elapsed >= at) {
            self.retiring = None;
        }
        wants_handshake
    }

    /// Whether the passive keepalive is due: a peer that sent something gets an answer within ten seconds. The core's
    /// own timer counts in ticks from what was sent last, and misses a packet that was received in the same tick.
    fn is_keepalive_due(&self, now: Now) -> bool {
        self.received_since.is_some_and(|since| now.elapsed >= since + KEEPALIVE_TIMEOUT)
    }

    /// Whether the persistent keepalive is due: nothing was sent or received within the interval.
    fn is_persistent_keepalive_due(&self, now: Now) -> bool {
        let interval = Duration::from_secs(self.keepalive.into());
        !interval.is_zero() && (self.last_traversal.is_zero() || now.elapsed >= self.last_traversal + interval)
    }

    fn keep_guard(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        let due = self.is_persistent_keepalive_due(now) || self.is_keepalive_due(now);
        if self.endpoint.is_none() || self.tunn.is_none() || !due {
            return None;
        }
        // Also if nothing can be sent: the next attempt comes after an interval.
        self.last_traversal = now.elapsed.max(Duration::from_nanos(1));
        if self.staged {
            // The packets that wait for the session have the same effect (kernel: send.c, `wg_packet_send_keepalive`).
            return self.initiate(out, now);
        }
        match self.seal(&[], out, now) {
            Sealed::Message(len) | Sealed::Initiation(len) => Some(len),
            Sealed::Staged | Sealed::Exhausted => None,
        }
    }
}
