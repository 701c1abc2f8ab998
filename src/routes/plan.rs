//! Desired and observed addresses and routes in, steps out. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use super::model::{Desired, Hop, Observed, RangeBehind, Route};

/// What is to be done, and what it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is wanted; `None` without a tunnel.
    pub desired: Option<Desired>,
    /// The ranges behind private networks.
    pub behind: BTreeSet<RangeBehind>,
    /// The destinations of probes.
    pub probes: BTreeSet<RangeBehind>,
    /// How to get there.
    pub changes: Changes,
    /// Names of interfaces by index, for messages.
    pub interface_names: BTreeMap<u32, String>,
    /// The index of the tunnel's interface, once it exists.
    pub tunnel_index: Option<u32>,
}

impl Plan {
    /// The steps in the order in which they are carried out.
    pub(super) fn in_order(&self) -> impl Iterator<Item = Step> + '_ {
        let Changes { remove_routes, remove_addresses, add_addresses, add_routes, .. } = &self.changes;
        let removals = remove_routes.iter().map(|&route| Step::RemoveRoute(route));
        let removals = removals.chain(remove_addresses.iter().map(|&address| Step::RemoveAddress(address)));
        let additions = add_addresses.iter().map(|&address| Step::AddAddress(address));
        removals.chain(additions).chain(add_routes.iter().map(|(&destination, &hop)| Step::AddRoute(destination, hop)))
    }

    pub(super) fn interface_name(&self, index: u32) -> Option<&str> {
        self.interface_names.get(&index).map(String::as_str)
    }

    pub(super) fn describe(&self, step: Step, tense: Tense) -> impl fmt::Display {
        let tunnel = self.tunnel_index.and_then(|index| self.interface_name(index)).unwrap_or("the tunnel");
        let (what, verb) = match step {
            Step::RemoveRoute(route) => {
                let name = self.interface_name(route.interface).unwrap_or("nowhere");
                (format!("route {} to {name}", route.destination), "remove")
            }
            Step::RemoveAddress(address) => (format!("address {address} of {tunnel}"), "remove"),
            Step::AddAddress(address) => (format!("address {address} of {tunnel}"), "add"),
            Step::AddRoute(destination, hop) => {
                let name = self.interface_name(hop.interface).unwrap_or("the tunnel");
                let gateway = hop.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
                (format!("route {destination}{gateway} to {name}"), "add")
            }
        };
        match tense {
            Tense::Future => format!("{verb} {what}"),
            Tense::Past => format!("{what} {}ed", verb.trim_end_matches('e')),
        }
    }
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    RemoveRoute(Route),
    RemoveAddress(IpNet),
    AddAddress(IpNet),
    AddRoute(IpNet, Hop),
}

/// How a step is described: before or after it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tense {
    Future,
    Past,
}

/// The differences between what is wanted and what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Routes of ours that are not wanted, or wanted otherwise.
    pub remove_routes: BTreeSet<Route>,
    /// Addresses of ours that are not wanted.
    pub remove_addresses: BTreeSet<IpNet>,
    /// Addresses that are missing.
    pub add_addresses: BTreeSet<IpNet>,
    /// Destinations that have no route yet, and where they are to be routed.
    pub add_routes: BTreeMap<IpNet, Hop>,
    /// Wanted destinations that another program routes elsewhere. Reported, never touched.
    pub conflicts: BTreeSet<Conflict>,
    /// Ranges behind a private network whose router is not known, and that nobody routes there.
    pub without_route: BTreeSet<RangeBehind>,
    /// Addresses that another program put on the tunnel's interface. Reported, never touched.
    pub unknown_addresses: BTreeSet<IpNet>,
}

/// A destination that another program routes elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The destination.
    pub destination: IpNet,
    /// The route in the way.
    pub by: Route,
}

impl Changes {
    /// Whether there is nothing to change and no conflict.
    pub fn is_settled(&self) -> bool {
        *self == Self::default()
    }
}

/// The routes that are wanted now, over links that are up: a link that is down takes no routes.
fn wanted(desired: Option<&Desired>, behind: &BTreeSet<RangeBehind>, observed: &Observed) -> BTreeMap<IpNet, Hop> {
    let tunnel = desired.zip(observed.link.filter(|link| link.up));
    let tunnel = tunnel.into_iter().flat_map(|(desired, link)| {
        let hop = Hop { interface: link.index, gateway: None };
        desired.destinations.iter().map(move |destination| (*destination, hop))
    });
    let behind = behind.iter().filter_map(|range| {
        let gateway = Some(range.gateway?.into());
        observed.index_of(&range.interface).map(|interface| (range.destination, Hop { interface, gateway }))
    });
    // The tunnel's come last, so they win.
    behind.chain(tunnel).collect()
}

/// Compares what is wanted with what is there. Another program's route to the same link stays: packets go where they
/// are wanted. One that leads elsewhere stays too, whatever its metric, and is a conflict.
pub(super) fn plan_changes(desired: Option<&Desired>, behind: &BTreeSet<RangeBehind>, observed: &Observed) -> Changes {
    let mut changes = Changes::default();
    let wanted = wanted(desired, behind, observed);
    let mut by_destination: BTreeMap<IpNet, Vec<Route>> = BTreeMap::new();
    for &route in &observed.routes {
        if route.is_ours() || wanted.contains_key(&route.destination) {
            by_destination.entry(route.destination).or_default().push(route);
        }
    }
    for (&destination, routes) in &by_destination {
        let mut standing = false;
        let hop = wanted.get(&destination).copied();
        let other = routes.iter().find(|route| !route.is_ours());
        for &ours in routes.iter().filter(|route| route.is_ours()) {
            let is_right = hop.is_some_and(|hop| ours.is_to(hop)) && other.is_none();
            if is_right && !standing {
                standing = true;
            } else {
                changes.remove_routes.insert(ours);
            }
        }
        match (other, hop) {
            (Some(route), Some(hop)) if route.leads_to(hop) => {}
            (Some(&by), Some(_)) => {
                changes.conflicts.insert(Conflict { destination, by });
            }
            (None, Some(hop)) if !standing => {
                changes.add_routes.insert(destination, hop);
            }
            _ => {}
        }
    }
    changes.add_routes.extend(wanted.iter().filter(|(destination, _)| !by_destination.contains_key(destination)));
    for range in behind.iter().filter(|range| range.gateway.is_none()) {
        let is_routed = |index| {
            observed.routes.iter().any(|route| {
                let is_wide_enough =
                    route.destination.prefix_len() > 0 && route.destination.contains(&range.destination);
                route.interface == index && is_wide_enough
            })
        };
        if observed.index_of(&range.interface).is_some_and(|index| !is_routed(index)) {
            changes.without_route.insert(range.clone());
        }
    }
    if let Some(desired) = desired.filter(|_| observed.link.is_some()) {
        let there: BTreeSet<IpNet> = observed.addresses.iter().map(|address| address.net).collect();
        changes.add_addresses = desired.addresses.difference(&there).copied().collect();
        for address in observed.addresses.iter().filter(|address| !desired.addresses.contains(&address.net)) {
            let list = if address.ours { &mut changes.remove_addresses } else { &mut changes.unknown_addresses };
            list.insert(address.net);
        }
    }
    changes
}
