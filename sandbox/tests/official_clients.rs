//! The official clients take the fake cloud for the real one: `hcloud`, the command of Debian's hcloud-cli, and the Python
//! package of the same name. They talk over loopback, to an endpoint that is always named. What they send is held against
//! the OpenAPI document as well.

#[allow(dead_code, reason = "shared by several test binaries")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use common::clock::Clock;
use common::{Served, document};
use ipnet::Ipv4Net;
use sandbox::cloud::{
    Cloud, Fault, FloatingIpId, Injection, Matching, NetworkId, ReadOnlyAnswer, Route, ServerId, Settings, Times,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

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

    /// The command-line client, with nothing of this machine's configuration.
    async fn cli(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new("hcloud")
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("HCLOUD_CONFIG", self.home.path().join("cli.toml"))
            .env("HCLOUD_TOKEN", &self.token)
            .env("HCLOUD_ENDPOINT", self.served.url())
            .kill_on_drop(true)
            .output();
        let output = within_a_minute(output).await;
        let output = output.unwrap_or_else(|error| panic!("hcloud: {error}; scripts/install-test-clients installs it"));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    async fn cli_json(&self, args: &[&str]) -> Value {
        let text = self.cli(&[args, &["-o", "json"]].concat()).await.expect("it succeeds");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn cli_route(&self, verb: &str, [destination, gateway]: [&str; 2]) -> Result<String, String> {
        self.cli(&["network", verb, "private", "--destination", destination, "--gateway", gateway]).await
    }

    /// The Python client, by the little program beside the test data.
    async fn python(&self, args: &[&str]) -> Value {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hcloud_client.py");
        let output = Command::new(python())
            .args([program, &self.served.url(), &self.token])
            .args(args)
            .env_clear()
            .env("HOME", self.home.path())
            .kill_on_drop(true)
            .output();
        let output = within_a_minute(output).await.expect("Python runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    async fn python_route(&self, verb: &str, [destination, gateway]: [&str; 2]) -> Value {
        self.python(&[verb, "private", destination, gateway]).await
    }

    /// The answers to requests of a path that ends so, in their order.
    fn statuses(&self, path: &str) -> Vec<u16> {
        let requests = self.cloud().requests().into_iter().filter(|request| request.path.ends_with(path));
        requests.filter_map(|request| request.status).collect()
    }

    /// Moves the clock on when a client has met a status, and not before: it must have met it, however slow it is.
    async fn step_when_met(&self, status: u16, clock: &Clock, by: Duration) {
        let met = async {
            while !self.cloud().requests().iter().any(|request| request.status == Some(status)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), met).await.expect("a client meets it within a minute");
        clock.step(by);
    }

    /// Starts a change of the network that lasts an hour by the cloud's clock; those after it take no time.
    async fn keep_busy(&self) {
        self.cloud().update_settings(|settings| settings.action_duration = HOUR);
        let path = format!("/networks/{}/actions/add_route", self.network);
        let first = self.served.post(&path, json!({ "destination": OTHER[0], "gateway": OTHER[1] })).await;
        assert_eq!(first.json()["action"]["status"], "running");
        self.cloud().update_settings(|settings| settings.action_duration = Duration::ZERO);
    }

    /// Makes the next request to the end of a path meet an error that the client is to try again on.
    fn next(&self, path: &str, fault: Fault) {
        self.cloud().inject(Injection { matching: Matching::post(path), fault, times: Times::Next(2) });
    }

    /// Whatever the client sent and the cloud took is what the document allows, from the client itself.
    fn check_requests(&self, user_agent: &str) {
        let requests = self.cloud().requests();
        assert!(!requests.is_empty());
        for request in requests {
            let agent = request.user_agent.unwrap_or_default();
            assert!(agent.contains(user_agent), "{agent}");
            let path = request.path.trim_start_matches("/v1");
            let template = document().template(&request.method, path);
            let template = template.unwrap_or_else(|| panic!("{} {path} is not documented", request.method));
            // An empty object where no body is asked for (hcloud-go 1 on unassign) is none: the real API takes it, too.
            let body = if request.body.trim() == "{}" { "" } else { &request.body };
            let problems = document().request_problems(&request.method, template, body);
            assert!(problems.is_empty(), "{} {path} {}: {problems:#?}", request.method, request.body);
        }
    }
}

async fn within_a_minute(output: impl Future<Output = std::io::Result<Output>>) -> std::io::Result<Output> {
    tokio::time::timeout(Duration::from_secs(60), output).await.expect("a client ends within a minute")
}

/// The interpreter that has the official client.
fn python() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv");
    let venv = std::env::var_os("BASTIOND_TEST_VENV").map_or_else(default, PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: run scripts/install-test-clients", python.display());
    python
}

fn net(written: &str) -> Ipv4Net {
    written.parse().expect("a network")
}

fn route([destination, gateway]: [&str; 2]) -> Route {
    Route { destination: net(destination), gateway: gateway.parse().expect("an address") }
}

#[tokio::test]
async fn the_cli_lists_and_describes_networks() {
    let world = World::new();
    let columns = ["network", "list", "-o", "noheader", "-o", "columns=id,name,ip_range"];
    let listed = world.cli(&columns).await.expect("it succeeds");
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(words, [world.network.to_string().as_str(), "private", "10.0.0.0/16"]);
    world.cloud().put_route(world.network, net("10.8.0.0/24"), [10, 0, 0, 2].into());
    let described = world.cli_json(&["network", "describe", "private"]).await;
    assert_eq!(described["routes"], json!([{ "destination": "10.8.0.0/24", "gateway": "10.0.0.2" }]));
    assert_eq!(described["subnets"][0]["gateway"], "10.0.0.1");
    assert_eq!(described["servers"], json!([world.bastion, world.host]));
    let text = world.cli(&["network", "describe", "private"]).await.expect("it succeeds");
    assert!(text.contains("10.8.0.0/24"), "{text}");
    let absent = world.cli(&["network", "describe", "absent"]).await.expect_err("no such network");
    assert!(absent.contains("not found: absent"), "{absent}");
    world.check_requests("hcloud-go/");
}

#[tokio::test]
async fn the_cli_adds_and_deletes_a_route_and_waits_for_its_action() {
    let world = World::new();
    world.cloud().update_settings(|settings| settings.action_duration = Duration::from_millis(700));
    let added = world.cli_route("add-route", DEFAULT).await.expect("it succeeds");
    assert!(added.ends_with(&format!("Route added to network {}", world.network)), "{added}");
    assert_eq!(world.routes(), [route(DEFAULT)], "it waited: the route is there when it returns");
    world.cli_route("remove-route", DEFAULT).await.expect("it succeeds");
    assert_eq!(world.routes(), []);
    world.check_requests("hcloud-go/");
}

#[tokio::test]
async fn the_cli_is_told_why_a_route_is_refused_or_its_action_failed() {
    let world = World::new();
    let refused = world.cli_route("add-route", ["0.0.0.0/0", "10.0.0.1"]).await;
    assert_eq!(refused, Err("hcloud: invalid gateway (invalid_input)".into()));
    let absent = world.cli_route("remove-route", DEFAULT).await.expect_err("there is none");
    assert!(absent.contains("(not_found)"), "{absent}");
    world.next("add_route", Fault::ActionFailed);
    let failed = world.cli_route("add-route", DEFAULT).await.expect_err("its action fails");
    assert!(failed.contains("(action_failed)"), "{failed}");
    assert_eq!(world.routes(), []);
}

#[tokio::test]
async fn the_cli_meets_a_conflict_and_tries_again() {
    let clock = Clock::new();
    let world = World::of(clock.cloud(Settings::default()));
    world.keep_busy().await;
    let (added, ()) = tokio::join!(world.cli_route("add-route", DEFAULT), world.step_when_met(409, &clock, HOUR));
    added.expect("it succeeds in the end");
    assert_eq!(world.statuses("add_route"), [201, 409, 201]);
    assert_eq!(world.routes(), [route(OTHER), route(DEFAULT)]);
}

#[tokio::test]
async fn the_cli_meets_a_rate_limit() {
    let clock = Clock::new();
    let world = World::of(clock.cloud(Settings::default()));
    world.cloud().drain_rate_limit_to(0);
    let second = Duration::from_secs(1);
    let (listed, ()) = tokio::join!(world.cli(&["network", "list"]), world.step_when_met(429, &clock, second));
    match listed {
        // hcloud-go 1 gives up at once, hcloud-go 2 tries again when a second has passed.
        Err(limited) => {
            assert_eq!(limited, "hcloud: limit of 3600 requests per hour reached (rate_limit_exceeded)");
            assert_eq!(world.statuses("/networks"), [429]);
        }
        Ok(listed) => {
            assert!(listed.contains("private"), "{listed}");
            assert_eq!(world.statuses("/networks"), [429, 200]);
        }
    }
    clock.step(second);
    world.cli(&["network", "list"]).await.expect("a second gives one request back");
}

#[tokio::test]
async fn the_cli_is_told_that_its_token_is_wrong_or_may_only_read() {
    let mut world = World::new();
    world.token = Settings::default().read_only_token;
    world.cli(&["network", "list"]).await.expect("reading is allowed");
    let refused = world.cli_route("add-route", DEFAULT).await.expect_err("writing is not");
    assert!(refused.ends_with("(token_readonly)"), "{refused}");
    world.cloud().update_settings(|settings| settings.read_only_answer = ReadOnlyAnswer::Forbidden403);
    let refused = world.cli_route("add-route", DEFAULT).await.expect_err("writing is not");
    assert!(refused.ends_with("(forbidden)"), "{refused}");
    world.token = "wrong".into();
    let refused = world.cli(&["network", "list"]).await;
    assert_eq!(refused, Err("hcloud: the token you have provided is invalid (unauthorized)".into()));
    assert_eq!(world.routes(), []);
}

#[tokio::test]
async fn the_cli_moves_alias_and_floating_ips() {
    let world = World::new();
    let change = async |server: &str, aliases: &str| {
        world.cli(&["server", "change-alias-ips", server, "--network", "private", "--alias-ips", aliases]).await
    };
    let aliases = |server| {
        let aliases = world.cloud().alias_ips(server, world.network);
        aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    change("bastion", "10.0.0.100,10.0.0.101").await.expect("it succeeds");
    assert_eq!(aliases(world.bastion), "10.0.0.100 10.0.0.101");
    let held = change("host", "10.0.0.100").await;
    assert_eq!(held, Err("hcloud: provided IP is not available (ip_not_available)".into()));
    world
        .cli(&["server", "change-alias-ips", "bastion", "--network", "private", "--clear"])
        .await
        .expect("it succeeds");
    change("host", "10.0.0.100").await.expect("it succeeds");
    assert_eq!((aliases(world.bastion), aliases(world.host)), (String::new(), "10.0.0.100".into()));
    let described = world.cli_json(&["server", "describe", "host"]).await;
    assert_eq!(described["private_net"][0]["alias_ips"], json!(["10.0.0.100"]));

    world.cli(&["floating-ip", "assign", "vip", "host"]).await.expect("it succeeds");
    assert_eq!(world.cloud().floating_ip_holder(world.floating_ip), Some(world.host));
    let listed = world.cli(&["floating-ip", "list", "-o", "noheader", "-o", "columns=name,ip,server"]).await;
    let listed = listed.expect("it succeeds");
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["vip", "203.0.113.99", "host"]);
    world.cli(&["floating-ip", "unassign", "vip"]).await.expect("it succeeds");
    assert_eq!(world.cloud().floating_ip_holder(world.floating_ip), None);
    world.check_requests("hcloud-go/");
}

#[tokio::test]
async fn python_lists_and_describes_networks() {
    let world = World::new();
    let network = json!({
        "id": world.network,
        "name": "private",
        "ip_range": "10.0.0.0/16",
        "subnets": [["cloud", "10.0.0.0/24", "eu-central", "10.0.0.1"]],
        "routes": [],
        "servers": [world.bastion, world.host],
    });
    assert_eq!(world.python(&["networks"]).await, json!([network]));
    assert_eq!(world.python(&["network", "private"]).await, network);
    world.check_requests("hcloud-python/2.27.0");
}

#[tokio::test]
async fn python_walks_all_the_pages() {
    let world = World::new();
    for number in 0..60 {
        world.cloud().create_network(&format!("net-{number}"), net(&format!("10.{number}.0.0/24")), &[]);
    }
    let listed = world.python(&["networks"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(61));
    assert_eq!(world.statuses("/networks"), [200, 200], "50 and 11");
}

#[tokio::test]
async fn python_adds_and_deletes_a_route_and_waits_for_its_action() {
    let world = World::new();
    world.cloud().update_settings(|settings| settings.action_duration = Duration::from_millis(300));
    let ended = |command: &str| json!({ "command": command, "status": "success", "progress": 100, "resources": [["network", world.network]] });
    assert_eq!(world.python_route("add-route", DEFAULT).await, ended("add_route"));
    assert_eq!(world.routes(), [route(DEFAULT)]);
    assert_eq!(world.python_route("delete-route", DEFAULT).await, ended("delete_route"));
    assert_eq!(world.routes(), []);
    let history = json!([["add_route", "success"], ["delete_route", "success"]]);
    assert_eq!(world.python(&["actions", "private"]).await, history);
    world.check_requests("hcloud-python/2.27.0");
}

#[tokio::test]
async fn python_is_told_why_a_route_is_refused_or_its_action_failed() {
    let world = World::new();
    world.cloud().put_route(world.network, net("10.8.0.0/24"), [10, 0, 0, 2].into());
    let overlap = "network route destination overlaps with another subnetwork or network route";
    let refused = world.python_route("add-route", ["10.8.0.0/24", "10.0.0.2"]).await;
    assert_eq!(refused, json!({ "error": ["invalid_input", overlap] }));
    let absent = world.python_route("delete-route", DEFAULT).await;
    assert_eq!(absent["error"][0], "not_found");
    world.next("add_route", Fault::ActionFailed);
    let failed = world.python_route("add-route", DEFAULT).await;
    assert_eq!(failed, json!({ "action_error": { "code": "action_failed", "message": "Action failed" } }));
}

#[tokio::test]
async fn python_meets_conflicts_and_rate_limits_and_lost_replies_and_tries_again() {
    let (conflict, limit) = (Fault::Status { code: 409, json: true }, Fault::RateLimited);
    let gateway = Fault::Status { code: 502, json: false };
    for (fault, status) in [(conflict, 409), (limit, 429), (gateway, 502)] {
        let world = World::new();
        world.cloud().inject(Injection { matching: Matching::post("add_route"), fault, times: Times::Next(1) });
        let added = world.python_route("add-route", DEFAULT).await;
        assert_eq!(added["status"], "success", "{added}");
        assert_eq!(world.statuses("add_route"), [status, 201]);
        assert_eq!(world.routes(), [route(DEFAULT)]);
    }
}

#[tokio::test]
async fn python_waits_out_a_busy_network_and_an_empty_bucket() {
    let clock = Clock::new();
    let world = World::of(clock.cloud(Settings::default()));
    world.keep_busy().await;
    let (added, ()) = tokio::join!(world.python_route("add-route", DEFAULT), world.step_when_met(409, &clock, HOUR));
    assert_eq!(added["status"], "success", "{added}");
    assert_eq!(world.statuses("add_route"), [201, 409, 201]);
    assert_eq!(world.routes(), [route(OTHER), route(DEFAULT)]);

    world.cloud().drain_rate_limit_to(0);
    let second = Duration::from_secs(1);
    let (listed, ()) = tokio::join!(world.python(&["networks"]), world.step_when_met(429, &clock, second));
    assert_eq!(listed[0]["name"], "private");
    let met: Vec<u16> = world.statuses("/networks").into_iter().rev().take(2).collect();
    assert_eq!(met, [200, 429], "last one first");
}

#[tokio::test]
async fn python_does_not_try_again_on_a_lock() {
    let world = World::new();
    world.next("add_route", Fault::Api { status: 423, code: "locked".into(), message: "busy".into() });
    assert_eq!(world.python_route("add-route", DEFAULT).await, json!({ "error": ["locked", "busy"] }));
    assert_eq!(world.statuses("add_route"), [423]);
}

#[tokio::test]
async fn python_is_told_that_its_token_is_wrong_or_may_only_read() {
    let mut world = World::new();
    world.token = Settings::default().read_only_token;
    assert_eq!(world.python(&["networks"]).await[0]["name"], "private");
    assert_eq!(world.python_route("add-route", DEFAULT).await["error"][0], "token_readonly");
    world.cloud().update_settings(|settings| settings.read_only_answer = ReadOnlyAnswer::Forbidden403);
    assert_eq!(world.python_route("add-route", DEFAULT).await["error"][0], "forbidden");
    world.token = "wrong".into();
    let refused = json!({ "error": ["unauthorized", "the token you have provided is invalid"] });
    assert_eq!(world.python(&["networks"]).await, refused);
    assert_eq!(world.routes(), []);
}

#[tokio::test]
async fn python_moves_alias_and_floating_ips_and_sees_the_members() {
    let world = World::new();
    let (bastion, host, network) = (world.bastion, world.host, world.network);
    let changed = world.python(&["alias-ips", "private", "bastion", "10.0.0.100"]).await;
    let resources = json!([["server", bastion], ["network", network]]);
    let expected =
        json!({ "command": "change_alias_ips", "status": "success", "progress": 100, "resources": resources });
    assert_eq!(changed, expected);
    let held = world.python(&["alias-ips", "private", "host", "10.0.0.100"]).await;
    assert_eq!(held, json!({ "error": ["ip_not_available", "provided IP is not available"] }));
    let place = json!([network, "10.0.0.2", ["10.0.0.100"], "86:00:00:2a:7d:e0"]);
    let expected = json!({ "location": "hel1", "private_net": [place] });
    assert_eq!(world.python(&["private-net", "private", "bastion"]).await, expected);
    let members = json!([
        ["server", bastion, "10.0.0.2", "ok", ["10.0.0.100"], "10.0.0.0/24"],
        ["server", host, "10.0.0.4", "ok", [], "10.0.0.0/24"],
    ]);
    assert_eq!(world.python(&["members", "private"]).await, members);
    assert_eq!(world.python(&["alias-ips", "private", "bastion"]).await["status"], "success");
    assert_eq!(world.cloud().alias_ips(bastion, network), [std::net::Ipv4Addr::UNSPECIFIED; 0]);

    let assigned = world.python(&["assign", "private", "vip", "host"]).await;
    assert_eq!(assigned["resources"], json!([["server", host], ["floating_ip", world.floating_ip]]));
    assert_eq!(world.cloud().floating_ip_holder(world.floating_ip), Some(host));
    world.check_requests("hcloud-python/2.27.0");
}
