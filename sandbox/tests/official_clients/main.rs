//! The official clients work with the fake cloud: `hcloud`, the command of Debian's hcloud-cli, and the Python package
//! of the same name. They use the loopback interface and an explicit endpoint. Their requests are checked against the
//! OpenAPI document too.

#[allow(dead_code, reason = "shared by several test binaries")]
#[path = "../common/mod.rs"]
mod common;

mod command_line;
mod documented;
mod python;

use std::process::Output;
use std::time::Duration;

use common::clock::Clock;
use common::{Served, document};
use ipnet::Ipv4Net;
use sandbox::cloud::{Cloud, Fault, FloatingIpId, Injection, Matching, NetworkId, Route, ServerId, Settings, Times};
use serde_json::json;
use tempfile::TempDir;

const DEFAULT: [&str; 2] = ["0.0.0.0/0", "10.0.0.2"];
const OTHER: [&str; 2] = ["10.8.0.0/24", "10.0.0.2"];
const HOUR: Duration = Duration::from_secs(3600);

struct World {
    served: Served,
    token: String,
    network: NetworkId,
    bastion: ServerId,
    host: ServerId,
    floating_ip: FloatingIpId,
    home: TempDir,
}

impl World {
    fn new() -> Self {
        Self::of(Cloud::default())
    }

    fn of(cloud: Cloud) -> Self {
        let network = cloud.create_network("private", net("10.0.0.0/16"), &[net("10.0.0.0/24")]);
        let bastion = cloud.create_server("bastion", Some([203, 0, 113, 2].into()));
        let host = cloud.create_server("host", None);
        cloud.attach(bastion, network, [10, 0, 0, 2].into(), "86:00:00:2a:7d:e0");
        cloud.attach(host, network, [10, 0, 0, 4].into(), "86:00:00:2a:7d:e1");
        let floating_ip = cloud.create_floating_ip("vip", [203, 0, 113, 99].into(), None);
        let home = TempDir::new().expect("a temporary directory");
        let token = Settings::default().token;
        Self { served: Served::start(cloud), token, network, bastion, host, floating_ip, home }
    }

    fn cloud(&self) -> &Cloud {
        &self.served.cloud
    }

    fn routes(&self) -> Vec<Route> {
        self.cloud().routes(self.network)
    }

    /// The statuses of the answers to requests whose path has this suffix, in order.
    fn statuses(&self, path: &str) -> Vec<u16> {
        let requests = self.cloud().requests().into_iter().filter(|request| request.path.ends_with(path));
        requests.filter_map(|request| request.status).collect()
    }

    /// Advances the clock after a client has received a status, however slow the client is.
    async fn step_when_met(&self, status: u16, clock: &Clock, by: Duration) {
        let met = async {
            while !self.cloud().requests().iter().any(|request| request.status == Some(status)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), met).await.expect("a client meets it within a minute");
        clock.step(by);
    }

    /// Starts a change of the network that lasts an hour by the cloud's clock. Later changes take no time.
    async fn keep_busy(&self) {
        self.cloud().update_settings(|settings| settings.action_duration = HOUR);
        let path = format!("/networks/{}/actions/add_route", self.network);
        let first = self.served.post(&path, json!({ "destination": OTHER[0], "gateway": OTHER[1] })).await;
        assert_eq!(first.json()["action"]["status"], "running");
        self.cloud().update_settings(|settings| settings.action_duration = Duration::ZERO);
    }

    /// Injects a fault for the next request that adds a route.
    fn break_add_route(&self, fault: Fault) {
        self.cloud().inject(Injection { matching: Matching::post("add_route"), fault, times: Times::Next(1) });
    }

    /// Checks that all accepted requests of the client are as documented.
    fn check_requests(&self, user_agent: &str) {
        let requests = self.cloud().requests();
        assert!(!requests.is_empty());
        for request in requests {
            let agent = request.user_agent.unwrap_or_default();
            assert!(agent.contains(user_agent), "{agent}");
            let path = request.path.trim_start_matches("/v1");
            let template = document().template(&request.method, path);
            let template = template.unwrap_or_else(|| panic!("{} {path} is not documented", request.method));
            // hcloud-go 1 sends an empty object to unassign, where no body is documented, and an empty gateway for a
            // subnet.
            let body = if request.body.trim() == "{}" { "" } else { &request.body };
            let body = body.replace(",\"gateway\":\"\"}", "}");
            let problems = document().request_problems(&request.method, template, &body);
            assert!(problems.is_empty(), "{} {path} {}: {problems:#?}", request.method, request.body);
        }
    }
}

async fn within_a_minute(output: impl Future<Output = std::io::Result<Output>>) -> std::io::Result<Output> {
    tokio::time::timeout(Duration::from_secs(60), output).await.expect("a client ends within a minute")
}

fn net(written: &str) -> Ipv4Net {
    written.parse().expect("a network")
}

fn route([destination, gateway]: [&str; 2]) -> Route {
    Route { destination: net(destination), gateway: gateway.parse().expect("an address") }
}
