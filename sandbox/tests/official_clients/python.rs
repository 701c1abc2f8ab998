//! `hcloud`, the Python package.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox::cloud::{Fault, ReadOnlyAnswer, Settings};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::clock::Clock;
use crate::{DEFAULT, HOUR, OTHER, World, net, route, within_a_minute};

impl World {
    /// Runs the Python client with the program in the test data.
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
}

/// The interpreter that has the official client.
fn python() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv");
    let venv = std::env::var_os("BASTIOND_TEST_VENV").map_or_else(default, PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is missing: run scripts/install-test-clients", python.display());
    python
}

#[tokio::test]
async fn it_lists_and_describes_networks() {
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
async fn it_reads_all_pages() {
    let world = World::new();
    for number in 0..60 {
        world.cloud().create_network(&format!("net-{number}"), net(&format!("10.{number}.0.0/24")), &[]);
    }
    let listed = world.python(&["networks"]).await;
    assert_eq!(listed.as_array().map(Vec::len), Some(61));
    assert_eq!(world.statuses("/networks"), [200, 200], "50 and 11");
}

#[tokio::test]
async fn it_adds_and_deletes_a_route_and_waits_for_its_action() {
    let world = World::new();
    world.cloud().update_settings(|settings| settings.action_duration = Duration::from_millis(300));
    let resources = json!([["network", world.network]]);
    let ended =
        |command: &str| json!({ "command": command, "status": "success", "progress": 100, "resources": resources });
    assert_eq!(world.python_route("add-route", DEFAULT).await, ended("add_route"));
    assert_eq!(world.routes(), [route(DEFAULT)]);
    assert_eq!(world.python_route("delete-route", DEFAULT).await, ended("delete_route"));
    assert_eq!(world.routes(), []);
    let history = json!([["add_route", "success"], ["delete_route", "success"]]);
    assert_eq!(world.python(&["actions", "private"]).await, history);
    world.check_requests("hcloud-python/2.27.0");
}

#[tokio::test]
async fn it_reports_why_a_route_is_refused_or_its_action_failed() {
    let world = World::new();
    world.cloud().put_route(world.network, net("10.8.0.0/24"), [10, 0, 0, 2].into());
    let overlap = "network route destination overlaps with another subnetwork or network route";
    let refused = world.python_route("add-route", ["10.8.0.0/24", "10.0.0.2"]).await;
    assert_eq!(refused, json!({ "error": ["invalid_input", overlap] }));
    let absent = world.python_route("delete-route", DEFAULT).await;
    assert_eq!(absent["error"][0], "not_found");
    world.break_add_route(Fault::ActionFailed);
    let failed = world.python_route("add-route", DEFAULT).await;
    assert_eq!(failed, json!({ "action_error": { "code": "action_failed", "message": "Action failed" } }));
}

#[tokio::test]
async fn it_retries_on_conflicts_and_rate_limits_and_bad_gateways() {
    let (conflict, limit) = (Fault::Status { code: 409, json: true }, Fault::RateLimited);
    let gateway = Fault::Status { code: 502, json: false };
    for (fault, status) in [(conflict, 409), (limit, 429), (gateway, 502)] {
        let world = World::new();
        world.break_add_route(fault);
        let added = world.python_route("add-route", DEFAULT).await;
        assert_eq!(added["status"], "success", "{added}");
        assert_eq!(world.statuses("add_route"), [status, 201]);
        assert_eq!(world.routes(), [route(DEFAULT)]);
    }
}

#[tokio::test]
async fn it_waits_out_a_busy_network_and_an_empty_bucket() {
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
async fn it_does_not_retry_on_a_lock() {
    let world = World::new();
    world.break_add_route(Fault::Api { status: 423, code: "locked".into(), message: "busy".into() });
    assert_eq!(world.python_route("add-route", DEFAULT).await, json!({ "error": ["locked", "busy"] }));
    assert_eq!(world.statuses("add_route"), [423]);
}

#[tokio::test]
async fn it_reports_a_wrong_or_read_only_token() {
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
async fn it_moves_alias_and_floating_ips_and_lists_the_members() {
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
