//! Desired and observed addresses and routes in, steps out. Pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::model::{Desired, Observed, Route};

/// What is to be done, in the order in which it is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Routes of ours that are not wanted, or not as they are.
    pub remove_routes: BTreeSet<Route>,
    /// Addresses of ours that are not wanted.
    pub remove_addresses: BTreeSet<IpNet>,
    /// Addresses that are missing.
    pub add_addresses: BTreeSet<IpNet>,
    /// Destinations that are not routed into the tunnel yet.
    pub add_routes: BTreeSet<IpNet>,
    /// Wanted, and somebody else's. Reported, never touched.
    pub contested: BTreeSet<Contest>,
    /// Addresses that somebody else put on the tunnel's interface. Reported, never touched.
    pub foreign_addresses: BTreeSet<IpNet>,
}

/// A destination that somebody else routes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contest {
    /// The destination.
    pub destination: IpNet,
    /// The route in the way.
    pub by: Route,
}

impl Plan {
    /// Nothing to do, and nothing in the way.
    pub fn is_settled(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what is wanted with what is there. A destination that somebody else routes into the tunnel stays theirs: packets
/// go where they shall. One that they route elsewhere stays theirs too, whatever its metric: they had a reason.
pub fn plan(desired: Option<&Desired>, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let nothing = BTreeSet::new();
    let wanted = desired.map_or(&nothing, |desired| &desired.destinations);
    let link = observed.link.filter(|link| link.up && desired.is_some());
    let mut by_destination: BTreeMap<IpNet, Vec<Route>> = BTreeMap::new();
    for &route in &observed.routes {
        if route.is_ours() || wanted.contains(&route.destination) {
            by_destination.entry(route.destination).or_default().push(route);
        }
    }
    for (&destination, routes) in &by_destination {
        let mut standing = false;
        let stranger = routes.iter().find(|route| !route.is_ours());
        for &ours in routes.iter().filter(|route| route.is_ours()) {
            let is_right = wanted.contains(&destination)
                && ours.plain
                && link.is_some_and(|link| link.index == ours.interface)
                && stranger.is_none();
            if is_right && !standing {
                standing = true;
            } else {
                plan.remove_routes.insert(ours);
            }
        }
        match (stranger, link) {
            (Some(route), Some(link)) if route.plain && route.interface == link.index => {}
            (Some(&by), Some(_)) => {
                plan.contested.insert(Contest { destination, by });
            }
            (None, Some(_)) if !standing && wanted.contains(&destination) => {
                plan.add_routes.insert(destination);
            }
            _ => {}
        }
    }
    if link.is_some() {
        plan.add_routes.extend(wanted.iter().filter(|destination| !by_destination.contains_key(destination)));
    }
    if let Some(desired) = desired.filter(|_| observed.link.is_some()) {
        let there: BTreeSet<IpNet> = observed.addresses.iter().map(|address| address.net).collect();
        plan.add_addresses = desired.addresses.difference(&there).copied().collect();
        for address in observed.addresses.iter().filter(|address| !desired.addresses.contains(&address.net)) {
            let list = if address.ours { &mut plan.remove_addresses } else { &mut plan.foreign_addresses };
            list.insert(address.net);
        }
    }
    plan
}
