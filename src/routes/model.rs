//! Addresses and routes, and which of them are wanted.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::inputs::Tunnel;
use crate::net::InterfaceName;

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

/// The addresses of the tunnel, and routes for the ranges behind its peers.
pub(super) fn desired(tunnel: &Tunnel) -> Desired {
    Desired {
        interface: tunnel.interface.clone(),
        addresses: tunnel.addresses.iter().copied().collect(),
        destinations: tunnel.remote_networks.iter().copied().collect(),
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
    /// Names of interfaces by index, for messages.
    pub names: BTreeMap<u32, String>,
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
    /// Whether it leads straight to the interface: no router, no other kind than unicast.
    pub plain: bool,
}

impl Route {
    /// Whether we made it.
    pub fn is_ours(&self) -> bool {
        self.protocol == PROTOCOL
    }
}
