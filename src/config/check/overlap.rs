//! Finds forwards that claim the same port of the same public address, or the same protocol without ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::config::protocol::{Named, Ports};

/// Ports that a forward claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    /// The forward's position in the file.
    pub(super) forward: usize,
    /// Its public addresses, each with its index in the list; empty: every address.
    pub(super) public: &'a [(usize, Ipv4Addr)],
    pub(super) protocol: Named,
    pub(super) ports: Ports,
}

/// Two forwards that claim the same port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Overlap {
    pub(super) later: usize,
    pub(super) earlier: usize,
    pub(super) protocol: Named,
}

/// Disjoint ranges of ports, each with the forward that owns it. `Scope` is what the ports belong to.
struct Owners<Scope>(BTreeMap<(Scope, u16), (u16, usize)>);

impl<Scope: Copy + Ord> Owners<Scope> {
    /// The owner of a port among `ports`, and the first port of its range.
    fn find(&self, scope: Scope, ports: Ports) -> Option<(usize, u16)> {
        // The ranges are disjoint, so the one that begins last also ends last.
        let (&(same, first), &(last, owner)) = self.0.range(..=(scope, ports.last)).next_back()?;
        (same == scope && last >= ports.first).then_some((owner, first))
    }

    fn insert(&mut self, scope: Scope, ports: Ports, owner: usize) {
        self.0.insert((scope, ports.first), (ports.last, owner));
    }
}

/// Each forward that claims a port of an earlier forward. Their sources do not matter, because an address and a port
/// are looked up before the source is. Takes O(n log n).
pub(super) fn find_overlaps<'a, I: Iterator<Item = Claim<'a>>>(claims: impl Fn() -> I) -> BTreeSet<Overlap> {
    let mut overlaps = BTreeSet::new();
    let mut add = |one: usize, other: usize, protocol| {
        overlaps.insert(Overlap { later: one.max(other), earlier: one.min(other), protocol });
    };
    let mut of_all_addresses = Owners::<Named>(BTreeMap::new());
    for Claim { forward, protocol, ports, .. } in claims().filter(|claim| claim.public.is_empty()) {
        match of_all_addresses.find(protocol, ports) {
            Some((earlier, _)) => add(forward, earlier, protocol),
            None => of_all_addresses.insert(protocol, ports, forward),
        }
    }
    let mut of_one_address = Owners::<(Named, Ipv4Addr)>(BTreeMap::new());
    for Claim { forward, public, protocol, ports } in claims().filter(|claim| !claim.public.is_empty()) {
        for &(_, address) in public {
            match of_one_address.find((protocol, address), ports) {
                Some((earlier, _)) => add(forward, earlier, protocol),
                None => of_one_address.insert((protocol, address), ports, forward),
            }
        }
        while let Some((other, first)) = of_all_addresses.find(protocol, ports) {
            add(forward, other, protocol);
            if other < forward {
                break;
            }
            // The other forward is the later one. It is reported, and more like it may follow.
            of_all_addresses.0.remove(&(protocol, first));
        }
    }
    overlaps
}
