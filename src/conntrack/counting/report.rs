//! Who uses most of the table, and who is limited.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;
use serde::{Deserialize, Serialize};

use super::counts::{Counts, Source};
use super::decide::{Decision, LimitReason, MAX_LIMITED};
use crate::config::Config;
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::outcome::Problem;
use crate::site::Site;

/// How many of the busiest sources are reported.
const REPORTED: usize = 10;

/// A source and its flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusySource {
    /// Its address; of IPv6 the first one of its /64.
    pub source: IpAddr,
    /// Who that is: a network, a peer's name, or the internet.
    pub who: String,
    /// How many flows it has, about.
    pub flows: u32,
    /// Why it may open no more; `None`: it may.
    pub limited: Option<LimitReason>,
}

/// The flows by source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// The ten sources with the most flows, the busiest first.
    pub busiest: Vec<BusySource>,
    /// How many sources have flows.
    pub sources: u64,
    /// How many of them may open no more; the ranges of a peer with networks count as one each.
    pub limited: u64,
    /// How many flows each source may have while the table is more than half full.
    pub share: Option<u32>,
    /// The interfaces from which no more flows are let in.
    pub closed: Vec<InterfaceName>,
    /// How many times the kernel's reports were lost since the daemon started. After each loss the flows are counted
    /// again.
    pub losses: u64,
    /// Why flows are not counted or limited.
    pub error: Option<String>,
}

/// Who has which addresses.
#[derive(Debug, Default, Clone)]
pub(in super::super) struct SourceNames(PrefixMap<Ipv4Net, String>);

impl SourceNames {
    /// The names on this server.
    pub(crate) fn new(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Self {
        let mut names = PrefixMap::default();
        for link in &site.private {
            for range in link.ranges() {
                names.insert(range.trunc(), format!("private host, {}", link.interface));
            }
        }
        if tunnel.is_some() {
            for peer in config.wireguard.iter().flat_map(|wireguard| &wireguard.peers) {
                for range in crate::net::v4(peer.allowed_ips.iter().copied()) {
                    names.insert(
                        range.trunc(),
                        format!("peer {}", peer.name.clone().unwrap_or_else(|| peer.public_key.to_string())),
                    );
                }
            }
        }
        let public = site.public.iter().flat_map(|public| &public.addresses);
        for own in public.chain(site.private.iter().map(|link| &link.address)) {
            names.insert(Ipv4Net::from(*own), "this server".to_owned());
        }
        Self(names)
    }

    fn of(&self, source: Source) -> String {
        let known = |address: Ipv4Addr| self.0.get_lpm(&Ipv4Net::from(address)).map(|(_, name)| name.clone());
        let name = if let Source::V4(address) = source { known(address) } else { None };
        name.unwrap_or_else(|| "internet".to_owned())
    }
}

/// The report, but for what only the thread knows.
pub(super) fn report(counts: &Counts, decision: &Decision, names: &SourceNames) -> FlowCount {
    let shares_range = |source: Source| match source {
        Source::V4(address) if decision.ranges.iter().any(|range| range.contains(&address)) => Some(LimitReason::Share),
        _ => None,
    };
    let busy = |(source, flows): (Source, u32)| BusySource {
        source: source.address(),
        who: names.of(source),
        flows,
        limited: decision.limited.get(&source).copied().or_else(|| shares_range(source)),
    };
    FlowCount {
        busiest: counts.busiest(REPORTED).into_iter().map(busy).collect(),
        sources: u64::try_from(counts.sources()).unwrap_or(u64::MAX),
        limited: u64::try_from(decision.limited.len() + decision.ranges.len()).unwrap_or(u64::MAX),
        share: decision.share,
        closed: decision.closed.iter().cloned().collect(),
        ..FlowCount::default()
    }
}

impl FlowCount {
    /// What keeps sources from opening flows. The texts contain no changing number, so a problem that lasts is one
    /// problem.
    pub(in super::super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(error) = &self.error {
            let what = format!("no source's flows are limited by their number: {error}");
            let advice = "the daemon retries by itself; it needs CAP_NET_ADMIN and the module nf_conntrack_netlink";
            problems.push(Problem::new("flows-not-counted", what, advice));
        }
        if self.share.is_some() && self.limited > 0 {
            let what = "the connection tracking table is more than half full, and the sources with the most flows may \
                        open no more, so that others can";
            let advice = "`bastionctl status` lists them under FLOWS; stop what they do, lower egress.max_flows or \
                          firewall.max_flows, or take a server with more memory, which has a larger table";
            problems.push(Problem::new("flow-table-shared", what, advice));
        }
        for link in &self.closed {
            let what = format!(
                "the connection tracking table is three quarters full, and no new flows come in by {link}, whose \
                 sources have most of them"
            );
            let advice = "many sources together fill the table: block them (firewall.blocklist, or Hetzner's firewall), \
                          or close the forward that they use";
            problems.push(Problem::new("flow-table-closed", what, advice));
        }
        if usize::try_from(self.limited).is_ok_and(|limited| limited >= MAX_LIMITED) {
            let what = format!("more than {MAX_LIMITED} sources have as many flows as they may: not all are limited");
            let advice = "many sources together fill the table: block them (firewall.blocklist, or Hetzner's firewall)";
            problems.push(Problem::new("flow-limits-full", what, advice));
        }
        problems
    }
}
