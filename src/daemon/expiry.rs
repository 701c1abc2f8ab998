//! Peers whose access ends while the daemon runs.
//!
//! A pass sees the configuration without the peers that are out at its time, so it does for an expired peer what it does
//! for a removed one: session, routes and flows end.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::Daemon;
use crate::config::{Config, Peer};

impl Daemon {
    /// Takes the peers out that have expired; whether the peers of the tunnel changed. After a clock that was set back,
    /// it lets them in again.
    pub(super) fn follow_expiry(&mut self, now: SystemTime) -> bool {
        let Some(news) = changed(&self.written, &self.config, now) else { return false };
        for label in news.expired.iter().map(Peer::label) {
            tracing::info!(component = "wireguard", peer = label, "the access of peer {label} has expired");
        }
        self.config = news.config;
        true
    }

    /// How long it is until the next peer expires.
    pub(super) fn next_expiry(&self, now: SystemTime) -> Option<Duration> {
        let expiry = self.config.wireguard.as_ref()?.next_expiry(now)?;
        Some(expiry.duration_since(now).unwrap_or_default())
    }
}

/// Another time's configuration.
#[derive(Debug, PartialEq)]
struct News {
    config: Config,
    /// The peers that are out now and were not before.
    expired: Vec<Peer>,
}

/// What changed since the configuration was that of its time; `None` if nothing did.
fn changed(written: &Config, before: &Config, now: SystemTime) -> Option<News> {
    let (all, known) = (written.wireguard.as_ref()?, before.wireguard.as_ref()?);
    // Who is in at a later time was in at an earlier one, so the same number means the same peers.
    if all.peers.iter().filter(|peer| peer.is_in(now)).count() == known.peers.len() {
        return None;
    }
    let config = written.at(now);
    let out_before: BTreeSet<_> = known.out.iter().map(|peer| peer.public_key).collect();
    let out = config.wireguard.iter().flat_map(|tunnel| &tunnel.out);
    let expired = out.filter(|peer| !out_before.contains(&peer.public_key)).cloned().collect();
    Some(News { config, expired })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::config::{Environment, parse};

    #[test]
    fn a_peer_is_out_from_the_second_that_it_expires_in_and_in_again_before_it() {
        let text = "
            [[wireguard.peer]]
            name = \"ada\"
            public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"
            allowed_ips = [\"10.100.0.2\"]
            expires = 1970-01-01T01:00:10.5+01:00
            [[wireguard.peer]]
            name = \"bob\"
            public_key = \"TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\"
            allowed_ips = [\"10.100.0.3\"]
            [[wireguard.peer]]
            name = \"eve\"
            public_key = \"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\"
            allowed_ips = [\"10.100.0.4\"]
            enabled = false
        ";
        let written = parse(text, &Environment::default()).unwrap();
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        let names = |config: &Config| {
            let tunnel = config.wireguard.as_ref().unwrap();
            let sorted = |peers: &[Peer]| {
                let mut names: Vec<String> = peers.iter().map(Peer::label).collect();
                names.sort();
                names.join(" ")
            };
            (sorted(&tunnel.peers), sorted(&tunnel.out))
        };
        let early = written.at(at(9_999));
        assert_eq!(names(&early), ("ada bob".to_owned(), "eve".to_owned()));
        assert_eq!(early.wireguard.as_ref().unwrap().next_expiry(at(9_999)), Some(at(10_000)));
        assert_eq!(changed(&written, &early, at(9_999)), None);
        let news = changed(&written, &early, at(10_000)).unwrap();
        assert_eq!(names(&news.config), ("bob".to_owned(), "ada eve".to_owned()));
        assert_eq!(news.expired.iter().map(Peer::label).collect::<Vec<_>>(), ["ada"]);
        assert_eq!(news.config.wireguard.as_ref().unwrap().next_expiry(at(10_000)), None);
        // The clock is set back.
        let back = changed(&written, &news.config, at(5_000)).unwrap();
        assert_eq!((names(&back.config), back.expired), (("ada bob".to_owned(), "eve".to_owned()), Vec::new()));
        assert_eq!(names(&news.config.at(at(5_000))), names(&back.config));
    }
}
