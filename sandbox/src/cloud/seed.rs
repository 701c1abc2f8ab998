//! Changes that take effect at once, without actions and locks: the state before a test, and what other clients do
//! during it. An invalid change panics, because it is a mistake in the test.

use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::model::change::Change;
use super::model::ids::{FirewallId, FloatingIpId, NetworkId, PrimaryIpId, ServerId};
use super::model::locations::HOME;
use super::model::refusal::Refusal;
use super::model::resources::Route;
use super::model::resources::{
    Attachment, Firewall, FirewallRule, FloatingIp, Labels, Network, PrimaryIp, PublicAddress, Server, Subnet,
    SubnetKind,
};
use super::model::subnets;
use super::project::Project;
use super::project::cloud::Cloud;

impl Cloud {
    /// Creates a network with cloud subnets.
    ///
    /// # Panics
    /// The API would refuse it.
    pub fn create_network(&self, name: &str, ip_range: Ipv4Net, subnets: &[Ipv4Net]) -> NetworkId {
        self.seed(|project, now| {
            subnets::check_range(ip_range)?;
            let mut network = Network {
                id: NetworkId(project.next_id()),
                name: name.into(),
                ip_range,
                subnets: Vec::new(),
                routes: Vec::new(),
                delete_protection: false,
                labels: Labels::new(),
                created: now,
                expose_routes_to_vswitch: false,
            };
            for &ip_range in subnets {
                let subnet = Subnet { kind: SubnetKind::Cloud, ip_range, network_zone: HOME.network_zone.into() };
                subnets::check(&network, &subnet)?;
                network.subnets.push(subnet);
            }
            let id = network.id;
            project.resources.networks.insert(id, network);
            Ok(id)
        })
    }

    /// Creates a running server. With a public IPv4 address it also gets a public IPv6 network, and primary IPs for
    /// both.
    pub fn create_server(&self, name: &str, public_ipv4: Option<Ipv4Addr>) -> ServerId {
        self.with_project(|project, now| {
            let id = ServerId(project.next_id());
            let public_ipv6 = public_ipv4.map(|_| public_ipv6_of(id));
            let addresses = public_ipv4.map(PublicAddress::V4).into_iter().chain(public_ipv6.map(PublicAddress::V6));
            for address in addresses {
                let primary = PrimaryIpId(project.next_id());
                let name = format!("primary_ip-{primary}");
                let held = PrimaryIp { id: primary, name, address, server: id, created: now };
                project.resources.primary_ips.insert(primary, held);
            }
            let server = Server {
                id,
                name: name.into(),
                created: now,
                public_ipv4,
                public_ipv6,
                public_mac: project.next_public_mac(),
                attachments: Vec::new(),
                labels: Labels::new(),
            };
            project.resources.servers.insert(id, server);
            id
        })
    }

    /// Attaches a server to a network, with a given address and MAC address, such as `86:00:00:2a:7d:e0`.
    ///
    /// # Panics
    /// One of them does not exist, or the API would refuse it.
    pub fn attach(&self, server: ServerId, network: NetworkId, ip: Ipv4Addr, mac: &str) {
        self.seed(|project, _| {
            let interface_num = project.resources.server(server)?.next_interface_num();
            let attachment =
                Attachment { network, ip, alias_ips: Vec::new(), mac_address: mac.to_lowercase(), interface_num };
            Change::Attach { server, attachment }.apply(&mut project.resources)
        });
    }

    /// Detaches a server from a network.
    ///
    /// # Panics
    /// It is not attached.
    pub fn detach(&self, server: ServerId, network: NetworkId) {
        self.seed(|project, _| Change::Detach { server, network }.apply(&mut project.resources));
    }

    /// Replaces a server's alias IPs in a network.
    ///
    /// # Panics
    /// The server is not attached, or an address is in use.
    pub fn set_alias_ips(&self, server: ServerId, network: NetworkId, alias_ips: &[Ipv4Addr]) {
        let alias_ips = alias_ips.to_vec();
        self.seed(|project, _| Change::SetAliasIps { server, network, alias_ips }.apply(&mut project.resources));
    }

    /// The alias IPs of a server in a network that are in effect now; none if it is not attached.
    pub fn alias_ips(&self, server: ServerId, network: NetworkId) -> Vec<Ipv4Addr> {
        self.with_project(|project, _| {
            let attachment = project.resources.servers.get(&server).and_then(|server| server.attachment(network));
            attachment.map(|attachment| attachment.alias_ips.clone()).unwrap_or_default()
        })
    }

