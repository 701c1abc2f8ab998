//! Who may open no more flows. Pure.
//!
//! A source has a limit of its own. While the table is more than half full, every source also has its fair share of
//! what is left of three quarters of it: the level up to which all sources that have less could rise together. So a
//! source with many flows is stopped first, and one with few always opens more. A peer with networks behind it has one
//! share for all of its addresses, since it can use as many as it likes. The last quarter of the table stays for what
//! no limit concerns: SSH to this server, the tunnel's handshakes and this server's own connections.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;
use serde::{Deserialize, Serialize};

use super::counts::{Counts, Source};
use crate::inputs::FlowLimits;
use crate::net::InterfaceName;

/// Of the table: from here on shares fall.
const HALF: (u64, u64) = (1, 2);
/// Of the table: what the shares add up to. With what sources below [`SMALLEST_SHARES`] take it is three quarters.
const SHARED: (u64, u64) = (11, 16);
/// Of the table: here the link with the most flows is closed for new ones.
const FULL: (u64, u64) = (3, 4);
/// Of the table: what all sources have together that each may always have.
const SMALLEST_SHARES: (u64, u64) = (1, 16);
/// For so many sources that have no flow yet there is always a share.
const NEWCOMERS: u64 = 64;
/// A limited source may open flows again when it has an eighth less than its limit.
const HYSTERESIS: u32 = 8;
/// The sets hold this many elements; of more sources, those with the most flows are in them.
pub(super) const MAX_LIMITED: usize = 65_000;

/// How full the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    pub entries: u64,
    pub max: u64,
}

impl Fill {
    /// A part of the table.
    fn part(self, (numerator, denominator): (u64, u64)) -> u64 {
        self.max / denominator * numerator
    }
}

/// Why a source may open no more flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitReason {
    /// It has as many as its limit says.
    Limit,
    /// The table fills, and it has its fair share.
    Share,
}

/// Who may open no more flows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub limited: BTreeMap<Source, LimitReason>,
    /// The ranges of peers whose addresses together have their share.
    pub ranges: BTreeSet<Ipv4Net>,
    /// The links from which no flows are let in.
    pub closed: BTreeSet<InterfaceName>,
    /// The fair share, while there is one.
    pub share: Option<u32>,
}

impl Decision {
    /// Whether the sets are the same by both.
    pub(super) fn same_sets(&self, other: &Self) -> bool {
        self.limited.keys().eq(other.limited.keys()) && self.ranges == other.ranges && self.closed == other.closed
    }

    /// Whether nobody is limited.
    pub(super) fn sets_are_empty(&self) -> bool {
        self.limited.is_empty() && self.ranges.is_empty() && self.closed.is_empty()
    }
}

/// The limits, with what decisions look up.
#[derive(Debug)]
pub(super) struct Limits {
    wanted: FlowLimits,
    /// Indices into `wanted.links`.
    link_by_range: PrefixMap<Ipv4Net, usize>,
    /// Indices into `wanted.sites`.
    site_by_range: PrefixMap<Ipv4Net, usize>,
}

impl Limits {
    pub(super) fn new(limits: FlowLimits) -> Self {
        let ranges = limits.links.iter().enumerate();
        let ranges = ranges.flat_map(|(index, (_, ranges))| ranges.iter().map(move |range| (range.trunc(), index)));
        let sites = limits.sites.iter().enumerate();
        let sites = sites.flat_map(|(index, ranges)| ranges.iter().map(move |range| (*range, index)));
        Self { link_by_range: ranges.collect(), site_by_range: sites.collect(), wanted: limits }
    }

    /// The peer with networks that has a source.
    fn site(&self, source: Source) -> Option<usize> {
        let Source::V4(address) = source else { return None };
        self.site_by_range.get_lpm(&Ipv4Net::from(address)).map(|(_, index)| *index)
    }

    /// The private link or tunnel that leads to a source; `None`: it is outside.
    fn inside_link(&self, source: Source) -> Option<usize> {
        let Source::V4(address) = source else { return None };
        self.link_by_range.get_lpm(&Ipv4Net::from(address)).map(|(_, index)| *index)
    }

