//! Whether a peer answers, from what its counters did between two checks.

use std::time::{Duration, Instant, SystemTime};

use crate::model::PeerSnapshot;

/// How often peers should be checked.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// How long a peer may leave our packets unanswered. WireGuard itself starts a handshake after 15 s of silence
/// (Keepalive-Timeout and Rekey-Timeout), and repeats it every 5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// With a newer handshake than this there is a session, and keepalives are not answered: WireGuard makes a new one
/// after 120 s (Rekey-After-Time).
const RECENT_HANDSHAKE: Duration = Duration::from_secs(120).saturating_add(ANSWER_TIMEOUT);
/// An empty data message, which is a keepalive, in bytes.
const KEEPALIVE: u64 = 32;

/// Watches one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AnswerWatch {
    rx_bytes: u64,
    tx_bytes: u64,
    /// Since when packets that want an answer were sent and nothing was received.
    unanswered_since: Option<Instant>,
    is_silent: bool,
}

/// A peer's change between two checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has left packets unanswered for 15 s.
    Silent,
    /// It was silent, and something authentic was received from it.
    Answers,
}

impl AnswerWatch {
    /// Compares the peer with the last check, which was some [`INTERVAL`] ago.
    pub fn check(&mut self, peer: &PeerSnapshot, wall_clock: SystemTime, now: Instant) -> Option<Change> {
        let age = peer.last_handshake.and_then(|then| wall_clock.duration_since(then).ok());
        let sent = peer.tx_bytes.saturating_sub(self.tx_bytes);
        let was_silent = self.is_silent;
        if peer.rx_bytes == self.rx_bytes {
            // A session's keepalives want no answer; packets do, after 10 s at the latest (Keepalive-Timeout).
            let is_recent = age.is_some_and(|age| age < RECENT_HANDSHAKE);
            if sent > if is_recent { keepalives(peer.persistent_keepalive) } else { 0 } {
                self.unanswered_since.get_or_insert(now);
            }
        } else {
            (self.unanswered_since, self.is_silent) = (None, false);
        }
        (self.rx_bytes, self.tx_bytes) = (peer.rx_bytes, peer.tx_bytes);
        self.is_silent |= self.unanswered_since.is_some_and(|since| now.duration_since(since) >= ANSWER_TIMEOUT);
        match (was_silent, self.is_silent) {
            (false, true) => Some(Change::Silent),
            (true, false) => Some(Change::Answers),
            _ => None,
        }
    }

    /// Whether something authentic was received from the peer since the last check.
    pub fn is_heard(&self, peer: &PeerSnapshot) -> bool {
        peer.rx_bytes > self.rx_bytes
    }

    /// Whether the peer has left packets unanswered for 15 s.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }
}

/// The most bytes of keepalives within an interval, and a bit.
fn keepalives(persistent_keepalive: u16) -> u64 {
    let of_interval = INTERVAL.as_secs().checked_div(persistent_keepalive.into()).unwrap_or(0);
    KEEPALIVE * (of_interval + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PublicKey;

    /// Checks a peer at these seconds, with these counters and the second of its newest handshake; what changed when.
    fn changes(checks: &[(u64, u64, u64, Option<u64>)], persistent_keepalive: u16) -> Vec<(u64, Change)> {
        let (start, epoch) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let mut watch = AnswerWatch::default();
        let check = |&(second, rx_bytes, tx_bytes, handshake): &(u64, u64, u64, Option<u64>)| {
            let at = Duration::from_secs(second);
            let last_handshake = handshake.map(|second| epoch + Duration::from_secs(second));
            let peer = PeerSnapshot {
                persistent_keepalive,
                last_handshake,
                rx_bytes,
                tx_bytes,
                ..PeerSnapshot::new(PublicKey([1; 32]))
            };
            watch.check(&peer, epoch + at, start + at).map(|change| (second, change))
        };
        checks.iter().filter_map(check).collect()
    }

    #[test]
    fn a_peer_is_silent_after_15_seconds_of_sending_without_receiving_and_one_line_says_so() {
        // Without a session: handshake initiations.
        let checks: Vec<_> = (0..200).map(|n| (5 * n, if n < 100 { 0 } else { 92 }, 148 * n, None)).collect();
        assert_eq!(changes(&checks, 0), [(20, Change::Silent), (500, Change::Answers), (520, Change::Silent)]);
        assert_eq!(changes(&[(0, 0, 0, None), (100, 0, 0, None), (200, 0, 0, None)], 0), [], "nothing is sent");
    }

    #[test]
    fn unanswered_packets_count_while_the_last_handshake_is_recent_and_keepalives_do_not() {
        let packets: Vec<_> = (0..7).map(|n| (60 + 5 * n, 92, 1000 + 128 * n, Some(60))).collect();
        assert_eq!(changes(&packets, 25), [(80, Change::Silent)], "20 s, not after the session's end");
        for (keepalive, bytes) in [(25, 32), (1, 5 * 32), (0, 32)] {
            let keepalives: Vec<_> = (0..7).map(|n| (60 + 5 * n, 92, 1000 + bytes * n, Some(60))).collect();
            assert_eq!(changes(&keepalives, keepalive), [], "{keepalive}");
        }
        let answered: Vec<_> = (0..30).map(|n| (5 * n, 32 * n, 1000 * n, Some(0))).collect();
        assert_eq!(changes(&answered, 0), []);
    }
}
