//! Desired and observed routes of one network in, steps out. Pure.
//!
//! Ours is a route whose destination the configuration names and whose gateway is an address of this server. A route of a
//! destination that we do not name is nobody's business of ours, even if it points here: somebody wrote it by hand.

use std::collections::BTreeSet;

use super::model::{CloudRoute, NetworkTable};
use crate::net::overlap;
use crate::site::PrivateLink;

/// What is to be done with one network's routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Carried out first: Hetzner keeps one route per destination.
    pub withdraw: BTreeSet<CloudRoute>,
    /// Carried out after.
    pub claim: BTreeSet<CloudRoute>,
    /// Wanted, and in the way of somebody else's. Reported, never touched.
    pub contested: BTreeSet<Contest>,
}

/// A wanted route that cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contest {
    /// What we want.
    pub wanted: CloudRoute,
    /// What stands in the way.
    pub by: Obstacle,
}

/// What stands in the way of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A route for the same destination to somebody else.
    Held(CloudRoute),
    /// A route for an overlapping destination: Hetzner takes only one of them.
    OverlappingRoute(CloudRoute),
    /// A subnet: Hetzner takes no route into it.
    Subnet(ipnet::Ipv4Net),
}

impl Plan {
    /// Nothing to do, and nothing in the way.
    pub fn is_settled(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what is wanted with what is there. A wanted destination that already leads to one of our further addresses
/// stays as it is: packets come here.
pub fn plan(desired: &BTreeSet<CloudRoute>, observed: &NetworkTable, link: &PrivateLink, take_over: bool) -> Plan {
    let mut plan = Plan::default();
    for &wanted in desired {
        match obstacle(wanted, observed) {
            Some(Obstacle::Held(held)) if link.holds(held.gateway) => {}
            Some(Obstacle::Held(held)) if take_over => {
                plan.withdraw.insert(held);
                plan.claim.insert(wanted);
            }
            Some(by) => {
                plan.contested.insert(Contest { wanted, by });
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
        return None; // the default route overlaps everything, and is allowed to
    }
    let subnet = observed.subnets.iter().find(|&&subnet| overlap(subnet, wanted.destination));
    if let Some(&subnet) = subnet {
        return Some(Obstacle::Subnet(subnet));
    }
    let overlapping =
        |route: &&CloudRoute| route.destination.prefix_len() > 0 && overlap(route.destination, wanted.destination);
    observed.routes.iter().find(overlapping).map(|&route| Obstacle::OverlappingRoute(route))
}

/// What `down` withdraws: the routes we name that lead here.
pub fn withdrawal(desired: &BTreeSet<CloudRoute>, observed: &NetworkTable, link: &PrivateLink) -> BTreeSet<CloudRoute> {
    let ours = |route: &&CloudRoute| {
        link.holds(route.gateway) && desired.iter().any(|wanted| wanted.destination == route.destination)
    };
    observed.routes.iter().filter(ours).copied().collect()
}
