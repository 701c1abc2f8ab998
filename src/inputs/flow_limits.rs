//! What the rules and the count of flows agree on: which flows are counted, and where the rules look up the sources
//! that may open no more.
//!
//! The rules let some of the new flows report their birth and their end, and write into their mark for how many flows
//! each of them stands. The daemon counts these by source, and fills the sets
//! ([decision 22](../../docs/decisions/0022-flows-are-counted-by-samples.md)).

use ipnet::Ipv4Net;
use prefix_trie::PrefixSet;

use super::Tunnel;
use crate::config::Config;
use crate::net::{InterfaceName, v4};
use crate::site::Site;

/// The table of the rules, of family `inet`.
pub(crate) const RULES_TABLE: &str = "bastiond";
/// The set of IPv4 sources that may open no more flows.
pub(crate) const LIMITED4: &str = "limited4";
/// The set of IPv6 sources that may open no more flows, each a /64.
pub(crate) const LIMITED6: &str = "limited6";
/// The set of ranges whose sources may open no more flows: those of a peer with networks behind it.
pub(crate) const LIMITED_RANGES: &str = "limited_ranges";
/// The set of links from which no more flows are let in.
pub(crate) const LIMITED_LINKS: &str = "limited_links";

/// The bits of a flow's mark that say for how many flows it stands: 0 means that it is not counted. All other bits of a
/// mark belong to others.
const MARK_SHIFT: u32 = 26;
/// A source is limited by about so many counted flows: with 256 of them a count is right to 6 %.
const COUNTED_AT_LIMIT: u32 = 256;
/// Which share of flows is counted at least, as a logarithm: every sixteenth.
const FEWEST_LOG2: u32 = 4;

/// Which share of new flows is counted: one of 2^n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    log2: u32,
}

impl Sample {
    /// The share for sources that may have so many flows. Small limits are counted exactly.
    pub(crate) fn for_limit(max_flows: Option<u32>) -> Self {
        let enough = max_flows.map_or(FEWEST_LOG2, |limit| (limit / COUNTED_AT_LIMIT).max(1).ilog2());
        Self { log2: enough.min(FEWEST_LOG2) }
    }

    /// For how many flows a counted one stands.
    pub(crate) fn weight(self) -> u32 {
        1 << self.log2
    }

    /// What is written into the mark of a counted flow.
    pub(crate) fn mark(self) -> u32 {
        (self.log2 + 1) << MARK_SHIFT
    }

    /// What the mark of a flow says; `None`: it is not counted.
    pub(crate) fn from_mark(mark: u32) -> Option<Self> {
        let log2 = (mark >> MARK_SHIFT & 0b111).checked_sub(1)?;
        Some(Self { log2 })
    }
}

/// How many flows sources may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    /// Flows of one private host or peer; `None`: no limit.
    pub inside: Option<u32>,
    /// Flows of one source outside; `None`: no limit.
    pub outside: Option<u32>,
    /// Whether sources with many flows open no more while the table fills.
    pub fair_share: bool,
    /// The links towards private networks and peers, each with its ranges.
    pub links: Vec<(InterfaceName, Vec<Ipv4Net>)>,
    /// The ranges of each peer that has more than one address. No address is in the ranges of two peers.
    pub sites: Vec<Vec<Ipv4Net>>,
    /// The link by which all other sources come in.
    pub public: Option<InterfaceName>,
}

