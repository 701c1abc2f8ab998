//! The routes of a Hetzner Network, and which of them this server wants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::hetzner::{MAX_ROUTES, PUBLIC_GATEWAY};
use crate::inputs::WantedReturnRoutes;
use crate::net::{NetworkId, is_private, overlap};
use crate::site::PrivateLink;

/// A route of a Hetzner Network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CloudRoute {
    /// The range of addresses that the route is for.
    pub destination: Ipv4Net,
    /// The private address of the server that gets the packets.
    pub gateway: Ipv4Addr,
}

impl fmt::Display for CloudRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.destination, self.gateway)
    }
}

/// A network as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkTable {
    pub id: NetworkId,
    pub name: String,
    /// The ranges of the subnets. No route may overlap them.
    pub subnets: Vec<Ipv4Net>,
    pub routes: BTreeSet<CloudRoute>,
    /// Those of the subnets that lead to a vSwitch, where dedicated servers are.
    pub vswitches: Vec<Ipv4Net>,
    /// Whether servers behind a vSwitch learn the network's routes.
    pub exposes_routes: bool,
}

impl NetworkTable {
    /// The network in messages: `network 1234 (private)`.
    pub(super) fn label(&self) -> String {
        if self.name.is_empty() {
            format!("network {}", self.id)
        } else {
            format!("network {} ({})", self.id, self.name)
        }
    }
}

/// Why a range of the tunnel can have no route, known before the API is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unroutable {
    /// Hetzner accepts private ranges only, and none that contains its own gateway.
    NotPrivate,
    /// It overlaps this destination of the configuration, without being inside it.
    OverlapsDestination(Ipv4Net),
    /// The network holds [`MAX_ROUTES`] routes already.
    TooManyRoutes,
}

/// The wanted routes of one attached network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Routes to this server for the destinations of the configuration.
    pub named: BTreeSet<CloudRoute>,
    /// Routes to this server for the tunnel's ranges.
    pub return_routes: BTreeSet<CloudRoute>,
    /// Ranges of the tunnel that can have no route.
    pub unroutable: BTreeMap<Ipv4Net, Unroutable>,
}

impl Desired {
    /// All routes.
    pub fn routes(&self) -> BTreeSet<CloudRoute> {
        self.named.union(&self.return_routes).copied().collect()
    }
}

/// The routes that one attached network needs, all of them to this server. A range of the tunnel inside a destination
/// of the configuration (other than `0.0.0.0/0`) needs no route of its own.
pub(super) fn desired(
    config: &config::Hcloud,
    wanted_return_routes: &WantedReturnRoutes,
    link: &PrivateLink,
) -> Desired {
    let here = |&destination: &Ipv4Net| CloudRoute { destination, gateway: link.address };
    let mut desired = Desired { named: config.destinations.iter().map(here).collect(), ..Desired::default() };
    for range in &wanted_return_routes.ranges {
        let named = config.destinations.iter().find(|named| named.prefix_len() > 0 && overlap(**named, *range));
        let unroutable = match named {
            Some(named) if named.contains(range) => continue,
            Some(named) => Unroutable::OverlapsDestination(*named),
            None if !is_private(*range) || range.contains(&PUBLIC_GATEWAY) => Unroutable::NotPrivate,
            None if desired.named.len() + desired.return_routes.len() >= MAX_ROUTES => Unroutable::TooManyRoutes,
            None => {
                desired.return_routes.insert(here(range));
                continue;
            }
        };
        desired.unroutable.insert(*range, unroutable);
    }
    desired
}