    /// Creates a floating IPv4 address, assigned to a server or unassigned.
    pub fn create_floating_ip(&self, name: &str, ip: Ipv4Addr, server: Option<ServerId>) -> FloatingIpId {
        self.with_project(|project, created| {
            let id = FloatingIpId(project.next_id());
            let floating_ip = FloatingIp { id, name: name.into(), ip, server, labels: Labels::new(), created };
            project.resources.floating_ips.insert(id, floating_ip);
            id
        })
    }

    /// The server that a floating IP is assigned to now.
    pub fn floating_ip_holder(&self, floating_ip: FloatingIpId) -> Option<ServerId> {
        self.with_project(|project, _| project.resources.floating_ips.get(&floating_ip).and_then(|ip| ip.server))
    }

    /// Creates a cloud firewall that is applied to servers. The API lists it, but it filters no packets.
    pub fn create_firewall(&self, name: &str, rules: &[FirewallRule], servers: &[ServerId]) -> FirewallId {
        self.with_project(|project, created| {
            let id = FirewallId(project.next_id());
            let (rules, servers) = (rules.to_vec(), servers.to_vec());
            let firewall = Firewall { id, name: name.into(), rules, servers, labels: Labels::new(), created };
            project.resources.firewalls.insert(id, firewall);
            id
        })
    }

    /// Replaces the labels of a network.
    ///
    /// # Panics
    /// There is no such network.
    pub fn label_network(&self, network: NetworkId, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|&(key, value)| (key.into(), value.into())).collect();
        self.seed(|project, _| {
            project.resources.network_mut(network)?.labels = labels;
            Ok(())
        });
    }

    /// Adds a route and removes one to the same destination, even while an action runs: as a person does in the
    /// console, or terraform by deleting and adding.
    ///
    /// # Panics
    /// There is no such network, or the API would refuse the route.
    pub fn put_route(&self, network: NetworkId, destination: Ipv4Net, gateway: Ipv4Addr) {
        let route = Route { destination, gateway };
        self.seed(|project, _| {
            project.resources.network_mut(network)?.routes.retain(|held| held.destination != destination);
            Change::AddRoute { network, route }.apply(&mut project.resources)
        });
    }

    /// Removes the route to a destination if there is one, even while an action runs.
    ///
    /// # Panics
    /// There is no such network.
    pub fn remove_route(&self, network: NetworkId, destination: Ipv4Net) {
        self.seed(|project, _| {
            project.resources.network_mut(network)?.routes.retain(|held| held.destination != destination);
            Ok(())
        });
    }

    /// The routes of a network as GET shows them now; none if there is no such network.
    pub fn routes(&self, network: NetworkId) -> Vec<Route> {
        self.with_project(|project, _| {
            let visible = project.actions.visible(&project.resources);
            visible.networks.get(&network).map(|network| network.routes.clone()).unwrap_or_default()
        })
    }

    /// Hides an attached network from the metadata of a server, as when the metadata service is late.
    pub fn metadata_hide_network(&self, server: ServerId, network: NetworkId) {
        self.with_project(|project, _| project.hidden.insert((server, network)));
    }

    /// Reverts [`Cloud::metadata_hide_network`].
    pub fn metadata_show_network(&self, server: ServerId, network: NetworkId) {
        self.with_project(|project, _| project.hidden.remove(&(server, network)));
    }

    /// Makes the metadata service of every server take this long for each answer.
    pub fn delay_metadata(&self, delay: std::time::Duration) {
        self.with_project(|project, _| project.metadata_delay = delay);
    }

    fn seed<R>(&self, work: impl FnOnce(&mut Project, std::time::SystemTime) -> Result<R, Refusal>) -> R {
        let seeded = self.with_project(work);
        seeded.unwrap_or_else(|refusal| panic!("the change is invalid: {refusal} ({refusal:?})"))
    }
}

/// A /64 of the documentation prefix that is unique for the server's id.
fn public_ipv6_of(server: ServerId) -> Ipv6Net {
    let network = 0x2001_0db8_u128 << 96 | u128::from(server.0 & 0xffff_ffff) << 64;
    Ipv6Net::new_assert(network.into(), 64)
}