    /// Decides, given the decision before.
    pub(super) fn decide(&self, counts: &Counts, fill: Fill, before: &Decision) -> Decision {
        let sharing = self.is_shared(fill).then(|| self.sharing(counts));
        let share = sharing.as_ref().map(|sharing| sharing.share(fill));
        let mut limited: Vec<(Source, u32, LimitReason)> = Vec::new();
        let reaches = |flows: u32, limit: u32, was_limited: bool| {
            let lower = limit - limit / HYSTERESIS;
            flows >= if was_limited { lower.max(1) } else { limit }
        };
        for (source, flows) in counts.iter() {
            let own = if self.inside_link(source).is_some() { self.wanted.inside } else { self.wanted.outside };
            let was_limited = before.limited.contains_key(&source);
            if own.is_some_and(|limit| reaches(flows, limit, was_limited)) {
                limited.push((source, flows, LimitReason::Limit));
            } else if share.is_some_and(|share| reaches(flows, share, was_limited)) && self.site(source).is_none() {
                limited.push((source, flows, LimitReason::Share));
            }
        }
        let mut ranges = BTreeSet::new();
        for (index, flows) in sharing.iter().flat_map(|sharing| &sharing.sites) {
            let of_site = self.wanted.sites.get(*index).map_or(&[][..], Vec::as_slice);
            let was_limited = of_site.iter().any(|range| before.ranges.contains(range));
            if share.is_some_and(|share| reaches(*flows, share, was_limited)) {
                ranges.extend(of_site);
            }
        }
        if limited.len() > MAX_LIMITED {
            limited.sort_unstable_by_key(|(source, flows, _)| (std::cmp::Reverse(*flows), *source));
            limited.truncate(MAX_LIMITED);
        }
        let limited = limited.into_iter().map(|(source, _, reason)| (source, reason)).collect();
        Decision { limited, ranges, closed: self.closed_links(counts, fill, before), share }
    }

    /// Whether the table is so full that it is shared.
    fn is_shared(&self, fill: Fill) -> bool {
        self.wanted.fair_share && fill.entries > fill.part(HALF)
    }

    /// Who shares the table.
    fn sharing(&self, counts: &Counts) -> Sharing {
        let mut sharing = Sharing::default();
        for (source, flows) in counts.iter() {
            match self.site(source) {
                Some(site) => {
                    let of_site = sharing.sites.entry(site).or_default();
                    *of_site = of_site.saturating_add(flows);
                }
                None => sharing.alone.push(flows),
            }
        }
        sharing
    }

    /// The last resort, when so many sources have flows that limiting each of them does not help: no more flows come in
    /// by the link that has the most.
    fn closed_links(&self, counts: &Counts, fill: Fill, before: &Decision) -> BTreeSet<InterfaceName> {
        let is_closed = !before.closed.is_empty();
        let from = if is_closed { SHARED } else { FULL };
        if !self.wanted.fair_share || fill.max == 0 || fill.entries < fill.part(from) {
            return BTreeSet::new();
        }
        if is_closed && fill.entries < fill.part(FULL) {
            return before.closed.clone();
        }
        let mut flows: HashMap<Option<usize>, u64> = HashMap::new();
        for (source, count) in counts.iter() {
            *flows.entry(self.inside_link(source)).or_default() += u64::from(count);
        }
        *flows.entry(None).or_default() += counts.others();
        let busiest = flows.into_iter().max_by_key(|(link, flows)| (*flows, *link)).map(|(link, _)| link);
        let name = busiest.and_then(|link| match link {
            Some(index) => self.wanted.links.get(index).map(|(name, _)| name),
            None => self.wanted.public.as_ref(),
        });
        // A link that is closed already does not help any more, so the next one is closed too.
        before.closed.iter().chain(name).cloned().collect()
    }
}

/// The flows of those who share the table.
#[derive(Debug, Default)]
struct Sharing {
    /// Of single sources.
    alone: Vec<u32>,
    /// Of peers with networks: their number, and the flows of all of their addresses.
    sites: HashMap<usize, u32>,
}

