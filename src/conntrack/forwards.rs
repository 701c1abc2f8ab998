//! The targets of port forwards, looked up instead of walked: there may be ten thousand.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::lookup::AddressSet;
use super::model::Tuple;
use super::policy::{Forward, Policy};
use crate::config::Ports;

/// The forwards of a policy that lead to a network that is served.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    /// Forwards of one port, by address, protocol and port.
    single: HashMap<(Ipv4Addr, u8, u16), Vec<Target>>,
    /// Forwards of several ports, and of protocols without ports, by address and protocol, in the order of their first
    /// ports.
    ranges: HashMap<(Ipv4Addr, u8), Vec<RangeForward>>,
    /// The sources that may use each forward, by its index in the policy; `None`: all sources.
    from: Vec<Option<AddressSet>>,
}

/// Where a forward leads.
#[derive(Debug, Clone, Copy)]
struct Target {
    host: Ipv4Addr,
    /// `None`: the same port as outside, if the protocol has ports.
    port: Option<u16>,
    has_ports: bool,
    /// The index of the forward in the policy.
    forward: usize,
}

/// A forward of more than one port.
#[derive(Debug, Clone, Copy)]
struct RangeForward {
    ports: Ports,
    target: Target,
    /// The highest port of this forward and of all before it in the list.
    highest_port: u16,
}

impl Forwards {
    pub(super) fn new(policy: &Policy) -> Self {
        let sources = |forward: &Forward| (!forward.from.is_empty()).then(|| AddressSet::from_ranges(&forward.from));
        let mut forwards = Self { from: policy.forwards.iter().map(sources).collect(), ..Self::default() };
        let is_static = |address: &Ipv4Addr| policy.statics.iter().any(|entry| entry.public == *address);
        let shared: Vec<Ipv4Addr> = policy.public.iter().copied().filter(|address| !is_static(address)).collect();
        let served = policy.forwards.iter().enumerate().filter(|(_, forward)| policy.serves_host(forward.to));
        // A forward that names its addresses wins over one for all addresses.
        let (unnamed, named): (Vec<_>, Vec<_>) = served.partition(|(_, forward)| forward.public.is_empty());
        for (index, forward) in named.into_iter().chain(unnamed) {
            let addresses = if forward.public.is_empty() { &shared } else { &forward.public };
            for address in addresses.iter().filter(|address| forward.reserved_at != Some(**address)) {
                forwards.add(*address, index, forward);
            }
        }
        for ranges in forwards.ranges.values_mut() {
            ranges.sort_by_key(|range| range.ports.first);
            let mut highest = 0;
            for range in ranges {
                highest = range.ports.last.max(highest);
                range.highest_port = highest;
            }
        }
        forwards
    }

    fn add(&mut self, address: Ipv4Addr, index: usize, forward: &Forward) {
        let has_ports = forward.transports.without_ports().is_none();
        let target = Target { host: forward.to, port: forward.to_port, has_ports, forward: index };
        let Ports { first, last } = forward.ports;
        for protocol in forward.transports.numbers() {
            if forward.ports.is_single() {
                self.single.entry((address, protocol, first)).or_default().push(target);
            } else {
                let range = RangeForward { ports: forward.ports, target, highest_port: last };
                self.ranges.entry((address, protocol)).or_default().push(range);
            }
        }
    }

    /// The host to which a flow with this first packet is forwarded, and the port if the protocol has ports.
    pub(super) fn target(&self, first: &Tuple) -> Option<(Ipv4Addr, Option<u16>)> {
        self.find(first).map(|(_, host, port)| (host, port))
    }

    /// The forward of a flow with this first packet, by its index in the policy, with the host, and the port if the
    /// protocol has ports.
    pub(super) fn find(&self, first: &Tuple) -> Option<(usize, Ipv4Addr, Option<u16>)> {
        let is_allowed =
            |target: &Target| self.from[target.forward].as_ref().is_none_or(|from| from.contains(first.source));
        let target = self.targets(first).find(is_allowed)?;
        let port = || target.port.or_else(|| first.destination_port());
        Some((target.forward, target.host, target.has_ports.then(port).flatten()))
    }

    /// Whether there is a forward of the destination and port, for this source or for others.
    pub(super) fn has_forward(&self, first: &Tuple) -> bool {
        self.targets(first).next().is_some()
    }

    fn targets(&self, first: &Tuple) -> impl Iterator<Item = Target> + '_ {
        // Connection tracking has numbers in the place of ports for some protocols that we treat as having none (the
        // keys of GRE): their forwards are for all of them.
        let port = first.destination_port().unwrap_or_default();
        let single = self.single.get(&(first.destination, first.protocol, port)).into_iter().flatten();
        let ranges = self.ranges.get(&(first.destination, first.protocol)).map_or(&[][..], Vec::as_slice);
        let candidates = &ranges[..ranges.partition_point(|range| range.ports.first <= port)];
        let ranges = candidates.iter().rev().take_while(move |range| range.highest_port >= port);
        single.copied().chain(ranges.filter(move |range| range.ports.last >= port).map(|range| range.target))
    }
}
