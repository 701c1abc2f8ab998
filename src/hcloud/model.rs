//! The nouns of the cloud room.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::config::{self, Config, Snat};
use crate::hetzner::{MAX_ROUTES, PUBLIC_GATEWAY};
use crate::inputs::{SeenReturnRoutes, Tunnel, tunnel};
use crate::net::{NetworkId, is_private, overlap};
use crate::site::{PrivateLink, Site};

/// A route of a Hetzner Network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CloudRoute {
    /// Packets for this range …
    pub destination: Ipv4Net,
    /// … go to the server that holds this address.
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
    /// Its number.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Ranges of its subnets: no route may overlap them.
    pub subnets: Vec<Ipv4Net>,
    /// Its routes.
    pub routes: BTreeSet<CloudRoute>,
}

/// The tunnel's ranges that the networks shall send here, so that their hosts can answer peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedReturnRoutes {
    /// The ranges, those of the tunnel's own networks first.
    pub ranges: Vec<Ipv4Net>,
    /// Whether peers are masqueraded where a range cannot be had (`wireguard.snat = "auto"`).
    pub else_masqueraded: bool,
}

/// What the tunnel wants of the cloud; nothing where there is none, or where its peers are masqueraded anyway.
pub fn wanted_return_routes(config: &Config, site: &Site) -> WantedReturnRoutes {
    let snat = config.wireguard.as_ref().map_or(Snat::Always, |wanted| wanted.snat);
    let tunnel = tunnel(config, site, &SeenReturnRoutes::new()).filter(|_| snat != Snat::Always);
    let own = |range: &Ipv4Net, tunnel: &Tunnel| tunnel.networks.iter().any(|own| IpNet::V4(*range).contains(own));
    let ranges = tunnel.map(|tunnel| {
        let mut ranges = tunnel.routed();
        ranges.sort_by_key(|range| !own(range, &tunnel));
        ranges
    });
    WantedReturnRoutes { ranges: ranges.unwrap_or_default(), else_masqueraded: snat == Snat::Auto }
}

/// Why no route for a range of the tunnel can be had, before anybody is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unroutable {
    /// Hetzner takes private ranges only, and not its own gateway.
    Foreign,
    /// It overlaps a destination that the configuration names, without lying inside of it.
    Named(Ipv4Net),
    /// The network has no room for it.
    TooMany,
}

/// What is wanted of one attached network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Routes to this server for the destinations that the configuration names.
    pub named: BTreeSet<CloudRoute>,
    /// The same for the tunnel's ranges.
    pub wanted_return_routes: BTreeSet<CloudRoute>,
    /// Ranges of the tunnel for which no route can be had.
    pub unroutable: BTreeMap<Ipv4Net, Unroutable>,
}

impl Desired {
    /// All routes.
    pub fn routes(&self) -> BTreeSet<CloudRoute> {
        self.named.union(&self.wanted_return_routes).copied().collect()
    }
}

/// The routes that one attached network shall have: all of them to this server. A range of the tunnel inside of a named
/// destination, other than everything, needs no route of its own.
pub fn desired(config: &config::Hcloud, wanted_return_routes: &WantedReturnRoutes, link: &PrivateLink) -> Desired {
    let here = |&destination: &Ipv4Net| CloudRoute { destination, gateway: link.address };
    let mut desired = Desired { named: config.destinations.iter().map(here).collect(), ..Desired::default() };
    for range in &wanted_return_routes.ranges {
        let named = config.destinations.iter().find(|named| named.prefix_len() > 0 && overlap(**named, *range));
        let unroutable = match named {
            Some(named) if named.contains(range) => continue,
            Some(named) => Unroutable::Named(*named),
            None if !is_private(*range) || range.contains(&PUBLIC_GATEWAY) => Unroutable::Foreign,
            None if desired.named.len() + desired.wanted_return_routes.len() >= MAX_ROUTES => Unroutable::TooMany,
            None => {
                desired.wanted_return_routes.insert(here(range));
                continue;
            }
        };
        desired.unroutable.insert(*range, unroutable);
    }
    desired
}

/// What a network sends to this server, besides everything: a peer with an address in it is answered.
pub fn led_here(table: &NetworkTable, link: &PrivateLink) -> Vec<Ipv4Net> {
    let here = table.routes.iter().filter(|route| link.holds(route.gateway) && route.destination.prefix_len() > 0);
    here.map(|route| route.destination).collect()
}
