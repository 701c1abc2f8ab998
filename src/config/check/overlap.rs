//! Forwards that lead one port two ways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::super::findings::Findings;
use super::super::{Ports, Transport};
use super::forwards::CheckedForward;

/// Ports of one address, or of every one (`None`), each taken by the forward of a number. No two of one address and transport
/// overlap: who comes second is told and left out.
#[derive(Default)]
struct Taken(BTreeMap<(Transport, Option<Ipv4Addr>, u16), (u16, usize)>);

impl Taken {
    /// Whose port is among these.
    fn by(&self, transport: Transport, address: Option<Ipv4Addr>, ports: Ports) -> Option<usize> {
        // What is taken does not overlap, so what begins last reaches furthest.
        let up_to = self.0.range((transport, address, 0)..=(transport, address, ports.last));
        let (_, &(last, owner)) = up_to.last()?;
        (last >= ports.first).then_some(owner)
    }

    fn take(&mut self, transport: Transport, address: Option<Ipv4Addr>, ports: Ports, owner: usize) {
        self.0.insert((transport, address, ports.first), (ports.last, owner));
    }
}

/// Reports each forward that has a port in common with another one, whoever may use it: an address and a port are looked up
/// before the source is. The cost is that of sorting.
pub(super) fn report(forwards: &[CheckedForward], found: &mut Findings) {
    let mut taken = Taken::default();
    let mut pairs = BTreeSet::new();
    // First those of every address, as they stand in the way of all others.
    for of_every_address in [true, false] {
        for (index, forward) in forwards.iter().enumerate() {
            let CheckedForward { public: Some(public), transports: Some(transports), ports: Some(ports), .. } = forward
            else {
                continue;
            };
            if public.is_empty() != of_every_address {
                continue;
            }
            for &transport in transports.each() {
                let mut pair = |other: usize| pairs.insert((index.max(other), index.min(other), transport));
                let by_every = taken.by(transport, None, *ports);
                by_every.map(&mut pair);
                if of_every_address && by_every.is_none() {
                    taken.take(transport, None, *ports, index);
                }
                for &(_, address) in public {
                    match taken.by(transport, Some(address), *ports) {
                        Some(other) => _ = pair(other),
                        None => taken.take(transport, Some(address), *ports, index),
                    }
                }
            }
        }
    }
    for (later, earlier, transport) in pairs {
        let (later, earlier) = (&forwards[later], &forwards[earlier]);
        let Some((ports, others)) = later.ports.zip(earlier.ports) else { continue };
        let reason = format!("{ports}/{transport} overlaps {others} of {}: a port leads to one host", earlier.key);
        found.report(format!("{}.port", later.key), reason);
    }
}
