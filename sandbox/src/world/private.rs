//! The private side: networks with their gateways, and the hosts in them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::addresses::Range;
use super::gateway::{Gateway, Plug};
use crate::cloud::{Cloud, NetworkId, ServerId};
use crate::namespace::{self, Namespace};

/// A network in the cloud, and the gateway that serves it.
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
    /// Private ones begin with 86:00 (udev rules of Hetzner's hc-utils).
    pub(super) mac: &'a str,
    pub(super) default_route: DefaultRoute,
}

/// Who gives a server its default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DefaultRoute {
    /// Its public interface.
    Public,
    /// Its owner, by hand, to the network's gateway: DHCP pushes none on private interfaces (Hetzner changelog,
    /// effective August 2025).
    Private,
}

impl PrivateNetwork {
    pub(super) fn open(cloud: &Cloud, name: &str, namespace: &str, range: Range) -> Result<Self, namespace::Error> {
        let id = cloud.create_network(name, range.range, &range.subnets);
        let gateway = Arc::new(Gateway::open(namespace, id, range)?);
        Ok(Self { id, range, gateway })
    }

    /// Hot-plugs an interface, configures it as Hetzner's DHCP does, and tells the cloud.
    pub(super) fn attach(&self, cloud: &Cloud, nic: Nic<'_>) -> Result<(), namespace::Error> {
        let Nic { server, namespace, interface, address, mac, default_route } = nic;
        self.gateway.plug(Plug { server, namespace, interface, mac })?;
        // The address alone, and all else through the gateway.
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
