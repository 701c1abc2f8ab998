//! Forwards that lead one port two ways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::super::findings::Findings;
use super::super::{Ports, Transport};
use super::forwards::CheckedForward;

/// The ports of something, each taken by the forward of a number. No two overlap: who comes second is told and left out.
struct Taken<Of>(BTreeMap<(Of, u16), (u16, usize)>);

impl<Of: Copy + Ord> Taken<Of> {
    /// Whose port is among these.
    fn by(&self, of: Of, ports: Ports) -> Option<usize> {
        // Since none overlap, the one that begins last reaches furthest.
        let (&(same, _), &(last, owner)) = self.0.range(..=(of, ports.last)).next_back()?;
        (same == of && last >= ports.first).then_some(owner)
    }

    fn take(&mut self, of: Of, ports: Ports, owner: usize) {
        self.0.insert((of, ports.first), (ports.last, owner));
    }
}

/// Reports each forward that has a port in common with another one, whoever may use it: an address and a port are looked up
/// before the source is. The cost is that of sorting.
pub(super) fn report(forwards: &[CheckedForward], found: &mut Findings) {
    let (mut of_every, mut of_one) =
        (Taken::<Transport>(BTreeMap::new()), Taken::<(Transport, Ipv4Addr)>(BTreeMap::new()));
    let mut pairs = BTreeSet::new();
    // First those of every address, as they stand in the way of all others.
    for is_first in [true, false] {
        for (index, forward) in forwards.iter().enumerate() {
            let CheckedForward { public: Some(public), transports: Some(transports), ports: Some(ports), .. } = forward
            else {
                continue;
            };
            if public.is_empty() != is_first {
                continue;
            }
            for &transport in transports.each() {
                let mut pair = |other: usize| _ = pairs.insert((index.max(other), index.min(other), transport));
                match of_every.by(transport, *ports) {
                    Some(other) => pair(other),
                    None if is_first => of_every.take(transport, *ports, index),
                    None => {}
                }
                for &(_, address) in public {
                    match of_one.by((transport, address), *ports) {
                        Some(other) => pair(other),
                        None => of_one.take((transport, address), *ports, index),
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
