//! Who is refused from the outside: addresses that knock with a key that no peer has, and handshakes that are refused
//! for another reason. Only the protocol thread counts here, so the packet threads never wait for this lock; what a
//! peer sends from a foreign address is counted in the peer's own state, which is locked at that moment anyway.

use std::net::SocketAddr;
use std::time::SystemTime;

use boringtun::noise::errors::WireGuardError;

use super::clock::Now;
use crate::key::PublicKey;
use crate::model::{RefusedHandshakes, UnknownKey};

/// Addresses that are remembered. Whoever knows our public key can forge more, so there is a limit.
const MAX_ADDRESSES: usize = 32;

/// Why a handshake message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its first MAC was made for another public key than ours.
    WrongServerKey,
    /// No peer has its sender's key.
    UnknownKey(PublicKey),
    /// It was received before, or its sender's clock has gone back.
    Replayed,
    /// Too many at once.
    UnderLoad,
    /// An answer that does not fit: another preshared key, a handshake that is over, or a forgery.
    WrongAnswer,
    /// Its content contradicts itself.
    Malformed,
}

impl From<WireGuardError> for Reason {
    /// Why an initiation of a known peer is refused.
    fn from(error: WireGuardError) -> Self {
        match error {
            WireGuardError::WrongTai64nTimestamp => Self::Replayed,
            WireGuardError::UnderLoad => Self::UnderLoad,
            _ => Self::Malformed,
        }
    }
}

/// What was refused since the device started.
#[derive(Debug, Default)]
pub struct RefusedTable(RefusedHandshakes);

impl RefusedTable {
    /// Counts a refused handshake message.
    pub fn count(&mut self, reason: Reason, from: SocketAddr, now: Now) {
        tracing::debug!(?reason, %from, "a handshake message was refused");
        let counts = &mut self.0;
        let count = match reason {
            Reason::UnknownKey(key) => return self.count_unknown_key(key, from, now.wall),
            Reason::UnderLoad => {
                counts.under_load += 1;
                return;
            }
            Reason::WrongServerKey => &mut counts.wrong_server_key,
            Reason::Replayed => &mut counts.replayed,
            Reason::WrongAnswer => &mut counts.wrong_answer,
            Reason::Malformed => &mut counts.malformed,
        };
        count.times += 1;
        count.last_from = Some(from);
    }

    /// By address, not by key: an address with a new key each time takes one place. In a full table the place of the
    /// address with the fewest attempts is taken, of several such the one that has been silent for longest.
    fn count_unknown_key(&mut self, public_key: PublicKey, from: SocketAddr, last: SystemTime) {
        let table = &mut self.0.unknown_keys;
        let address = from.ip().to_canonical();
        if let Some(known) = table.iter_mut().find(|known| known.address == address) {
            *known = UnknownKey { times: known.times + 1, public_key, last, ..*known };
            return;
        }
        let newcomer = UnknownKey { address, public_key, times: 1, last };
        if table.len() < MAX_ADDRESSES {
            table.push(newcomer);
        } else if let Some(place) = table.iter_mut().min_by_key(|known| (known.times, known.last)) {
            self.0.unknown_keys_elsewhere += place.times;
            *place = newcomer;
        }
    }

    /// What was refused, the most frequent address first.
    pub fn report(&self) -> RefusedHandshakes {
        let mut report = self.0.clone();
        report.unknown_keys.sort_by_key(|known| std::cmp::Reverse((known.times, known.last)));
        report
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn knock(table: &mut RefusedTable, from: &str, key: u8, second: u64) {
        let elapsed = Duration::from_secs(second);
        let now = Now { elapsed, wall: SystemTime::UNIX_EPOCH + elapsed };
        table.count(Reason::UnknownKey(PublicKey([key; 32])), from.parse().unwrap(), now);
    }

    #[test]
    fn an_address_that_knocks_often_keeps_its_place_in_a_flood_of_others() {
        let mut table = RefusedTable::default();
        for second in 0..12 {
            knock(&mut table, "192.0.2.7:1000", 7, second);
        }
        for number in 0..1000 {
            knock(&mut table, &format!("10.0.{}.{}:1", number / 250, number % 250), 8, 100 + number);
        }
        let report = table.report();
        assert_eq!(report.unknown_keys.len(), MAX_ADDRESSES, "the memory is bounded");
        let first = UnknownKey {
            address: "192.0.2.7".parse().unwrap(),
            public_key: PublicKey([7; 32]),
            times: 12,
            last: SystemTime::UNIX_EPOCH + Duration::from_secs(11),
        };
        assert_eq!(report.unknown_keys[0], first);
        let counted: u64 = report.unknown_keys.iter().map(|known| known.times).sum();
        assert_eq!(counted + report.unknown_keys_elsewhere, 1012, "none is lost");
    }

    #[test]
    fn an_address_takes_one_place_whatever_its_port_its_key_and_its_socket() {
        let mut table = RefusedTable::default();
        for (number, from) in ["192.0.2.7:1000", "192.0.2.7:1001", "[::ffff:192.0.2.7]:1002"].iter().enumerate() {
            knock(&mut table, from, u8::try_from(number).unwrap(), 1);
        }
        let report = table.report();
        assert_eq!(report.unknown_keys.len(), 1);
        assert_eq!((report.unknown_keys[0].times, report.unknown_keys[0].public_key), (3, PublicKey([2; 32])));
    }
}
