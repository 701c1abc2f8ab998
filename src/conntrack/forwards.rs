//! Where port forwards lead, looked up: there may be ten thousand.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::lookup::Ranges;
use super::model::Tuple;
use super::policy::{Forward, Policy};
use crate::config::Ports;

/// The forwards of a policy that lead to a network that is served.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    /// Those of one port, by address, protocol and port.
    single: HashMap<(Ipv4Addr, u8, u16), Vec<Target>>,
    /// Those of more, by address and protocol.
    ranges: HashMap<(Ipv4Addr, u8), Vec<Range>>,
    /// Who may use each forward, by its place in the policy; `None`: everybody.
    from: Vec<Option<Ranges>>,
}

/// Where a forward leads.
#[derive(Debug, Clone, Copy)]
struct Target {
    host: Ipv4Addr,
    /// `None`: the same port as outside.
    port: Option<u16>,
    /// The forward's place in the policy.
    forward: usize,
}

/// A forward of more than one port, in the order of their first ones.
#[derive(Debug, Clone, Copy)]
struct Range {
    ports: Ports,
    target: Target,
    /// The highest port of this one and all before it.
    reach: u16,
}

impl Forwards {
    pub(super) fn of(policy: &Policy) -> Self {
        let some = |forward: &Forward| (!forward.from.is_empty()).then(|| Ranges::of(&forward.from));
        let mut forwards = Self { from: policy.forwards.iter().map(some).collect(), ..Self::default() };
        let is_hosts = |address: &Ipv4Addr| policy.statics.iter().any(|of| of.public == *address);
        let every: Vec<Ipv4Addr> = policy.public.iter().copied().filter(|address| !is_hosts(address)).collect();
        let served = policy.forwards.iter().enumerate().filter(|(_, forward)| policy.serves(forward.to));
        // Those for particular addresses come first.
        let (of_every, of_some): (Vec<_>, Vec<_>) = served.partition(|(_, forward)| forward.public.is_empty());
        for (at, forward) in of_some.into_iter().chain(of_every) {
            let addresses = if forward.public.is_empty() { &every } else { &forward.public };
            for address in addresses.iter().filter(|address| forward.spares != Some(**address)) {
                forwards.add(*address, at, forward);
            }
        }
        for ranges in forwards.ranges.values_mut() {
            ranges.sort_by_key(|range| range.ports.first);
            let mut reach = 0;
            for range in ranges {
                reach = range.ports.last.max(reach);
                range.reach = reach;
            }
        }
        forwards
    }

    fn add(&mut self, address: Ipv4Addr, at: usize, forward: &Forward) {
        let target = Target { host: forward.to, port: forward.to_port, forward: at };
        let Ports { first, last } = forward.ports;
        for protocol in forward.transports.each().iter().map(|transport| transport.number()) {
            if forward.ports.is_single() {
                self.single.entry((address, protocol, first)).or_default().push(target);
            } else {
                let range = Range { ports: forward.ports, target, reach: last };
                self.ranges.entry((address, protocol)).or_default().push(range);
            }
        }
    }

    /// Where a flow with this first packet is led: host and port.
    pub(super) fn target(&self, first: &Tuple) -> Option<(Ipv4Addr, u16)> {
        let outside = first.destination_port()?;
        let is_for = |target: &Target| self.from[target.forward].as_ref().is_none_or(|from| from.contain(first.source));
        let target = self.targets(first).find(is_for)?;
        Some((target.host, target.port.unwrap_or(outside)))
    }

    /// Whether there is a forward, be it for other sources.
    pub(super) fn has(&self, first: &Tuple) -> bool {
        self.targets(first).next().is_some()
    }

    fn targets(&self, first: &Tuple) -> impl Iterator<Item = Target> + '_ {
        let port = first.destination_port().unwrap_or_default();
        let single = self.single.get(&(first.destination, first.protocol, port)).into_iter().flatten();
        let ranges = self.ranges.get(&(first.destination, first.protocol)).map_or(&[][..], Vec::as_slice);
        let begun = &ranges[..ranges.partition_point(|range| range.ports.first <= port)];
        let ranges = begun.iter().rev().take_while(move |range| range.reach >= port);
        single.copied().chain(ranges.filter(move |range| range.ports.last >= port).map(|range| range.target))
    }
}
