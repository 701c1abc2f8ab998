//! How many flows each source has. Pure.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::inputs::Sample;

/// How many sources are counted by themselves: some 8 MB. The flows of further ones are counted together.
const MAX_SOURCES: usize = 262_144;

/// Who opens flows: one address, or one /64 of IPv6, as the rules tell sources apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Source {
    V4(Ipv4Addr),
    /// The first 64 bits.
    V6(u64),
}

impl Source {
    /// Its address, or the first one of its /64.
    pub(super) fn address(self) -> IpAddr {
        match self {
            Self::V4(address) => address.into(),
            Self::V6(prefix) => Ipv6Addr::from_bits(u128::from(prefix) << 64).into(),
        }
    }
}

/// What happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// It was born, or it is in the listing.
    Lives,
    Ended,
}

/// A flow as far as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowEvent {
    pub happened: Happened,
    /// Who opened it.
    pub source: Source,
    pub mark: u32,
    /// The kernel's number of the entry.
    pub id: u32,
}

/// The counted flows by source.
#[derive(Debug, Default)]
pub(super) struct Counts {
    flows: HashMap<Source, u32>,
    /// Flows of sources that are not counted by themselves.
    others: u64,
    /// While events are applied that may be older than a listing: the counted flows that live.
    listed: Option<HashSet<u32>>,
}

impl Counts {
    /// Counts for a listing, to which flows are added by [`Counts::apply`].
    pub(super) fn for_listing() -> Self {
        Self { listed: Some(HashSet::new()), ..Self::default() }
    }

    /// Takes a flow in or out. With a listing, events may come that are older than it: those change nothing twice.
    pub(super) fn apply(&mut self, event: FlowEvent) {
        let Some(sample) = Sample::from_mark(event.mark) else { return };
        let changes = match (event.happened, &mut self.listed) {
            (_, None) => true,
            (Happened::Lives, Some(listed)) => listed.insert(event.id),
            (Happened::Ended, Some(listed)) => listed.remove(&event.id),
        };
        match event.happened {
            _ if !changes => {}
            Happened::Lives => self.add(event.source, sample.weight()),
            Happened::Ended => self.subtract(event.source, sample.weight()),
        }
    }

    /// All events that are older than the listing were applied.
    pub(super) fn end_listing(&mut self) {
        self.listed = None;
    }

    fn add(&mut self, source: Source, weight: u32) {
        if let Some(flows) = self.flows.get_mut(&source) {
            *flows = flows.saturating_add(weight);
        } else if self.flows.len() < MAX_SOURCES {
            self.flows.insert(source, weight);
        } else {
            self.others += u64::from(weight);
        }
    }

    fn subtract(&mut self, source: Source, weight: u32) {
        match self.flows.get_mut(&source) {
            Some(flows) if *flows > weight => *flows -= weight,
            Some(_) => _ = self.flows.remove(&source),
            None => self.others = self.others.saturating_sub(u64::from(weight)),
        }
    }

    /// Each source with the number of its flows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Source, u32)> + '_ {
        self.flows.iter().map(|(source, flows)| (*source, *flows))
    }

    /// How many sources have flows.
    pub(super) fn sources(&self) -> usize {
        self.flows.len()
    }

    /// Flows of sources that are not counted by themselves.
    pub(super) fn others(&self) -> u64 {
        self.others
    }

    /// The sources with the most flows, the busiest first.
    pub(super) fn busiest(&self, most: usize) -> Vec<(Source, u32)> {
        let mut all: Vec<(Source, u32)> = self.iter().collect();
        let order = |(source, flows): &(Source, u32)| (std::cmp::Reverse(*flows), *source);
        if all.len() > most {
            all.select_nth_unstable_by_key(most, order);
            all.truncate(most);
        }
        all.sort_unstable_by_key(order);
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(happened: Happened, host: u8, id: u32) -> FlowEvent {
        let mark = Sample::for_limit(Some(1)).mark();
        FlowEvent { happened, source: Source::V4(Ipv4Addr::new(10, 0, 0, host)), mark, id }
    }

    #[test]
    fn a_flow_without_a_mark_is_not_counted_and_one_with_a_mark_stands_for_as_many_as_it_says() {
        let mut counts = Counts::default();
        let sample = Sample::for_limit(Some(4096));
        counts.apply(FlowEvent { mark: 0, ..event(Happened::Lives, 4, 1) });
        counts.apply(FlowEvent { mark: sample.mark() | 1, ..event(Happened::Lives, 5, 2) });
        assert_eq!(counts.busiest(9), [(Source::V4(Ipv4Addr::new(10, 0, 0, 5)), 16)]);
        counts.apply(FlowEvent { mark: sample.mark(), ..event(Happened::Ended, 5, 2) });
        assert_eq!(counts.sources(), 0);
    }

    proptest! {
        /// Flows are born and end while the table is listed. The listing shows some of those that lived for only a part
        /// of it; the events of all come in order.
        #[test]
        fn a_listing_and_the_events_beside_it_count_each_living_flow_once(
            flows in prop::collection::vec((0_u8..4, any::<bool>(), any::<bool>(), any::<bool>()), 0..40),
        ) {
            let mut counts = Counts::for_listing();
            let mut expected = [0_u32; 4];
            let mut events = Vec::new();
            for (id, (host, is_old, ends, is_listed)) in (0_u32..).zip(flows) {
                // An old flow was born before the listener; it is listed unless it ended before the listing met it.
                if is_listed || (is_old && !ends) {
                    counts.apply(event(Happened::Lives, host, id));
                }
                if !is_old {
                    events.push(event(Happened::Lives, host, id));
                }
                if ends {
                    events.push(event(Happened::Ended, host, id));
                } else {
                    expected[usize::from(host)] += 1;
                }
            }
            for event in events {
                counts.apply(event);
            }
            counts.end_listing();
            for (host, flows) in (0_u8..).zip(expected) {
                let source = Source::V4(Ipv4Addr::new(10, 0, 0, host));
                prop_assert_eq!(counts.iter().find(|(other, _)| *other == source).map_or(0, |(_, flows)| flows), flows);
            }
        }
    }
}
