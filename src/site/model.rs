//! The nouns of the site.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::config::Firewall;
use crate::net::{InterfaceName, NetworkId, ServerId};
use crate::outcome::Problem;

/// This server, as the rooms that change the world need to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Site {
    /// This server's number, where it is known.
    pub server_id: Option<ServerId>,
    /// The link towards the internet, once there is one.
    pub public: Option<PublicLink>,
    /// The links towards private networks, by interface name; their networks do not overlap.
    pub private: Vec<PrivateLink>,
    /// TCP ports that sshd's own configuration names.
    pub sshd_ports: BTreeSet<u16>,
    /// What keeps this picture from being whole.
    pub problems: Vec<Problem>,
    /// What somebody may want to know.
    pub hints: Vec<Problem>,
}

impl Site {
    /// The TCP ports of this server's SSH: the configured ones, or those that sshd names and 22.
    pub fn ssh_ports(&self, firewall: &Firewall) -> BTreeSet<u16> {
        let discovered = || self.sshd_ports.iter().copied().chain([22]).collect();
        firewall.ssh_ports.clone().unwrap_or_else(discovered)
    }

    /// This server's own first public address: it is never a private host's, and the bastion keeps there what it needs itself.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        self.public.as_ref().and_then(|public| public.addresses.first()).copied()
    }
}

/// The link towards the internet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicLink {
    /// Its name.
    pub interface: InterfaceName,
    /// Largest IP packet it carries, in bytes: 1500 at Hetzner.
    pub mtu: u32,
    /// Its IPv4 addresses; none while DHCP has not answered.
    pub addresses: Vec<Ipv4Addr>,
}

/// A link towards one private network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrivateLink {
    /// Its name.
    pub interface: InterfaceName,
    /// Largest IP packet it carries, in bytes: 1450 at Hetzner.
    pub mtu: u32,
    /// The bastion's own address in the network: the gateway that a cloud route names.
    pub address: Ipv4Addr,
    /// Whether the interface really has that address yet.
    pub address_present: bool,
    /// Further addresses of the bastion in the network.
    pub aliases: BTreeSet<Ipv4Addr>,
    /// The whole network's range.
    pub network: Ipv4Net,
    /// The Hetzner Network's number, where there is one.
    pub network_id: Option<NetworkId>,
    /// The Hetzner Network's name, where it is known.
    pub network_name: Option<String>,
}

impl PrivateLink {
    /// Whether packets for `address` come to this server.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        self.address == address || self.aliases.contains(&address)
    }
}
