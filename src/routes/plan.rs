//! Desired and observed addresses and routes in, steps out. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use super::model::{Desired, Observed, Route};

/// What is to be done, and what it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is wanted; `None` without a tunnel.
    pub desired: Option<Desired>,
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
        removals.chain(additions).chain(add_routes.iter().map(|&destination| Step::AddRoute(destination)))
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
            Step::AddRoute(destination) => (format!("route {destination} to {tunnel}"), "add"),
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
    AddRoute(IpNet),
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
    /// Destinations that have no route into the tunnel yet.
    pub add_routes: BTreeSet<IpNet>,
    /// Wanted destinations that another program routes elsewhere. Reported, never touched.
    pub conflicts: BTreeSet<Conflict>,
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

/// Compares what is wanted with what is there. Another program's route into the tunnel stays: packets go where they
/// are wanted. One that leads elsewhere stays too, whatever its metric, and is a conflict.
pub(super) fn plan_changes(desired: Option<&Desired>, observed: &Observed) -> Changes {
    let mut changes = Changes::default();
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
        let other = routes.iter().find(|route| !route.is_ours());
        for &ours in routes.iter().filter(|route| route.is_ours()) {
            let is_right = wanted.contains(&destination)
                && ours.plain
                && link.is_some_and(|link| link.index == ours.interface)
                && other.is_none();
            if is_right && !standing {
                standing = true;
            } else {
                changes.remove_routes.insert(ours);
            }
        }
        match (other, link) {
            (Some(route), Some(link)) if route.plain && route.interface == link.index => {}
            (Some(&by), Some(_)) => {
                changes.conflicts.insert(Conflict { destination, by });
            }
            (None, Some(_)) if !standing && wanted.contains(&destination) => {
                changes.add_routes.insert(destination);
            }
            _ => {}
        }
    }
    if link.is_some() {
        changes.add_routes.extend(wanted.iter().filter(|destination| !by_destination.contains_key(destination)));
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
