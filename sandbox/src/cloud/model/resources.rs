//! What exists in the project. Plain data; the rules about it are in `routes`, `subnets`, `attachments` and `change`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::SystemTime;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::ids::{FirewallId, FloatingIpId, NetworkId, PrimaryIpId, ResourceId, ServerId};
use super::refusal::Refusal;

/// User-defined key/value pairs.
pub(crate) type Labels = BTreeMap<String, String>;

/// The project's resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) networks: BTreeMap<NetworkId, Network>,
    pub(crate) servers: BTreeMap<ServerId, Server>,
    pub(crate) floating_ips: BTreeMap<FloatingIpId, FloatingIp>,
    pub(crate) primary_ips: BTreeMap<PrimaryIpId, PrimaryIp>,
    pub(crate) firewalls: BTreeMap<FirewallId, Firewall>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) id: NetworkId,
    pub(crate) name: String,
    pub(crate) ip_range: Ipv4Net,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) routes: Vec<Route>,
    pub(crate) delete_protection: bool,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
    pub(crate) expose_routes_to_vswitch: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) kind: SubnetKind,
    pub(crate) ip_range: Ipv4Net,
    pub(crate) network_zone: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubnetKind {
    Cloud,
    /// The deprecated name of `cloud`.
    Server,
    Vswitch {
        id: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) name: String,
    pub(crate) created: SystemTime,
    pub(crate) public_ipv4: Option<Ipv4Addr>,
    pub(crate) public_ipv6: Option<Ipv6Net>,
    pub(crate) public_mac: String,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) labels: Labels,
}

/// A server's place in a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) network: NetworkId,
    pub(crate) ip: Ipv4Addr,
    pub(crate) alias_ips: Vec<Ipv4Addr>,
    pub(crate) mac_address: String,
    /// Counts from 1 in the order of attaching.
    pub(crate) interface_num: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FloatingIp {
    pub(crate) id: FloatingIpId,
    pub(crate) name: String,
    pub(crate) ip: Ipv4Addr,
    pub(crate) server: Option<ServerId>,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrimaryIp {
    pub(crate) id: PrimaryIpId,
    pub(crate) name: String,
    pub(crate) address: PublicAddress,
    pub(crate) server: ServerId,
    pub(crate) created: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublicAddress {
    V4(Ipv4Addr),
    V6(Ipv6Net),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Firewall {
    pub(crate) id: FirewallId,
    pub(crate) name: String,
    pub(crate) rules: Vec<FirewallRule>,
    pub(crate) servers: Vec<ServerId>,
    pub(crate) labels: Labels,
    pub(crate) created: SystemTime,
}

/// An inbound rule of a cloud firewall; such firewalls see the public interface only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// `tcp`, `udp`, `icmp`, `esp` or `gre`.
    pub protocol: &'static str,
    /// A port (`51820`) or a range (`80-85`); none for protocols without ports.
    pub port: Option<String>,
    /// Where the traffic may come from, in CIDR notation.
    pub source_ips: Vec<String>,
}

/// A route of a network: packets for `destination` go to `gateway`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Route {
    /// Where the packets want to go.
    pub destination: Ipv4Net,
    /// The address in the network that takes them: a server's own or one of its alias IPs, though the API does not ask
    /// for a server to be there.
    pub gateway: Ipv4Addr,
}

impl Route {
    /// A route to everywhere that no other route names.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

impl Network {
    /// The first address of the range, for every subnet of it: `10.0.0.1`, as real output shows, although the
    /// documentation's field text speaks of the subnet's first address.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        first_host(self.ip_range)
    }

    /// The subnet that an address lies in.
    pub(crate) fn subnet_of(&self, ip: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.ip_range.contains(&ip))
    }

    /// The gateway of one subnet: the network's, but behind a vSwitch the subnet's own first address.
    pub(crate) fn gateway_of(&self, subnet: &Subnet) -> Ipv4Addr {
        match subnet.kind {
            SubnetKind::Cloud | SubnetKind::Server => self.gateway(),
            SubnetKind::Vswitch { .. } => first_host(subnet.ip_range),
        }
    }
}

