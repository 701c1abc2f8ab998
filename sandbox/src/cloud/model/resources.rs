//! The resources of a project: plain data. The rules are in `routes`, `subnets`, `attachments` and `change`.

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

/// The attachment of a server to a network.
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

/// An inbound rule of a cloud firewall. Cloud firewalls filter the public interface only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallRule {
    /// `tcp`, `udp`, `icmp`, `esp` or `gre`.
    pub protocol: &'static str,
    /// A port (`51820`) or a range (`80-85`); `None` for protocols without ports.
    pub port: Option<String>,
    /// The allowed sources in CIDR notation.
    pub source_ips: Vec<String>,
}

/// A route of a network: packets for `destination` go to `gateway`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Route {
    /// The destination of the packets.
    pub destination: Ipv4Net,
    /// The next hop in the network: a server's address or one of its alias IPs. The API does not require that a server
    /// has it.
    pub gateway: Ipv4Addr,
}

impl Route {
    /// Whether this is the default route, `0.0.0.0/0`.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

impl Network {
    /// The gateway of all cloud subnets: the first address of the network's range, such as `10.0.0.1`. That is what the
    /// real API returns, although its documentation says that it is the first address of the subnet.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        first_host(self.ip_range)
    }

    /// The subnet that contains an address.
    pub(crate) fn subnet_of(&self, ip: Ipv4Addr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.ip_range.contains(&ip))
    }

    /// The gateway of one subnet: the network's, or for a vSwitch the first address of the subnet.
    pub(crate) fn gateway_of(&self, subnet: &Subnet) -> Ipv4Addr {
        match subnet.kind {
            SubnetKind::Cloud | SubnetKind::Server => self.gateway(),
            SubnetKind::Vswitch { .. } => first_host(subnet.ip_range),
        }
    }
}

/// The first host address of a range.
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

    /// The servers of a network, by id.
    pub(crate) fn members(&self, network: NetworkId) -> impl Iterator<Item = (&Server, &Attachment)> {
        self.servers.values().filter_map(move |server| Some((server, server.attachment(network)?)))
    }

    /// The networks as the data plane has to serve them.
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

/// One network as its virtual gateway has to serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkView {
    /// The id of the network.
    pub id: NetworkId,
    /// The name of the network.
    pub name: String,
    /// The IP range of the network.
    pub ip_range: Ipv4Net,
    /// The virtual gateway's address: the first of the range.
    pub gateway: Ipv4Addr,
    /// The attached servers, by id.
    pub servers: Vec<AttachedServer>,
    /// The routes in the order of their creation.
    pub routes: Vec<Route>,
}

/// An attached server, as the virtual gateway has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttachedServer {
    /// The id of the server.
    pub server: ServerId,
    /// The address that DHCP assigns.
    pub ip: Ipv4Addr,
    /// Further addresses that the network routes to the server.
    pub alias_ips: Vec<Ipv4Addr>,
    /// The MAC address of the private interface.
    pub mac_address: String,
}