impl Sharing {
    /// The fair share of each of them.
    fn share(&self, fill: Fill) -> u32 {
        let room = fill.part(SHARED).saturating_sub(fill.entries);
        let mut flows: Vec<u32> = self.alone.iter().chain(self.sites.values()).copied().collect();
        let sharers = u64::try_from(flows.len()).unwrap_or(u64::MAX).saturating_add(NEWCOMERS);
        let smallest = (fill.part(SMALLEST_SHARES) / sharers).max(1);
        let level = water_level(&mut flows, NEWCOMERS, room);
        u32::try_from(level.max(smallest)).unwrap_or(u32::MAX)
    }
}

/// The level to which all `flows` below it, and as many `newcomers` without any, can rise by `room` together.
fn water_level(flows: &mut [u32], newcomers: u64, room: u64) -> u64 {
    flows.sort_unstable();
    let (mut below, mut used) = (newcomers, 0_u64);
    let mut level = 0;
    for &flows in flows.iter() {
        let flows = u64::from(flows);
        let needed = (flows - level).saturating_mul(below);
        if used.saturating_add(needed) > room {
            break;
        }
        used += needed;
        level = flows;
        below += 1;
    }
    level + (room - used) / below.max(1)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::counts::{FlowEvent, Happened};
    use super::*;
    use crate::inputs::Sample;

    const MAX: u64 = 16_000;

    fn source(host: u8) -> Source {
        Source::V4(Ipv4Addr::new(10, 0, 0, host))
    }

    fn counts(of: &[(u8, u32)]) -> Counts {
        let mut counts = Counts::default();
        let mark = Sample::for_limit(Some(1)).mark();
        for &(host, flows) in of {
            let event = FlowEvent { happened: Happened::Lives, source: source(host), mark, id: 0 };
            for _ in 0..flows {
                counts.apply(event);
            }
        }
        counts
    }

    fn limits(inside: Option<u32>) -> Limits {
        let links = vec![("eth1".parse().unwrap(), vec!["10.0.0.0/16".parse().unwrap()])];
        let public = Some("eth0".parse().unwrap());
        Limits::new(FlowLimits { inside, outside: Some(50), fair_share: true, links, sites: Vec::new(), public })
    }

    fn decide(limits: &Limits, of: &[(u8, u32)], entries: u64, before: &Decision) -> Decision {
        limits.decide(&counts(of), Fill { entries, max: MAX }, before)
    }

    #[test]
    fn a_source_is_limited_from_its_limit_on_until_it_has_an_eighth_less() {
        let limits = limits(Some(100));
        let none = Decision::default();
        assert_eq!(decide(&limits, &[(4, 99)], 99, &none), none);
        let limited = Decision { limited: [(source(4), LimitReason::Limit)].into(), ..Decision::default() };
        assert_eq!(decide(&limits, &[(4, 100), (5, 3)], 103, &none), limited);
        assert_eq!(decide(&limits, &[(4, 88), (5, 3)], 91, &limited), limited);
        assert_eq!(decide(&limits, &[(4, 87), (5, 3)], 90, &limited), none);
    }

    #[test]
    fn a_limit_of_one_flow_is_over_when_that_flow_ends() {
        let limits = limits(Some(1));
        let limited = Decision { limited: [(source(4), LimitReason::Limit)].into(), ..Decision::default() };
        assert_eq!(decide(&limits, &[(4, 1)], 1, &limited), limited);
        assert_eq!(decide(&limits, &[], 0, &limited), Decision::default());
    }

    #[test]
    fn sources_outside_have_a_limit_of_their_own() {
        let limits = limits(None);
        let outside = Source::V4(Ipv4Addr::new(203, 0, 113, 9));
        let mark = Sample::for_limit(Some(1)).mark();
        let mut counts = counts(&[(4, 60)]);
        for id in 0..50 {
            counts.apply(FlowEvent { happened: Happened::Lives, source: outside, mark, id });
        }
        let decision = limits.decide(&counts, Fill { entries: 110, max: MAX }, &Decision::default());
        assert_eq!(decision.limited, [(outside, LimitReason::Limit)].into());
    }

    #[test]
    fn in_a_table_that_fills_the_busiest_are_stopped_and_others_go_on() {
        let limits = limits(None);
        // 11000 of 16000 flows are shared; 1400 are left for three hosts, one of which has nothing yet, and newcomers.
        let busy = [(4, 9000), (5, 600), (6, 0)];
        let decision = decide(&limits, &busy, 9600, &Decision::default());
        assert_eq!(decision.limited, [(source(4), LimitReason::Share), (source(5), LimitReason::Share)].into());
        assert_eq!(decision.share, Some(21));
        assert_eq!(decide(&limits, &busy, 8000, &Decision::default()), Decision::default());
    }

    #[test]
    fn the_addresses_of_a_peer_with_networks_have_one_share_together() {
        let site: Vec<Ipv4Net> = vec!["10.0.0.64/26".parse().unwrap(), "10.0.0.200/32".parse().unwrap()];
        let links = vec![("wg0".parse().unwrap(), vec!["10.0.0.0/16".parse().unwrap()])];
        let limits = FlowLimits {
            inside: None,
            outside: None,
            fair_share: true,
            links,
            sites: vec![site.clone()],
            public: None,
        };
        let limits = Limits::new(limits);
        // Sixty addresses of the site have 150 flows each, and a person next to it has 20.
        let mut of: Vec<(u8, u32)> = (64..124).map(|host| (host, 150)).collect();
        of.push((4, 20));
        let decision = decide(&limits, &of, 9100, &Decision::default());
        assert_eq!((&decision.limited, decision.share), (&BTreeMap::new(), Some(29)));
        assert_eq!(decision.ranges, site.iter().copied().collect());
        // The person may have as many as the site.
        of.push((4, 10));
        let decision = decide(&limits, &of, 9110, &decision);
        assert_eq!(decision.limited, [(source(4), LimitReason::Share)].into());
        let rest = decide(&limits, &[(64, 24), (4, 20)], 9000, &decision);
        assert_eq!(rest.ranges, BTreeSet::new());
        assert!(decide(&limits, &of, 8000, &decision).sets_are_empty());
    }

    #[test]
    fn a_site_with_thousands_of_addresses_leaves_others_as_many_flows_as_without_it() {
        let range: Ipv4Net = "10.64.0.0/18".parse().unwrap();
        let mark = Sample::for_limit(Some(1)).mark();
        let mut counts = Counts::default();
        for address in range.hosts() {
            let event = FlowEvent { happened: Happened::Lives, source: Source::V4(address), mark, id: 0 };
            (0..8).for_each(|_| counts.apply(event));
        }
        let fill = Fill { entries: 131_100, max: 262_144 };
        let share = |sites| {
            let links = vec![("wg0".parse().unwrap(), vec![range])];
            let (inside, outside) = (None, None);
            let limits = FlowLimits { inside, outside, fair_share: true, links, sites, public: None };
            let decision = Limits::new(limits).decide(&counts, fill, &Decision::default());
            (decision.share.unwrap(), decision.ranges.len())
        };
        assert_eq!(share(Vec::new()), (10, 0));
        assert_eq!(share(vec![vec![range]]), (767, 1));
    }

    #[test]
    fn a_table_that_many_sources_fill_is_closed_for_the_link_with_the_most() {
        let limits = limits(None);
        let none = Decision::default();
        let closed: BTreeSet<InterfaceName> = ["eth1".parse().unwrap()].into();
        assert_eq!(decide(&limits, &[(4, 7)], 11_999, &none).closed, BTreeSet::new());
        let full = decide(&limits, &[(4, 7)], 12_000, &none);
        assert_eq!(full.closed, closed);
        assert_eq!(decide(&limits, &[(4, 7)], 11_000, &full).closed, closed);
        assert_eq!(decide(&limits, &[(4, 7)], 10_999, &full).closed, BTreeSet::new());
    }

    proptest! {
        /// If all sources rise to the level, they take no more than there is room, and one more each would be too much.
        #[test]
        fn the_level_uses_the_room_up_and_no_more(
            mut flows in prop::collection::vec(0_u32..5000, 0..50), newcomers in 1_u64..100, room in 0_u64..100_000,
        ) {
            let level = water_level(&mut flows, newcomers, room);
            let rise = |level: u64| {
                let known: u64 = flows.iter().map(|flows| level.saturating_sub(u64::from(*flows))).sum();
                known + level * newcomers
            };
            prop_assert!(rise(level) <= room);
            prop_assert!(rise(level + 1) > room);
        }
    }
}
