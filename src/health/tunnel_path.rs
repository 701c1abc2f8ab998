//! The tunnel as a path: what its peers and two counters of its port tell. Pure, and nothing is sent: only peers can
//! answer, and a server that is quiet proves nothing.
//!
//! The port is ok when something authentic comes from any peer. It is lost when packets for it come in and none of them
//! gets past the chains of this server, or when no site answers although there are several: two sites do not fail at
//! the same moment. A site is lost when it answers no more; that may be its own outage. People's devices come and go,
//! so nothing is said about a single one.

use std::collections::BTreeMap;

use super::memory::Proven;
use super::path::{Path, PathReport, PathState};
use crate::nat::PortCount;
use crate::net::ServerId;
use crate::wireguard::{PeersSeen, Site};

/// So many packets in a row that came in for the port and did not get past the chains: scans are single ones.
const STOPPED: u64 = 3;
/// So many sites have to be silent at the same time before the port is blamed.
const SITES: usize = 2;

/// The tunnel's paths.
#[derive(Debug, Default)]
pub(crate) struct TunnelPaths {
    proven: Proven,
    paths: BTreeMap<Path, Known>,
    last: Option<PortCount>,
    /// Packets that did not get past the chains since one did.
    stopped: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    state: PathState,
    since_unix: u64,
    detail: String,
}

impl TunnelPaths {
    /// Paths of which nothing is known. `proven`: those that have passed on this server.
    pub(crate) fn new(proven: Proven) -> Self {
        Self { proven, ..Self::default() }
    }

    /// The paths that have passed on this server.
    pub(crate) fn proven(&self) -> &Proven {
        &self.proven
    }

    /// Forgets all paths: there is no tunnel.
    pub(crate) fn clear(&mut self) {
        self.paths.clear();
        (self.last, self.stopped) = (None, 0);
    }

    /// Takes over what a check found. `counted`: what the rules have counted so far, if that is known.
    pub(crate) fn update(
        &mut self,
        seen: &PeersSeen,
        counted: Option<PortCount>,
        server: Option<ServerId>,
        now_unix: u64,
    ) {
        self.proven = std::mem::take(&mut self.proven).on(server);
        let path = |peer: Option<&Site>| Path::Tunnel {
            interface: seen.interface.clone(),
            peer: peer.map(|site| site.name.clone()),
        };
        let sites: Vec<(Path, &Site)> = seen.sites.iter().map(|site| (path(Some(site)), site)).collect();
        let port = path(None);
        self.paths.retain(|known, _| *known == port || sites.iter().any(|(site, _)| site == known));
        let has_passed = self.count(counted, seen.is_heard);
        let all_silent = sites.len() >= SITES && sites.iter().all(|(_, site)| site.is_silent);
        let verdict = if seen.is_heard {
            Some(Ok(()))
        } else if self.stopped >= STOPPED {
            Some(Err(format!(
                "packets for UDP {} come in, and none gets past the chains of this server: another program's rule \
                 drops them (nft list ruleset), or firewall.wireguard_port closes the port",
                seen.port
            )))
        } else if all_silent {
            Some(Err(format!(
                "nothing comes back from any of {} sites: this server's uplink, a Hetzner Cloud firewall, or another \
                 program's rule for UDP {}",
                sites.len(),
                seen.port
            )))
        } else {
            has_passed.then_some(Ok(())).filter(|_| self.state(&port) == Some(PathState::Lost))
        };
        let is_port_lost = matches!(verdict, Some(Err(_)));
        self.learn(&port, verdict, now_unix);
        for (path, site) in &sites {
            let others = seen.is_heard || sites.iter().any(|(_, other)| !other.is_silent);
            let verdict = match (site.is_silent, site.is_heard) {
                (true, _) if is_port_lost => Some(Err("as all of the tunnel".to_owned())),
                (true, _) if others => Some(Err("nothing comes from it; other peers are well".to_owned())),
                (true, _) => Some(Err("nothing comes from it; there is no other peer to compare it with".to_owned())),
                (false, true) => Some(Ok(())),
                (false, false) => None,
            };
            self.learn(path, verdict, now_unix);
        }
    }

    /// Follows the counters; whether a packet has got past the chains.
    fn count(&mut self, counted: Option<PortCount>, is_heard: bool) -> bool {
        let last = std::mem::replace(&mut self.last, counted);
        let (Some(last), Some(now)) = (last, counted) else { return false };
        // The counters of a new table start at zero.
        let difference = now.arrived.checked_sub(last.arrived).zip(now.passed.checked_sub(last.passed));
        let (arrived, passed) = difference.unwrap_or_default();
        let has_passed = passed > 0;
        self.stopped = if has_passed || is_heard { 0 } else { self.stopped.saturating_add(arrived) };
        has_passed
    }

    fn state(&self, path: &Path) -> Option<PathState> {
        self.paths.get(path).map(|known| known.state)
    }

    /// Takes over whether a path passes, or why it does not; `None`: nothing new is known.
    fn learn(&mut self, path: &Path, verdict: Option<Result<(), String>>, now_unix: u64) {
        let known = self.paths.entry(path.clone()).or_insert_with(|| Known {
            state: PathState::Unproven,
            since_unix: now_unix,
            detail: String::new(),
        });
        let (state, detail) = match verdict {
            None => return,
            Some(Ok(())) => {
                self.proven.add(path);
                (PathState::Ok, String::new())
            }
            Some(Err(reason)) if self.proven.contains(path) => (PathState::Lost, reason),
            Some(Err(reason)) => (PathState::Unproven, reason),
        };
        if known.state != state {
            known.since_unix = now_unix;
        }
        (known.state, known.detail) = (state, detail);
    }