/// The address after the range's own.
pub(crate) fn first_host(range: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(range.network().to_bits() + 1)
}

impl Server {
    /// The `interface_num` of the next attachment.
    pub(crate) fn next_interface_num(&self) -> u32 {
        self.attachments.iter().map(|attachment| attachment.interface_num).max().unwrap_or(0) + 1
    }

    pub(crate) fn attachment(&self, network: NetworkId) -> Option<&Attachment> {
        self.attachments.iter().find(|attachment| attachment.network == network)
    }

    pub(crate) fn attachment_mut(&mut self, network: NetworkId) -> Option<&mut Attachment> {
        self.attachments.iter_mut().find(|attachment| attachment.network == network)
    }
}

impl Resources {
    pub(crate) fn network(&self, id: NetworkId) -> Result<&Network, Refusal> {
        self.networks.get(&id).ok_or_else(|| Refusal::absent(ResourceId::Network(id)))
    }

    pub(crate) fn network_mut(&mut self, id: NetworkId) -> Result<&mut Network, Refusal> {
        self.networks.get_mut(&id).ok_or_else(|| Refusal::absent(ResourceId::Network(id)))
    }

    pub(crate) fn server(&self, id: ServerId) -> Result<&Server, Refusal> {
        self.servers.get(&id).ok_or_else(|| Refusal::absent(ResourceId::Server(id)))
    }

    pub(crate) fn server_mut(&mut self, id: ServerId) -> Result<&mut Server, Refusal> {
        self.servers.get_mut(&id).ok_or_else(|| Refusal::absent(ResourceId::Server(id)))
    }

    pub(crate) fn floating_ip(&self, id: FloatingIpId) -> Result<&FloatingIp, Refusal> {
        self.floating_ips.get(&id).ok_or_else(|| Refusal::absent(ResourceId::FloatingIp(id)))
    }

    pub(crate) fn floating_ip_mut(&mut self, id: FloatingIpId) -> Result<&mut FloatingIp, Refusal> {
        self.floating_ips.get_mut(&id).ok_or_else(|| Refusal::absent(ResourceId::FloatingIp(id)))
    }

    /// Who is attached to a network, by server id.
    pub(crate) fn members(&self, network: NetworkId) -> impl Iterator<Item = (&Server, &Attachment)> {
        self.servers.values().filter_map(move |server| Some((server, server.attachment(network)?)))
    }

    /// What the data plane of every network should do.
    pub(crate) fn network_views(&self) -> Vec<NetworkView> {
        let view = |network: &Network| NetworkView {
            id: network.id,
            name: network.name.clone(),
            ip_range: network.ip_range,
            gateway: network.gateway(),
            servers: self
                .members(network.id)
                .map(|(server, attachment)| AttachedServer {
                    server: server.id,
                    ip: attachment.ip,
                    alias_ips: attachment.alias_ips.clone(),
                    mac_address: attachment.mac_address.clone(),
                })
                .collect(),
            routes: network.routes.clone(),
        };
        self.networks.values().map(view).collect()
    }
}

/// One network as its virtual gateway must serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkView {
    /// The network.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Everything in it has an address from this range.
    pub ip_range: Ipv4Net,
    /// The virtual gateway's address: the first of the range.
    pub gateway: Ipv4Addr,
    /// Who is attached, by server id.
    pub servers: Vec<AttachedServer>,
    /// Where the gateway sends what is for none of the servers, in the order of their making.
    pub routes: Vec<Route>,
}

/// A server's place in a network, as the virtual gateway must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachedServer {
    /// The server.
    pub server: ServerId,
    /// Its address, the one that DHCP hands out.
    pub ip: Ipv4Addr,
    /// Further addresses that are sent to it.
    pub alias_ips: Vec<Ipv4Addr>,
    /// The private interface's hardware address.
    pub mac_address: String,
}
