//! The fake cloud over HTTP. The rules have unit tests of their own.

#[allow(dead_code, reason = "shared by several test binaries")]
#[path = "../common/mod.rs"]
mod common;

mod actions;
mod faults;
mod floating_ips;
mod lists;
mod metadata;
mod networks;
mod request_checks;
mod servers;

use std::time::Duration;

use common::Served;
use common::clock::Clock;
use ipnet::Ipv4Net;
use sandbox::cloud::{Cloud, NetworkId, Route, ServerId, Settings};

/// A cloud with one network and two servers.
struct World {
    served: Served,
    network: NetworkId,
    bastion: ServerId,
    host: ServerId,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self::of(Cloud::new(settings))
    }

    fn of(cloud: Cloud) -> Self {
        let network = cloud.create_network("private", net("10.0.0.0/16"), &[net("10.0.0.0/24")]);
        let bastion = cloud.create_server("bastion", Some([203, 0, 113, 2].into()));
        let host = cloud.create_server("host", None);
        cloud.attach(bastion, network, [10, 0, 0, 2].into(), "86:00:00:2a:7d:e0");
        cloud.attach(host, network, [10, 0, 0, 4].into(), "86:00:00:2A:7D:E1");
        Self { served: Served::start(cloud), network, bastion, host }
    }

    fn cloud(&self) -> &Cloud {
        &self.served.cloud
    }

    /// `/networks/<id>/actions/<command>`
    fn network_action(&self, command: &str) -> String {
        format!("/networks/{}/actions/{command}", self.network)
    }
}

fn net(written: &str) -> Ipv4Net {
    written.parse().expect("a network")
}

/// `0.0.0.0/0 via 10.0.0.2`
fn route(written: &str) -> Route {
    let (destination, gateway) = written.split_once(" via ").expect("NET via ADDRESS");
    Route { destination: net(destination), gateway: gateway.parse().expect("an address") }
}

/// The body of a request that adds or deletes a route.
fn body(written: &str) -> serde_json::Value {
    serde_json::to_value(route(written)).expect("a route serializes")
}

fn slow() -> Settings {
    Settings { action_duration: Duration::from_secs(3600), ..Settings::default() }
}

fn instant() -> Settings {
    Settings { action_duration: Duration::ZERO, ..Settings::default() }
}
