//! The nouns of the cloud room.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config;
use crate::net::NetworkId;
use crate::site::PrivateLink;

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

/// The routes that one attached network shall have: all of them to this server.
pub fn desired(config: &config::Hcloud, link: &PrivateLink) -> BTreeSet<CloudRoute> {
    config.destinations.iter().map(|&destination| CloudRoute { destination, gateway: link.address }).collect()
}