impl FlowLimits {
    /// The limits on this server; `None`: nothing is limited, and nothing has to be counted.
    pub(crate) fn new(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Option<Self> {
        if !counts_flows(config) {
            return None;
        }
        let private = site.private.iter().map(|link| (link.interface.clone(), link.ranges().collect()));
        let peers = tunnel.map(|tunnel| (tunnel.interface.clone(), v4(tunnel.sources())));
        let public = site.public.as_ref().map(|public| public.interface.clone());
        Some(Self {
            inside: config.egress.max_flows,
            outside: config.firewall.max_flows,
            fair_share: config.firewall.fair_share,
            links: private.chain(peers).collect(),
            sites: tunnel.map(|tunnel| sites(config, tunnel)).unwrap_or_default(),
            public,
        })
    }
}

/// Whether the rules look up ranges of peers.
pub(crate) fn limits_sites(config: &Config, tunnel: Option<&Tunnel>) -> bool {
    config.firewall.fair_share && tunnel.is_some_and(|tunnel| !sites(config, tunnel).is_empty())
}

/// The ranges of each peer with more than one address. Of nested ranges WireGuard takes the narrowest, so a peer has
/// what is left of its ranges without the narrower ones of others.
fn sites(config: &Config, tunnel: &Tunnel) -> Vec<Vec<Ipv4Net>> {
    let served: PrefixSet<Ipv4Net> = v4(tunnel.sources()).into_iter().collect();
    let peers = config.wireguard.iter().flat_map(|wireguard| &wireguard.peers);
    let ranges_of = |allowed: &[ipnet::IpNet]| -> Vec<Ipv4Net> {
        let ranges: Vec<Ipv4Net> = v4(allowed.iter().copied()).iter().map(Ipv4Net::trunc).collect();
        Ipv4Net::aggregate(&ranges).into_iter().filter(|range| served.get_lpm(range).is_some()).collect()
    };
    let all: Vec<Vec<Ipv4Net>> = peers.map(|peer| ranges_of(&peer.allowed_ips)).collect();
    let of_all: PrefixSet<Ipv4Net> = all.iter().flatten().copied().collect();
    // A peer's own ranges are aggregated, so those inside one of them are others'.
    let without_others = |range: &Ipv4Net| {
        let narrower: Vec<Ipv4Net> = of_all.children(range).filter(|other| other != range).collect();
        without(*range, &narrower)
    };
    let is_site = |ranges: &&Vec<Ipv4Net>| ranges.len() > 1 || ranges.iter().any(|range| range.prefix_len() < 32);
    let sites = all.iter().filter(is_site).map(|ranges| ranges.iter().flat_map(without_others).collect());
    sites.filter(|ranges: &Vec<Ipv4Net>| !ranges.is_empty()).collect()
}

/// The parts of a range that are in none of the narrower ones.
fn without(range: Ipv4Net, narrower: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let inside: Vec<Ipv4Net> =
        narrower.iter().copied().filter(|other| range.contains(other) && *other != range).collect();
    if inside.is_empty() {
        return vec![range];
    }
    let halves = range.subnets(range.prefix_len() + 1).into_iter().flatten();
    let rest = |half: Ipv4Net| if inside.contains(&half) { Vec::new() } else { without(half, &inside) };
    halves.flat_map(rest).collect()
}

/// Whether new flows are counted.
pub(crate) fn counts_flows(config: &Config) -> bool {
    config.egress.max_flows.or(config.firewall.max_flows).is_some() || config.firewall.fair_share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_limits_are_counted_exactly_and_large_ones_by_every_sixteenth_flow() {
        let weights = [Some(1), Some(511), Some(512), Some(2048), Some(4096), Some(1_000_000), None];
        assert_eq!(weights.map(|limit| Sample::for_limit(limit).weight()), [1, 1, 2, 8, 16, 16, 16]);
    }

    #[test]
    fn a_peer_with_networks_has_its_ranges_without_those_of_others() {
        use crate::config::{Environment, parse};
        let key = |first: char| format!("{first}TIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=");
        let peer =
            |first, allowed| format!("[[wireguard.peer]]\npublic_key = \"{}\"\nallowed_ips = {allowed}\n", key(first));
        let text = format!(
            "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n{}{}{}",
            peer('x', "[\"10.100.0.2\"]"),
            peer('y', "[\"10.100.0.3\", \"192.168.0.0/22\", \"fd00::/64\"]"),
            peer('z', "[\"192.168.1.0/24\"]"),
        );
        let config = parse(&text, &Environment::default()).unwrap();
        let tunnel = super::super::tunnel(&config, &Site::default(), &super::super::SeenReturnRoutes::new());
        let limits = FlowLimits::new(&config, &Site::default(), tunnel.as_ref()).unwrap();
        let nets = |texts: &[&str]| -> Vec<Ipv4Net> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        assert_eq!(
            limits.sites,
            [nets(&["10.100.0.3/32", "192.168.0.0/24", "192.168.2.0/23"]), nets(&["192.168.1.0/24"])]
        );
        assert!(limits_sites(&config, tunnel.as_ref()));
        let people: Vec<&str> = text.split("[[wireguard.peer]]").take(2).collect();
        let config = parse(&people.join("[[wireguard.peer]]"), &Environment::default()).unwrap();
        let tunnel = super::super::tunnel(&config, &Site::default(), &super::super::SeenReturnRoutes::new());
        assert!(!limits_sites(&config, tunnel.as_ref()));
    }

    #[test]
    fn a_mark_says_for_how_many_flows_one_stands_whatever_its_other_bits_are() {
        for limit in [Some(1), Some(600), Some(4096)] {
            let sample = Sample::for_limit(limit);
            assert_eq!(Sample::from_mark(sample.mark() | 0xe3ff_ffff), Some(sample));
        }
        assert_eq!(Sample::from_mark(0xe3ff_ffff), None);
    }
}
