//! `hcloud`, the command of Debian's hcloud-cli.

use std::time::Duration;

use sandbox::cloud::{Fault, ReadOnlyAnswer, Settings};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::clock::Clock;
use crate::{DEFAULT, HOUR, OTHER, World, net, route, within_a_minute};

impl World {
    /// Runs the command-line client without the configuration of this machine.
    pub(crate) async fn cli(&self, args: &[&str]) -> Result<String, String> {
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
        let output = output.unwrap_or_else(|error| panic!("hcloud: {error}; run scripts/install-test-clients"));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").trim().to_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub(crate) async fn cli_json(&self, args: &[&str]) -> Value {
        let text = self.cli(&[args, &["-o", "json"]].concat()).await.expect("success");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn cli_route(&self, verb: &str, [destination, gateway]: [&str; 2]) -> Result<String, String> {
        self.cli(&["network", verb, "private", "--destination", destination, "--gateway", gateway]).await
    }
}

#[tokio::test]
async fn the_command_lists_and_describes_networks() {
    let world = World::new();
    let columns = ["network", "list", "-o", "noheader", "-o", "columns=id,name,ip_range"];
    let listed = world.cli(&columns).await.expect("success");
    let words: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(words, [world.network.to_string().as_str(), "private", "10.0.0.0/16"]);
    world.cloud().put_route(world.network, net("10.8.0.0/24"), [10, 0, 0, 2].into());
    let described = world.cli_json(&["network", "describe", "private"]).await;
    assert_eq!(described["routes"], json!([{ "destination": "10.8.0.0/24", "gateway": "10.0.0.2" }]));
    assert_eq!(described["subnets"][0]["gateway"], "10.0.0.1");
    assert_eq!(described["servers"], json!([world.bastion, world.host]));
    let text = world.cli(&["network", "describe", "private"]).await.expect("success");
    assert!(text.contains("10.8.0.0/24"), "{text}");
    let absent = world.cli(&["network", "describe", "absent"]).await.expect_err("no such network");
    assert!(absent.contains("not found: absent"), "{absent}");
    world.check_requests("hcloud-go/");
}

#[tokio::test]
async fn the_command_adds_and_deletes_a_route_and_waits_for_its_action() {
    let world = World::new();
    world.cloud().update_settings(|settings| settings.action_duration = Duration::from_millis(700));
    let added = world.cli_route("add-route", DEFAULT).await.expect("success");
    assert!(added.ends_with(&format!("Route added to network {}", world.network)), "{added}");
    assert_eq!(world.routes(), [route(DEFAULT)], "it waited: the route is there when it returns");
    world.cli_route("remove-route", DEFAULT).await.expect("success");
    assert_eq!(world.routes(), []);
    world.check_requests("hcloud-go/");
}

#[tokio::test]
async fn the_command_reports_why_a_route_is_refused_or_its_action_failed() {
    let world = World::new();
    let refused = world.cli_route("add-route", ["0.0.0.0/0", "10.0.0.1"]).await;
    assert_eq!(refused, Err("hcloud: invalid gateway (invalid_input)".into()));
    let absent = world.cli_route("remove-route", DEFAULT).await.expect_err("there is none");
    assert!(absent.contains("(not_found)"), "{absent}");
    world.break_add_route(Fault::ActionFailed);
    let failed = world.cli_route("add-route", DEFAULT).await.expect_err("its action fails");
    assert!(failed.contains("(action_failed)"), "{failed}");
    assert_eq!(world.routes(), []);
}

#[tokio::test]
async fn the_command_retries_on_a_conflict() {
    let clock = Clock::new();
    let world = World::of(clock.cloud(Settings::default()));
    world.keep_busy().await;
    let (added, ()) = tokio::join!(world.cli_route("add-route", DEFAULT), world.step_when_met(409, &clock, HOUR));
    added.expect("success after retries");
    assert_eq!(world.statuses("add_route"), [201, 409, 201]);
    assert_eq!(world.routes(), [route(OTHER), route(DEFAULT)]);
}

#[tokio::test]
async fn the_command_reports_a_rate_limit() {
    let clock = Clock::new();
    let world = World::of(clock.cloud(Settings::default()));
    world.cloud().drain_rate_limit_to(0);
    let second = Duration::from_secs(1);
    let (listed, ()) = tokio::join!(world.cli(&["network", "list"]), world.step_when_met(429, &clock, second));
    match listed {
        // hcloud-go 1 fails at once, hcloud-go 2 retries after a second.
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
async fn the_command_reports_a_wrong_or_read_only_token() {
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
async fn the_command_moves_alias_and_floating_ips() {
    let world = World::new();
    let change = async |server: &str, aliases: &str| {
        world.cli(&["server", "change-alias-ips", server, "--network", "private", "--alias-ips", aliases]).await
    };
    let aliases = |server| {
        let aliases = world.cloud().alias_ips(server, world.network);
        aliases.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    change("bastion", "10.0.0.100,10.0.0.101").await.expect("success");
    assert_eq!(aliases(world.bastion), "10.0.0.100 10.0.0.101");
    let held = change("host", "10.0.0.100").await;
    assert_eq!(held, Err("hcloud: provided IP is not available (ip_not_available)".into()));
    world.cli(&["server", "change-alias-ips", "bastion", "--network", "private", "--clear"]).await.expect("success");
    change("host", "10.0.0.100").await.expect("success");
    assert_eq!((aliases(world.bastion), aliases(world.host)), (String::new(), "10.0.0.100".into()));
    let described = world.cli_json(&["server", "describe", "host"]).await;
    assert_eq!(described["private_net"][0]["alias_ips"], json!(["10.0.0.100"]));

    world.cli(&["floating-ip", "assign", "vip", "host"]).await.expect("success");
    assert_eq!(world.cloud().floating_ip_holder(world.floating_ip), Some(world.host));
    let listed = world.cli(&["floating-ip", "list", "-o", "noheader", "-o", "columns=name,ip,server"]).await;
    let listed = listed.expect("success");
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["vip", "203.0.113.99", "host"]);
    world.cli(&["floating-ip", "unassign", "vip"]).await.expect("success");
    assert_eq!(world.cloud().floating_ip_holder(world.floating_ip), None);
    world.check_requests("hcloud-go/");
}
