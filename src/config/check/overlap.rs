//! Forwards that lead one port two ways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::super::findings::Findings;
use super::super::{Ports, Transport};
use super::forwards::CheckedForward;

/// The ports of something, each taken by the forward of a number. No two overlap: who comes second is told and left out.
struct Taken<Of>(BTreeMap<(Of, u16), (u16, usize)>);

impl<Of: Copy + Ord> Taken<Of> {
    /// Whose port is among these, and where it begins.
    fn by(&self, of: Of, ports: Ports) -> Option<(usize, u16)> {
        // Since none overlap, the one that begins last reaches furthest.
        let (&(same, first), &(last, owner)) = self.0.range(..=(of, ports.last)).next_back()?;
        (same == of && last >= ports.first).then_some((owner, first))
    }

    fn take(&mut self, of: Of, ports: Ports, owner: usize) {
        self.0.insert((of, ports.first), (ports.last, owner));
    }
}

/// Reports each forward that has a port in common with an earlier one, whoever may use it: an address and a port are looked up
/// before the source is. The cost is that of sorting.
pub(super) fn report(forwards: &[CheckedForward], found: &mut Findings) {
    let mut pairs = BTreeSet::new();
    let mut of_every = Taken::<Transport>(BTreeMap::new());
    for (index, _, transport, ports) in claims(forwards).filter(|(_, public, ..)| public.is_empty()) {
        match of_every.by(transport, ports) {
            Some((earlier, _)) => _ = pairs.insert((index, earlier, transport)),
            None => of_every.take(transport, ports, index),
        }
    }
    let mut of_one = Taken::<(Transport, Ipv4Addr)>(BTreeMap::new());
    for (index, public, transport, ports) in claims(forwards).filter(|(_, public, ..)| !public.is_empty()) {
        for &(_, address) in public {
            match of_one.by((transport, address), ports) {
                Some((earlier, _)) => _ = pairs.insert((index, earlier, transport)),
                None => of_one.take((transport, address), ports, index),
            }
        }
        while let Some((other, first)) = of_every.by(transport, ports) {
            pairs.insert((index.max(other), index.min(other), transport));
            if other < index {
                break;
            }
            // It is the second, and there may be more like it.
            of_every.0.remove(&(transport, first));
        }
    }
    for (later, earlier, transport) in pairs {
        let (later, earlier) = (&forwards[later], &forwards[earlier]);
        let Some((ports, others)) = later.ports.zip(earlier.ports) else { continue };
        let reason = format!("{ports}/{transport} overlaps {others} of {}: a port leads to one host", earlier.key);
        found.report(format!("{}.port", later.key), reason);
    }
}

type Claim<'a> = (usize, &'a [(usize, Ipv4Addr)], Transport, Ports);

/// What each forward takes, as far as it is known.
fn claims(forwards: &[CheckedForward]) -> impl Iterator<Item = Claim<'_>> {
    let known = forwards.iter().enumerate().filter_map(|(index, forward)| {
        let (public, ports) = (forward.public.as_deref()?, forward.ports?);
        Some(forward.transports?.each().iter().map(move |&transport| (index, public, transport, ports)))
    });
    known.flatten()
}
