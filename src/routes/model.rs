//! Addresses and routes, and which of them are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::config::Config;
use crate::inputs::{LinkProbe, Tunnel, link_probes};
use crate::net::InterfaceName;
use crate::site::{PrivateLink, Site};

pub(crate) use crate::net::ROUTE_PROTOCOL as PROTOCOL;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The tunnel's interface.
    pub interface: InterfaceName,
    /// Its addresses, with the prefixes of their networks.
    pub addresses: BTreeSet<IpNet>,
    /// The ranges that are routed into it, besides its own networks, whose routes the kernel makes.
    pub destinations: BTreeSet<IpNet>,
}

/// A range behind a private network, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeBehind {
    /// The range.
    pub destination: IpNet,
    /// The private link that leads to it.
    pub interface: InterfaceName,
    /// The network's router; `None`: it is not known, so the route is a person's.
    pub gateway: Option<Ipv4Addr>,
}

/// The ranges behind the private networks.
pub(super) fn ranges_behind(site: &Site) -> BTreeSet<RangeBehind> {
    let behind = |link: &PrivateLink, range: Ipv4Net| RangeBehind {
        destination: range.into(),
        interface: link.interface.clone(),
        gateway: link.gateway,
    };
    // The kernel makes the routes to the networks of a bridge's own addresses.
    site.private
        .iter()
        .filter(|link| !link.is_local)
        .flat_map(|link| link.behind.iter().map(move |range| behind(link, *range)))
        .collect()
}

/// The destinations of the probes of private links, which lie behind the networks' gateways like those ranges.
pub(super) fn probe_routes(config: &Config, site: &Site) -> BTreeSet<RangeBehind> {
    let route = |probe: LinkProbe| RangeBehind {
        destination: Ipv4Net::from(probe.destination).into(),
        interface: probe.interface,
        gateway: Some(probe.gateway),
    };
    link_probes(config, site).into_iter().map(route).collect()
}

/// The addresses of the tunnel, and routes for the ranges behind its peers.
pub(super) fn desired(tunnel: &Tunnel) -> Desired {
    Desired {
        interface: tunnel.interface.clone(),
        addresses: tunnel.addresses.iter().copied().collect(),
        destinations: tunnel.remote_networks.iter().copied().filter(|_| tunnel.routes).collect(),
    }
}

/// What is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The tunnel's interface, once there is one.
    pub link: Option<Link>,
    /// Its addresses, less link-local ones, which the kernel gives.
    pub addresses: Vec<Address>,
    /// The routes of the main table, of both families.
    pub routes: Vec<Route>,
    /// Names of interfaces by index.
    pub names: BTreeMap<u32, String>,
    /// Indexes of interfaces that are up.
    pub up: BTreeSet<u32>,
}

impl Observed {
    /// The index of an interface that is up.
    pub(super) fn index_of(&self, interface: &InterfaceName) -> Option<u32> {
        let mut named = self.names.iter().filter(|(_, name)| *name == interface.as_str());
        named.find_map(|(index, _)| self.up.contains(index).then_some(*index))
    }
}

/// An interface, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The kernel's index of the interface.
    pub index: u32,
    /// Whether it is administratively up: a link that is down takes no routes.
    pub up: bool,
}

/// An address of the tunnel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The address with its network's prefix.
    pub net: IpNet,
    /// Whether it carries our number.
    pub ours: bool,
}

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to, without host bits.
    pub destination: IpNet,
    /// The interface it leaves by; 0 for one that leads nowhere.
    pub interface: u32,
    /// Who made it; ours is [`PROTOCOL`].
    pub protocol: u8,
    /// The lower one wins. The kernel's own default is 0 for IPv4 and 1024 for IPv6.
    pub metric: u32,
    /// The router that it leads to, if there is one.
    pub gateway: Option<IpAddr>,
    /// Whether it leads straight to the interface: no router, no other kind than unicast.
    pub plain: bool,
}

/// Where a route of ours leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// The index of the interface.
    pub interface: u32,
    /// The router; `None`: straight to the interface.
    pub gateway: Option<IpAddr>,
}

impl Route {
    /// Whether we made it.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }

    /// Whether it is just as we would make it.
    pub(super) fn is_to(&self, hop: Hop) -> bool {
        let is_straight = if hop.gateway.is_some() { self.gateway == hop.gateway } else { self.plain };
        self.interface == hop.interface && is_straight
    }

    /// Whether packets get where they are wanted by it. In a private network any router may be right.
    pub(super) fn leads_to(&self, hop: Hop) -> bool {
        self.interface == hop.interface && (self.plain || hop.gateway.is_some())
    }
}
