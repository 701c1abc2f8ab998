//! A peer's session: packets are sealed and opened, handshake messages made and answered. Every result of the protocol
//! core about a single peer passes here.

use std::time::Duration;

use boringtun::noise::TunnResult;
use boringtun::noise::errors::WireGuardError;

use super::State;
use crate::device::clock::Now;
use crate::device::message::{self, Kind};
use crate::device::transport::Endpoint;

/// After so many messages of a session a new handshake starts (WireGuard's Rekey-After-Messages, 2^60).
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// After so many messages a session ends (WireGuard's Reject-After-Messages, 2^64 - 2^13 - 1).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// A peer's handshake initiations that follow each other faster than this are dropped (kernel:
/// `INITIATIONS_PER_SECOND`, 50).
const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// The result of sealing a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// A data message of this length, in bytes.
    Message(usize),
    /// The packet waits for a session; a handshake initiation of this length, in bytes, has to be sent.
    Initiation(usize),
    /// The packet waits for a session, and a handshake is on its way.
    Staged,
    /// The session has carried its maximum of messages; the packet is lost.
    Exhausted,
}

/// The content of an authentic data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet of this length in bytes, at the start of the output.
    Packet(usize),
    /// Nothing: the message is a keepalive.
    Keepalive,
}

impl State {
    /// Seals a packet (with its padding) into `out`, which holds at least 32 bytes more than the packet and at least
    /// 148.
    ///
    /// # Panics If `out` is too small, or the peer is asleep.
    #[inline]
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8], now: Now) -> Sealed {
        if !self.has_session && self.retiring.is_some() {
            if let Some(len) = self.seal_with_retiring(packet, out) {
                self.note_sent(len, now);
                return Sealed::Message(len);
            }
            self.retiring = None;
        }
        let tunn = self.tunn.as_mut().expect("the caller has woken the peer");
        let TunnResult::WriteToNetwork(message) = tunn.encapsulate(packet, out) else {
            self.staged = true;
            return Sealed::Staged;
        };
        let len = message.len();
        if message::kind(message) != Some(Kind::Data) {
            self.staged = true;
            self.note_sent(len, now);
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
        self.note_sent(len, now);
        Sealed::Message(len)
    }

    fn seal_with_retiring(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        match self.retiring.as_mut()?.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) if message::kind(message) == Some(Kind::Data) => Some(message.len()),
            _ => None,
        }
    }

    /// Opens a data message of at least 32 bytes into `out`, which is at least as long. Only an authentic message
    /// changes the peer.
    #[inline]
    pub fn open(
        &mut self,
        from: &Endpoint,
        datagram: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Result<Opened, WireGuardError> {
        if message::counter(datagram) >= REJECT_AFTER_MESSAGES {
            // The core's counter would overflow.
            return Err(WireGuardError::InvalidCounter);
        }
        let receiver = message::receiver(datagram);
        let is_retiring = message::is_odd(receiver) != self.uses_odd_index;
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
        // The peer may use the session of an earlier response than the last.
        if self.unconfirmed == Some(receiver) || !(self.has_session || is_retiring) {
            self.unconfirmed = None;
            self.note_session(now);
        }
        self.note_received(from, datagram.len(), now);
        if opened != Opened::Keepalive && self.received_since.is_none() {
            self.received_since = Some(now.elapsed);
        }
        Ok(opened)
    }

    /// Answers a handshake initiation into `out` (at least 148 bytes); the response's length in bytes.
    ///
    /// It does not change the peer's endpoint: an initiation may be replayed from another address, and the response
    /// goes to the sender of the initiation anyway. The first data message of the new session, which the initiator
    /// sends at once, changes the endpoint.
    pub fn answer(&mut self, initiation: &[u8], out: &mut [u8], now: Now) -> Result<usize, WireGuardError> {
        if self.last_initiation.is_some_and(|last| now.elapsed < last + INITIATION_INTERVAL) {
            return Err(WireGuardError::UnderLoad);
        }
        let Some(tunn) = &mut self.tunn else { return Err(WireGuardError::NoCurrentSession) };
        match tunn.decapsulate(None, initiation, out) {
            TunnResult::WriteToNetwork(response) => {
                self.unconfirmed = Some(message::sender(response));
                self.unconfirmed_answers = self.unconfirmed_answers.saturating_add(1);
                self.last_initiation = Some(now.elapsed);
                self.rx_bytes += initiation.len() as u64;
                let len = response.len();
                self.note_sent(len, now);
                Ok(len)
            }
            TunnResult::Err(error) => Err(error),
            _ => Err(WireGuardError::UnexpectedPacket),
        }
    }

    /// Accepts a handshake response; the length in bytes of the keepalive in `out` that confirms the session.
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
                self.note_session(now);
                self.note_received(from, response.len(), now);
                self.note_sent(len, now);
                Ok(len)
            }
            TunnResult::Err(error) => Err(error),
            _ => Err(WireGuardError::UnexpectedPacket),
        }
    }

    /// Accepts a cookie, which the next initiation carries.
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

    /// Starts a handshake unless one is under way; the initiation's length in bytes.
    pub fn initiate(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        match self.tunn.as_mut()?.format_handshake_initiation(out, false) {
            TunnResult::WriteToNetwork(initiation) => {
                let len = initiation.len();
                self.note_sent(len, now);
                Some(len)
            }
            _ => None,
        }
    }

    /// The initiation that the timers would send next, now.
    #[cfg(test)]
    pub(in crate::device) fn retry(&mut self, out: &mut [u8]) -> Option<usize> {
        match self.tunn.as_mut()?.format_handshake_initiation(out, true) {
            TunnResult::WriteToNetwork(initiation) => Some(initiation.len()),
            _ => None,
        }
    }

    /// Whether packets that waited for a session can be sent.
    #[inline]
    pub fn has_staged(&self) -> bool {
        self.staged && self.has_session
    }

    /// Seals the next packet that waited for a session into `out`, which holds the largest packet; the message's length
    /// in bytes.
    pub fn next_staged(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        if !self.has_staged() {
            return None;
        }
        let TunnResult::WriteToNetwork(message) = self.tunn.as_mut()?.decapsulate(None, &[], out) else {
            self.staged = false;
            return None;
        };
        let len = message.len();
        self.note_sent(len, now);
        Some(len)
    }

    fn note_session(&mut self, now: Now) {
        self.has_session = true;
        self.unconfirmed_answers = 0;
        self.last_handshake = Some(now.wall);
        // The path may have changed since the last session.
        self.path_lookup_due = true;
    }

    /// Notes that an authentic message was received: its sender is the peer's endpoint now.
    #[inline]
    fn note_received(&mut self, from: &Endpoint, len: usize, now: Now) {
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
    pub(super) fn note_sent(&mut self, len: usize, now: Now) {
        self.tx_bytes += len as u64;
        self.last_traversal = now.elapsed;
        self.received_since = None;
    }
}
