//! What the tunnel refuses, by name: for the status, and a line in the journal when it begins.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{Refused, RefusedCount};

/// Addresses and peers that have a line in the journal. Once so many have one, no more are logged: the status shows
/// who is refused most.
const MAX_LOGGED: usize = 256;

/// What the tunnel refused since the interface was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReport {
    /// Addresses that try with a key that no peer has, the most frequent first; at most 32.
    pub unknown_keys: Vec<UnknownKeyReport>,
    /// Attempts with unknown keys from further addresses.
    pub unknown_keys_elsewhere: u64,
    /// Packets of peers from inner addresses that are not theirs.
    pub foreign_sources: Vec<ForeignSourceReport>,
    /// Peers whose handshakes are answered, but that do not complete them.
    pub unconfirmed: Vec<UnconfirmedReport>,
    /// Handshakes for another public key than this server's.
    pub wrong_server_key: CountReport,
    /// Handshakes that were received before, or whose sender's clock has gone back.
    pub replayed: CountReport,
    /// Answers to our handshakes that do not fit.
    pub wrong_answer: CountReport,
    /// Handshakes that contradict themselves.
    pub malformed: CountReport,
    /// Handshake messages that came faster than they are answered, or were answered with a cookie.
    pub under_load: u64,
}

/// An address that tries with an unknown key. Without load it may be forged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownKeyReport {
    /// The address.
    pub address: IpAddr,
    /// The newest key from there.
    pub public_key: PublicKey,
    /// The label of the peer that has this key in the configuration and may not use the tunnel.
    #[serde(default)]
    pub name: Option<String>,
    /// How many handshakes.
    pub times: u64,
    /// When the newest one was received, seconds since 1970-01-01 UTC.
    pub last_unix: Option<u64>,
}

/// A peer that sends from an inner address that is not its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignSourceReport {
    /// The peer's label, if it has one.
    pub name: Option<String>,
    /// The peer's public key, which identifies it.
    pub public_key: PublicKey,
    /// The newest such address.
    pub address: IpAddr,
    /// Packets from all such addresses.
    pub packets: u64,
    /// When the newest one was received, seconds since 1970-01-01 UTC.
    pub last_unix: Option<u64>,
}

/// A peer that completes no handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedReport {
    /// The peer's label, if it has one.
    pub name: Option<String>,
    /// The peer's public key, which identifies it.
    pub public_key: PublicKey,
    /// Answers since its last session.
    pub times: u32,
}

/// How often something was refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountReport {
    /// How often.
    pub times: u64,
    /// The sender of the newest one.
    pub last_from: Option<SocketAddr>,
}

impl From<RefusedCount> for CountReport {
    fn from(RefusedCount { times, last_from }: RefusedCount) -> Self {
        Self { times, last_from }
    }
}

impl RefusedReport {
    /// The report about what a data plane counted; `name` gives the label of a peer, also of one that may not use the
    /// tunnel.
    pub fn new(refused: &Refused, name: impl Fn(&PublicKey) -> Option<String>) -> Self {
        let handshakes = &refused.handshakes;
        let unknown_keys = handshakes.unknown_keys.iter().map(|known| UnknownKeyReport {
            address: known.address,
            public_key: known.public_key,
            name: name(&known.public_key),
            times: known.times,
            last_unix: seconds_since_1970(known.last),
        });
        let foreign_sources = refused.peers.iter().filter_map(|peer| {
            let source = peer.foreign_source?;
            Some(ForeignSourceReport {
                name: name(&peer.public_key),
                public_key: peer.public_key,
                address: source.address,
                packets: source.packets,
                last_unix: seconds_since_1970(source.last),
            })
        });
        let unconfirmed = refused.peers.iter().filter(|peer| peer.unconfirmed > 0).map(|peer| UnconfirmedReport {
            name: name(&peer.public_key),
            public_key: peer.public_key,
            times: peer.unconfirmed,
        });
        Self {
            unknown_keys: unknown_keys.collect(),
            unknown_keys_elsewhere: handshakes.unknown_keys_elsewhere,
            foreign_sources: foreign_sources.collect(),
            unconfirmed: unconfirmed.collect(),
            wrong_server_key: handshakes.wrong_server_key.into(),
            replayed: handshakes.replayed.into(),
            wrong_answer: handshakes.wrong_answer.into(),
            malformed: handshakes.malformed.into(),
            under_load: handshakes.under_load,
        }
    }

