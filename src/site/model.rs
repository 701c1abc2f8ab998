//! The observed server: its links, addresses and networks.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::Firewall;
use crate::hetzner::NETWORK_MTU;
use crate::net::{InterfaceName, NetworkId, ServerId};
use crate::outcome::Problem;

/// This server, as the components need to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Site {
    /// This server's number, if it is known.
    pub server_id: Option<ServerId>,
    /// The other server that the state directory belongs to, if this one was made from its snapshot.
    pub state_of: Option<ServerId>,
    /// Whether nobody needs NAT here: the server is for its tunnel only, and works without a public IPv4 address.
    pub needs_no_nat: bool,
    /// The link towards the internet; `None` while there is none.
    pub public: Option<PublicLink>,
    /// The links towards private networks, sorted by interface name. Their networks do not overlap.
    pub private: Vec<PrivateLink>,
    /// Private links that no traffic may be attracted to, because the kernel routes packets for their network, or their
    /// hosts' packets to the internet, elsewhere.
    pub misrouted: BTreeSet<InterfaceName>,
    /// Ranges that other interfaces of this server lead to, like those of bridges: hosts there can reach the bastion.
    #[serde(skip)]
    pub elsewhere: Vec<Ipv4Net>,
    /// The interfaces that a DHCP client may have configured: each address of one is leased, or it has none yet.
    #[serde(skip)]
    pub dhcp_links: BTreeSet<InterfaceName>,
    /// The broadcast addresses of private networks that the kernel takes for such, because they are on a link.
    pub broadcasts: BTreeSet<Ipv4Addr>,
    /// TCP ports in sshd's own configuration.
    pub sshd_ports: BTreeSet<u16>,
    /// What is missing or contradictory.
    pub problems: Vec<Problem>,
    /// What of the configuration cannot be served here. It says nothing about what this server is.
    pub conflicts: Vec<Problem>,
    /// What the operator may want to know although nothing is wrong.
    pub hints: Vec<Problem>,
}

impl Site {
    /// The TCP ports of this server's SSH daemon: the configured ones, or those of sshd's configuration and 22.
    pub fn ssh_ports(&self, firewall: &Firewall) -> BTreeSet<u16> {
        let discovered = || self.sshd_ports.iter().copied().chain([22]).collect();
        firewall.ssh_ports.clone().unwrap_or_else(discovered)
    }

    /// The interfaces towards the internet and towards private networks that are not this server's own bridges.
    pub(crate) fn network_links(&self) -> impl Iterator<Item = &InterfaceName> {
        let private = self.private.iter().filter(|link| !link.is_local).map(|link| &link.interface);
        self.public.iter().map(|link| &link.interface).chain(private)
    }

    /// This server's first public address. It never belongs to a private host: the bastion itself is reached there.
    pub fn own_address(&self) -> Option<Ipv4Addr> {
        self.public.as_ref().and_then(|public| public.addresses.first()).copied()
    }
}

/// The link towards the internet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicLink {
    /// The interface's name.
    pub interface: InterfaceName,
    /// Its MTU in bytes: 1500 at Hetzner.
    pub mtu: u32,
    /// Its IPv4 addresses; empty until DHCP has assigned one.
    pub addresses: Vec<Ipv4Addr>,
}

/// A link towards one private network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateLink {
    /// The interface's name.
    pub interface: InterfaceName,
    /// Its MTU in bytes: 1450 at Hetzner.
    pub mtu: u32,
    /// The bastion's own address in the network, which is the gateway of cloud routes.
    pub address: Ipv4Addr,
    /// Whether the interface has that address and is up.
    pub address_present: bool,
    /// Further addresses of the bastion in the network.
    pub aliases: BTreeSet<Ipv4Addr>,
    /// The range of the whole network.
    pub network: Ipv4Net,
    /// The router that the network's hosts are behind; `None`: they are on the link itself, or it is not known.
    pub gateway: Option<Ipv4Addr>,
    /// Further ranges that the network delivers to this link and takes from it: pods, or VPN clients of another
    /// server. Sorted; they overlap neither each other nor any other range of this server.
    pub behind: Vec<Ipv4Net>,
    /// Whether the network is one of this server itself, like a bridge of containers.
    pub is_local: bool,
    /// The Hetzner Network's number, if it is one.
    pub network_id: Option<NetworkId>,
    /// The Hetzner Network's name, if it is known.
    pub network_name: Option<String>,
}

impl PrivateLink {
    /// Every range whose hosts are reached by this link: the network, and those behind it.
    pub fn ranges(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        [self.network].into_iter().chain(self.behind.iter().copied())
    }

    /// Whether a host with this address is reached by this link.
    pub fn serves(&self, host: Ipv4Addr) -> bool {
        self.ranges().any(|range| range.contains(&host))
    }

    /// The largest packet in bytes that reaches the network's hosts, if the link's MTU is larger than that: the network
    /// loses what is between, and does not always say so.
    pub fn lower_limit(&self) -> Option<u32> {
        (self.network_id.is_some() && self.mtu > NETWORK_MTU).then_some(NETWORK_MTU)
    }

    /// Whether `address` is one of this server's addresses in the network.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        self.address == address || self.aliases.contains(&address)
    }
}

/// Links for tests.
#[cfg(test)]
mod examples {
    use super::{BTreeSet, PrivateLink, PublicLink};

    impl PublicLink {
        /// A link as Hetzner's, with these addresses.
        pub(crate) fn example(interface: &str, addresses: &[&str]) -> Self {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Self { interface: interface.parse().unwrap(), mtu: 1500, addresses }
        }
    }

    impl PrivateLink {
        /// A link as Hetzner's that is up. Of its network only the range is known.
        pub(crate) fn example(interface: &str, address: &str, network: &str) -> Self {
            Self {
                interface: interface.parse().unwrap(),
                mtu: 1450,
                address: address.parse().unwrap(),
                address_present: true,
                aliases: BTreeSet::new(),
                network: network.parse().unwrap(),
                gateway: None,
                behind: Vec::new(),
                is_local: false,
                network_id: None,
                network_name: None,
            }
        }
    }
}
