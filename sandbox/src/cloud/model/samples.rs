//! Test fixtures: networks, servers and routes from short texts.

use std::time::SystemTime;

use super::ids::{NetworkId, ServerId};
use super::resources::{Attachment, Labels, Network, Resources, Route, Server, Subnet, SubnetKind};

/// `0.0.0.0/0 via 10.0.0.2`
pub(crate) fn route(written: &str) -> Route {
    let (destination, gateway) = written.split_once(" via ").expect("a route is written as `NET via ADDRESS`");
    Route { destination: destination.parse().unwrap(), gateway: gateway.parse().unwrap() }
}

/// The network with id 1.
pub(crate) fn network(ip_range: &str, subnets: &[&str]) -> Network {
    let subnet = |range: &&str| Subnet {
        kind: SubnetKind::Cloud,
        ip_range: range.parse().unwrap(),
        network_zone: "eu-central".into(),
    };
    Network {
        id: NetworkId(1),
        name: "private".into(),
        ip_range: ip_range.parse().unwrap(),
        subnets: subnets.iter().map(subnet).collect(),
        routes: Vec::new(),
        delete_protection: false,
        labels: Labels::new(),
        created: SystemTime::UNIX_EPOCH,
        expose_routes_to_vswitch: false,
    }
}

/// A server attached to network 1.
pub(crate) fn server(id: u64, ip: &str, alias_ips: &[&str]) -> Server {
    Server {
        id: ServerId(id),
        name: format!("server-{id}"),
        created: SystemTime::UNIX_EPOCH,
        public_ipv4: None,
        public_ipv6: None,
        public_mac: String::new(),
        attachments: vec![Attachment {
            network: NetworkId(1),
            ip: ip.parse().unwrap(),
            alias_ips: alias_ips.iter().map(|alias| alias.parse().unwrap()).collect(),
            mac_address: format!("86:00:00:00:00:{id:02x}"),
            interface_num: 1,
        }],
        labels: Labels::new(),
    }
}

/// The resources of a project with network 1 and these servers.
pub(crate) fn resources(network: Network, servers: impl IntoIterator<Item = Server>) -> Resources {
    Resources {
        networks: [(network.id, network)].into(),
        servers: servers.into_iter().map(|server| (server.id, server)).collect(),
        ..Resources::default()
    }
}
