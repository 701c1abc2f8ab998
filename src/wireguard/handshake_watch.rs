//! Whether a peer answers, from what its counters did between two checks.

use std::time::Duration;

use tokio::time::Instant;

use bastiond_tunnel::model::PeerSnapshot;

/// How long a peer may leave our packets unanswered. WireGuard itself starts a handshake after 15 s of silence
/// (Keepalive-Timeout and Rekey-Timeout), and repeats it every 5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A peer with a newer handshake than this answers: WireGuard makes a new one after 120 s (Rekey-After-Time).
const RECENT_HANDSHAKE: Duration = Duration::from_secs(120).saturating_add(ANSWER_TIMEOUT);

/// Watches one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HandshakeWatch {
    rx_bytes: u64,
    tx_bytes: u64,
    /// Since when packets were sent and none was received.
    unanswered_since: Option<Instant>,
}

impl HandshakeWatch {
    /// Checks the peer, whose newest handshake is `age` old; whether it has left packets unanswered for 15 s.
    pub(super) fn is_unanswered(&mut self, peer: &PeerSnapshot, age: Option<Duration>, now: Instant) -> bool {
        let is_recent = age.is_some_and(|age| age < RECENT_HANDSHAKE);
        if is_recent || peer.rx_bytes != self.rx_bytes {
            *self = Self { rx_bytes: peer.rx_bytes, tx_bytes: peer.tx_bytes, unanswered_since: None };
        } else if peer.tx_bytes != self.tx_bytes {
            self.unanswered_since.get_or_insert(now);
        }
        self.unanswered_since.is_some_and(|since| now.duration_since(since) >= ANSWER_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use bastiond_tunnel::key::PublicKey;

    use super::*;

    #[test]
    fn a_peer_is_unanswered_after_15_seconds_of_sending_without_receiving() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let peer = |rx_bytes, tx_bytes| PeerSnapshot { rx_bytes, tx_bytes, ..PeerSnapshot::new(PublicKey([1; 32])) };
        let old = Some(Duration::from_secs(200));
        let mut watch = HandshakeWatch::default();
        // Nothing is sent, so nothing is unanswered.
        assert!(!watch.is_unanswered(&peer(0, 0), None, at(0)));
        assert!(!watch.is_unanswered(&peer(0, 0), None, at(100)));
        // Handshake initiations are sent.
        assert!(!watch.is_unanswered(&peer(0, 148), None, at(105)));
        assert!(!watch.is_unanswered(&peer(0, 296), None, at(115)));
        assert!(watch.is_unanswered(&peer(0, 444), None, at(120)));
        // An answer resets it.
        assert!(!watch.is_unanswered(&peer(92, 592), Some(Duration::ZERO), at(121)));
        // An old session: only unanswered packets count.
        assert!(!watch.is_unanswered(&peer(92, 1000), Some(Duration::from_secs(100)), at(221)));
        assert!(!watch.is_unanswered(&peer(92, 1148), old, at(321)));
        assert!(!watch.is_unanswered(&peer(124, 1296), old, at(335)));
        assert!(!watch.is_unanswered(&peer(124, 1444), old, at(337)));
        assert!(watch.is_unanswered(&peer(124, 1444), old, at(352)));
    }
}