    /// What is known about each path.
    pub(crate) fn reports(&self) -> Vec<PathReport> {
        let report = |(path, known): (&Path, &Known)| PathReport {
            path: path.clone(),
            state: known.state,
            since_unix: known.since_unix,
            round_trip_us: None,
            detail: known.detail.clone(),
        };
        self.paths.iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, is_heard: bool, is_silent: bool) -> Site {
        Site { name: name.to_owned(), is_heard, is_silent }
    }

    /// A tunnel with sites, of which each answers or does not.
    struct Bench {
        paths: TunnelPaths,
        arrived: u64,
        passed: u64,
        now: u64,
    }

    impl Bench {
        fn new() -> Self {
            Self { paths: TunnelPaths::default(), arrived: 10, passed: 10, now: 0 }
        }

        fn check(&mut self, is_heard: bool, sites: &[Site], arrived: u64, passed: u64) -> Vec<String> {
            (self.arrived, self.passed, self.now) = (self.arrived + arrived, self.passed + passed, self.now + 5);
            let interface = "wg0".parse().unwrap();
            let seen = PeersSeen { interface, port: 51820, is_heard, sites: sites.to_vec() };
            let counted = Some(PortCount { arrived: self.arrived, passed: self.passed });
            self.paths.update(&seen, counted, None, self.now);
            self.paths.reports().iter().map(|report| format!("{} {}", report.path, report.state)).collect()
        }

        fn detail(&self) -> String {
            self.paths.reports()[0].detail.clone()
        }
    }

    #[test]
    fn a_quiet_tunnel_is_unproven_and_one_that_was_heard_stays_ok_while_people_are_away() {
        let mut bench = Bench::new();
        assert_eq!(bench.check(false, &[], 0, 0), ["tunnel wg0 unproven"]);
        assert_eq!(bench.check(true, &[], 9, 9), ["tunnel wg0 ok"]);
        for _ in 0..100 {
            assert_eq!(bench.check(false, &[], 0, 0), ["tunnel wg0 ok"]);
        }
        assert_eq!(bench.paths.reports()[0].since_unix, 10);
    }

    #[test]
    fn packets_that_do_not_get_past_the_chains_are_a_lost_port_until_one_does() {
        let mut bench = Bench::new();
        bench.check(false, &[], 0, 0);
        assert_eq!(bench.check(false, &[], 9, 0), ["tunnel wg0 unproven"], "it has never passed here");
        assert!(bench.detail().contains("UDP 51820 come in"), "{}", bench.detail());
        bench.check(true, &[], 1, 1);
        assert_eq!(bench.check(false, &[], 2, 0), ["tunnel wg0 ok"]);
        assert_eq!(bench.check(false, &[], 0, 0), ["tunnel wg0 ok"]);
        assert_eq!(bench.check(false, &[], 1, 0), ["tunnel wg0 lost"]);
        assert_eq!(bench.check(false, &[], 1, 1), ["tunnel wg0 ok"]);
        assert_eq!(bench.check(false, &[], 2, 0), ["tunnel wg0 ok"], "counted from zero again");
        // A new table begins at 0.
        (bench.arrived, bench.passed) = (0, 0);
        assert_eq!(bench.check(false, &[], 0, 0), ["tunnel wg0 ok"]);
    }

    #[test]
    fn one_silent_site_is_lost_alone_and_several_are_a_lost_tunnel() {
        let mut bench = Bench::new();
        let sites = |office: bool, lab: bool| [site("office", !office, office), site("lab", !lab, lab)];
        let ok = ["tunnel wg0 ok", "tunnel wg0 to lab ok", "tunnel wg0 to office ok"];
        assert_eq!(bench.check(true, &sites(false, false), 2, 2), ok);
        let office = ["tunnel wg0 ok", "tunnel wg0 to lab ok", "tunnel wg0 to office lost"];
        assert_eq!(bench.check(true, &sites(true, false), 1, 1), office);
        let all = ["tunnel wg0 lost", "tunnel wg0 to lab lost", "tunnel wg0 to office lost"];
        assert_eq!(bench.check(false, &sites(true, true), 0, 0), all);
        assert!(bench.detail().contains("any of 2 sites"), "{}", bench.detail());
        // Somebody else's laptop is heard: it is not the port.
        assert_eq!(bench.check(true, &sites(true, true), 1, 1)[0], "tunnel wg0 ok");
        assert_eq!(bench.check(true, &sites(false, false), 2, 2), ok);
    }

    #[test]
    fn a_single_site_that_is_silent_says_nothing_about_the_port() {
        let mut bench = Bench::new();
        bench.check(true, &[site("office", true, false)], 1, 1);
        let lost = bench.check(false, &[site("office", false, true)], 0, 0);
        assert_eq!(lost, ["tunnel wg0 ok", "tunnel wg0 to office lost"]);
        // A peer that goes, and a tunnel.
        assert_eq!(bench.check(false, &[], 0, 0), ["tunnel wg0 ok"]);
        bench.paths.clear();
        assert_eq!(bench.paths.reports(), []);
    }

    #[test]
    fn a_site_that_never_answered_on_this_server_is_unproven() {
        let mut bench = Bench::new();
        assert_eq!(bench.check(false, &[site("office", false, false)], 0, 0)[1], "tunnel wg0 to office unproven");
        assert_eq!(bench.check(false, &[site("office", false, true)], 0, 0)[1], "tunnel wg0 to office unproven");
        let known = TunnelPaths::new(bench.paths.proven().clone());
        assert_eq!(known.reports(), []);
    }
}
