//! The private side: networks with their gateways and servers.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::addresses::Range;
use super::gateway::{Gateway, ServerLink};
use crate::cloud::{Cloud, NetworkId, ServerId};
use crate::namespace::{self, Namespace};

/// A network in the cloud, and its gateway.
#[derive(Debug)]
pub(super) struct PrivateNetwork {
    pub(super) id: NetworkId,
    pub(super) range: Range,
    pub(super) gateway: Arc<Gateway>,
}

/// A server's interface in a private network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nic<'a> {
    pub(super) server: ServerId,
    pub(super) namespace: &'a Namespace,
    pub(super) interface: &'a str,
    pub(super) address: Ipv4Addr,
    /// At Hetzner private MAC addresses begin with 86:00 (udev rules of hc-utils).
    pub(super) mac: &'a str,
    pub(super) default_route: DefaultRoute,
}

/// Where a server's default route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DefaultRoute {
    /// To the gateway of its public interface.
    Public,
    /// To the gateway of the private network. Its owner sets it by hand: DHCP sends none on private interfaces (Hetzner
    /// changelog, effective August 2025).
    Private,
}

impl PrivateNetwork {
    pub(super) fn create(cloud: &Cloud, name: &str, namespace: &str, range: Range) -> Result<Self, namespace::Error> {
        let id = cloud.create_network(name, range.range, &range.subnets);
        let gateway = Arc::new(Gateway::create(namespace, id, range)?);
        Ok(Self { id, range, gateway })
    }

    /// Adds an interface, configures it as Hetzner's DHCP does, and attaches the server in the cloud.
    pub(super) fn attach(&self, cloud: &Cloud, nic: Nic<'_>) -> Result<(), namespace::Error> {
        let Nic { server, namespace, interface, address, mac, default_route } = nic;
        self.gateway.connect(ServerLink { server, namespace, interface, mac })?;
        // The interface has a /32; everything else goes through the gateway.
        let (gateway, range) = (self.range.gateway(), self.range.range);
        let default = match default_route {
            DefaultRoute::Private => format!("route add default via {gateway} dev {interface}"),
            DefaultRoute::Public => String::new(),
        };
        namespace.ip(&format!(
            "link set {interface} up
             addr add {address}/32 dev {interface}
             route add {gateway}/32 dev {interface} scope link
             route add {range} via {gateway} dev {interface}
             {default}"
        ))?;
        cloud.attach(server, self.id, address, mac);
        Ok(())
    }
}
