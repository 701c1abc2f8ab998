//! Compares wanted with observed routes. Pure.
//!
//! A route is ours if it is a wanted one, or was when this daemon added or reported it (`owned`). Any other route is
//! never changed, even if it leads to this server, because another program added it.

use std::collections::BTreeSet;

use super::model::{CloudRoute, Desired, NetworkTable};
use crate::component;
use crate::net::overlap;
use crate::outcome::Problem;
use crate::site::PrivateLink;

/// The changes in all attached networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// One entry for each observed link, in the same order.
    pub links: Vec<LinkPlan>,
    /// Why links have no plan, and what is in the way of wanted routes.
    pub problems: Vec<Problem>,
}

impl component::Plan for Plan {
    fn steps(&self) -> Vec<String> {
        self.links.iter().flat_map(LinkPlan::steps).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        self.problems.clone()
    }
}

/// The changes in the network behind one private link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkPlan {
    /// The link's address is missing, so no traffic may be attracted to it.
    NoAddress,
    /// The kernel routes the network's packets elsewhere, so no traffic may be attracted. What is there stays.
    Misrouted,
    /// The network has no subnet: Hetzner would refuse every route.
    NoSubnet,
    /// The network could not be read.
    Unknown,
    /// The network could be read.
    Routes {
        /// The network in messages.
        network: String,
        /// The wanted routes.
        desired: Desired,
        /// The changes that lead to them.
        routes: RoutePlan,
    },
}

impl LinkPlan {
    fn steps(&self) -> Vec<String> {
        let Self::Routes { network, routes, .. } = self else { return Vec::new() };
        let withdraw = routes.withdraw.iter().map(|route| format!("delete route {route} of {network}"));
        withdraw.chain(routes.claim.iter().map(|route| format!("add route {route} to {network}"))).collect()
    }
}

/// The changes of one network's routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// Carried out first: Hetzner keeps one route per destination.
    pub withdraw: BTreeSet<CloudRoute>,
    /// Carried out after `withdraw`.
    pub claim: BTreeSet<CloudRoute>,
    /// Wanted routes that conflict with something else. Reported, never touched.
    pub conflicts: BTreeSet<Conflict>,
}

/// A wanted route that another one, or a subnet, prevents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The wanted route.
    pub wanted: CloudRoute,
    /// What prevents it.
    pub by: Obstacle,
}

/// What prevents a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A route for the same destination to another server.
    Held(CloudRoute),
    /// A route for an overlapping destination: Hetzner accepts only one of them.
    OverlappingRoute(CloudRoute),
    /// A subnet: Hetzner accepts no route into it.
    Subnet(ipnet::Ipv4Net),
}

impl RoutePlan {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.withdraw.is_empty() && self.claim.is_empty()
    }

    /// Whether there is nothing to change and no conflict.
    pub fn is_settled(&self) -> bool {
        *self == Self::default()
    }
}

/// The plan for the network behind one link. `owned` are this daemon's routes. Those that are no longer wanted are
/// deleted: for a destination that the configuration no longer names, or to an address that this server no longer has.
pub(super) fn plan_link(
    desired: Desired,
    owned: &BTreeSet<CloudRoute>,
    observed: &NetworkTable,
    link: &PrivateLink,
    take_over: bool,
) -> LinkPlan {
    let wanted = desired.routes();
    // A route for a wanted destination to another address of this server is as good.
    let is_as_good = |route: &CloudRoute| {
        link.holds(route.gateway) && wanted.iter().any(|wanted| wanted.destination == route.destination)
    };
    let is_abandoned = |route: &&CloudRoute| observed.routes.contains(route) && !is_as_good(route);
    let abandoned: BTreeSet<CloudRoute> = owned.difference(&wanted).filter(is_abandoned).copied().collect();
    // They are deleted first, so they prevent no other route.
    let without = NetworkTable { routes: &observed.routes - &abandoned, ..observed.clone() };
    let mut routes = plan_routes(&wanted, &without, link, take_over);
    routes.withdraw.extend(abandoned);
    if observed.subnets.is_empty() && !routes.claim.is_empty() {
        return LinkPlan::NoSubnet;
    }
    LinkPlan::Routes { network: observed.label(), desired, routes }
}

/// Compares wanted with observed routes. A route for a wanted destination to another address of this server is right
/// too.
pub(super) fn plan_routes(
    desired: &BTreeSet<CloudRoute>,
    observed: &NetworkTable,
    link: &PrivateLink,
    take_over: bool,
) -> RoutePlan {
    let mut plan = RoutePlan::default();
    for &wanted in desired {
        match obstacle(wanted, observed) {
            Some(Obstacle::Held(held)) if link.holds(held.gateway) => {}
            Some(Obstacle::Held(held)) if take_over => {
                plan.withdraw.insert(held);
                plan.claim.insert(wanted);
            }
            Some(by) => {
                plan.conflicts.insert(Conflict { wanted, by });
            }
            None => {
                plan.claim.insert(wanted);
            }
        }
    }
    plan
}

fn obstacle(wanted: CloudRoute, observed: &NetworkTable) -> Option<Obstacle> {
    if let Some(&held) = observed.routes.iter().find(|route| route.destination == wanted.destination) {
        return Some(Obstacle::Held(held));
    }
    if wanted.destination.prefix_len() == 0 {
        return None; // Only the default route may overlap others.
    }
    let subnet = observed.subnets.iter().find(|&&subnet| overlap(subnet, wanted.destination));
    if let Some(&subnet) = subnet {
        return Some(Obstacle::Subnet(subnet));
    }
    let overlapping =
        |route: &&CloudRoute| route.destination.prefix_len() > 0 && overlap(route.destination, wanted.destination);
    observed.routes.iter().find(overlapping).map(|&route| Obstacle::OverlappingRoute(route))
}

/// What `down` deletes. A route to an alias address that another server may share is not among them, unless this daemon
/// added it.
pub(super) fn plan_withdrawal(ours: &BTreeSet<CloudRoute>, observed: &NetworkTable) -> RoutePlan {
    RoutePlan { withdraw: observed.routes.intersection(ours).copied().collect(), ..RoutePlan::default() }
}