    /// A line for each thing that was refused.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.unknown_keys.iter().map(UnknownKeyReport::line).collect();
        if self.unknown_keys_elsewhere > 0 {
            lines.push(format!("unknown keys from further addresses ({})", times(self.unknown_keys_elsewhere)));
        }
        lines.extend(self.foreign_sources.iter().map(ForeignSourceReport::line));
        lines.extend(self.unconfirmed.iter().map(UnconfirmedReport::line));
        for (what, count) in [
            ("a handshake for another server's public key, or a former one", self.wrong_server_key),
            ("a handshake that was received before, or from a clock that has gone back", self.replayed),
            ("an answer that does not fit our handshake (another preshared key?)", self.wrong_answer),
            ("a handshake that contradicts itself", self.malformed),
        ] {
            if let (1.., Some(from)) = (count.times, count.last_from) {
                lines.push(format!("{what} ({}), the newest from {}", times(count.times), from.ip().to_canonical()));
            }
        }
        if self.under_load > 0 {
            lines.push(format!("a handshake under load ({})", times(self.under_load)));
        }
        lines
    }
}

impl UnknownKeyReport {
    fn line(&self) -> String {
        let (address, times) = (self.address, times(self.times));
        match &self.name {
            Some(name) => format!("{name}, which is disabled or has expired, from {address} ({times})"),
            None => format!("unknown key from {address} ({times}): {}", self.public_key),
        }
    }
}

impl ForeignSourceReport {
    fn line(&self) -> String {
        let packets = if self.packets == 1 { "1 packet".to_owned() } else { format!("{} packets", self.packets) };
        let label = label(self.name.as_ref(), &self.public_key);
        format!("{label} sends from {}, which is not its own ({packets})", self.address)
    }
}

impl UnconfirmedReport {
    fn line(&self) -> String {
        let label = label(self.name.as_ref(), &self.public_key);
        format!(
            "{label} does not complete its handshakes ({} answered): it has another preshared key, or our answers do \
             not reach it",
            self.times
        )
    }
}

fn label(name: Option<&String>, key: &PublicKey) -> String {
    name.cloned().unwrap_or_else(|| key.to_string())
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

pub(super) fn seconds_since_1970(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// Which refusals have a line in the journal.
#[derive(Debug, Default)]
pub(super) struct RefusedLog(BTreeSet<Subject>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Address(IpAddr),
    Source(PublicKey, IpAddr),
    Unconfirmed(PublicKey),
}

impl RefusedLog {
    /// Logs what is new: an address, or a peer with another address.
    pub(super) fn note(&mut self, report: &RefusedReport) {
        let addresses = report.unknown_keys.iter().map(|key| (Subject::Address(key.address), key.line()));
        let sources = report.foreign_sources.iter();
        let sources = sources.map(|source| (Subject::Source(source.public_key, source.address), source.line()));
        let unconfirmed = report.unconfirmed.iter().map(|peer| (Subject::Unconfirmed(peer.public_key), peer.line()));
        for (subject, line) in addresses.chain(sources).chain(unconfirmed) {
            if self.0.len() < MAX_LOGGED && self.0.insert(subject) {
                tracing::info!(component = "wireguard", "refused: {line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bastiond_tunnel::model::{ForeignSource, RefusedHandshakes, RefusedPeer, UnknownKey};

    use super::*;

    #[test]
    fn refused_keys_and_sources_are_named() {
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let [alice, bob, stranger, eve] = [1, 2, 3, 4].map(|n| PublicKey([n; 32]));
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let unknown = UnknownKey { address: address("192.0.2.7"), public_key: stranger, times: 12, last };
        let source = |text, packets| Some(ForeignSource { address: address(text), packets, last });
        let refused = Refused {
            handshakes: RefusedHandshakes {
                unknown_keys: vec![unknown, UnknownKey { public_key: eve, times: 1, ..unknown }],
                wrong_server_key: RefusedCount { times: 1, last_from: Some("192.0.2.8:5".parse().unwrap()) },
                under_load: 7,
                ..RefusedHandshakes::default()
            },
            peers: vec![
                RefusedPeer { public_key: alice, foreign_source: source("10.9.9.9", 3), unconfirmed: 0 },
                RefusedPeer { public_key: bob, foreign_source: None, unconfirmed: 4 },
            ],
        };
        let report = RefusedReport::new(&refused, |key| match *key {
            key if key == alice => Some("alice".to_owned()),
            key if key == eve => Some("eve".to_owned()),
            _ => None,
        });
        let expected = [
            format!("unknown key from 192.0.2.7 (12 times): {stranger}"),
            "eve, which is disabled or has expired, from 192.0.2.7 (once)".to_owned(),
            "alice sends from 10.9.9.9, which is not its own (3 packets)".to_owned(),
            format!(
                "{bob} does not complete its handshakes (4 answered): it has another preshared key, or our answers do \
                 not reach it"
            ),
            "a handshake for another server's public key, or a former one (once), the newest from 192.0.2.8".to_owned(),
            "a handshake under load (7 times)".to_owned(),
        ];
        assert_eq!(report.lines(), expected);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["unknown_keys"][0]["times"], 12);
        assert_eq!(json["foreign_sources"][0]["name"], "alice");
        assert_eq!(RefusedReport::default().lines(), Vec::<String>::new());
    }
}
