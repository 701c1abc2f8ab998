//! Actions: locks, progress, visibility, and the data plane.

use std::time::Duration;

use sandbox::cloud::{Busy, Fault, Injection, Matching, Route, Settings, Times, Visible};
use serde_json::{Value, json};

use crate::{Clock, World, body, instant, net, route, slow};

const DEFAULT: &str = "0.0.0.0/0 via 10.0.0.2";

#[tokio::test]
async fn a_second_change_of_a_locked_network_is_refused() {
    let world = World::new(slow());
    let first = world.served.post(&world.network_action("add_route"), body(DEFAULT)).await;
    assert_eq!(first.json()["action"]["status"], "running");
    let subnet = json!({ "type": "cloud", "network_zone": "eu-central" });
    let mutations = [
        ("add_route", body("10.8.0.0/24 via 10.0.0.2")),
        ("add_subnet", subnet),
        ("delete_subnet", json!({ "ip_range": "10.0.0.0/24" })),
        ("change_ip_range", json!({ "ip_range": "10.0.0.0/15" })),
        ("change_protection", json!({ "delete": true })),
    ];
    let path = format!("/networks/{}", world.network);
    for (busy, error) in [(Busy::Conflict409, (409, "conflict")), (Busy::Locked423, (423, "locked"))] {
        world.cloud().update_settings(|settings| settings.busy = busy);
        let error = (error.0, error.1.to_owned());
        for (command, body) in &mutations {
            let got = world.served.post(&world.network_action(command), body.clone()).await;
            assert_eq!(got.error(), error, "{command}");
        }
        assert_eq!(world.served.put(&path, json!({ "name": "other" })).await.error(), error);
        assert_eq!(world.served.delete(&path).await.error(), error);
    }
    let other = world.cloud().create_network("other", net("10.2.0.0/16"), &[]);
    let elsewhere = format!("/networks/{other}/actions/add_route");
    let got = world.served.post(&elsewhere, body("0.0.0.0/0 via 10.2.0.2")).await;
    assert_eq!(got.status, 201, "another network is free");
}

#[tokio::test]
async fn an_action_makes_progress_until_it_ends() {
    let clock = Clock::new();
    let settings = Settings { action_duration: Duration::from_secs(10), ..Settings::default() };
    let world = World::of(clock.cloud(settings));
    let started = world.served.post(&world.network_action("add_route"), body(DEFAULT)).await;
    let mut expected = json!({
        "id": 500_000_000_001_u64, "command": "add_route", "status": "running", "progress": 0,
        "started": "2023-11-14T22:13:20Z", "finished": null, "error": null,
        "resources": [{ "id": world.network, "type": "network" }],
    });
    assert_eq!(started.json()["action"], expected);
    let look = async || world.served.get("/actions/500000000001").await.json()["action"].clone();
    clock.step(Duration::from_millis(4999));
    expected["progress"] = json!(49);
    assert_eq!(look().await, expected);
    assert_eq!(world.cloud().routes(world.network), []);
    clock.step(Duration::from_secs(60));
    let ended = json!({ "status": "success", "progress": 100, "finished": "2023-11-14T22:13:30Z" });
    for (key, value) in ended.as_object().expect("an object") {
        expected[key] = value.clone();
    }
    assert_eq!(look().await, expected);
    assert_eq!(world.cloud().routes(world.network), [route(DEFAULT)]);
}

#[tokio::test]
async fn an_action_without_a_duration_succeeds_at_once() {
    let world = World::new(instant());
    let got = world.served.post(&world.network_action("add_route"), body(DEFAULT)).await;
    assert_eq!(got.json()["action"]["status"], "success");
    assert_eq!(world.cloud().routes(world.network), [route(DEFAULT)]);
}

#[tokio::test]
async fn a_failed_action_reports_its_error_and_changes_nothing() {
    let world = World::new(instant());
    let fault = Fault::ActionFailed;
    world.cloud().inject(Injection { matching: Matching::any(), fault, times: Times::Next(1) });
    let got = world.served.post(&world.network_action("add_route"), body(DEFAULT)).await;
    let action = world.served.end_of(&got).await;
    assert_eq!(action["status"], "error");
    assert_eq!(action["error"], json!({ "code": "action_failed", "message": "Action failed" }));
    assert_eq!(world.cloud().routes(world.network), []);
}

/// The routes in GET, and those of the data plane.
fn both(world: &World) -> (Vec<Route>, Vec<Route>) {
    let views = world.cloud().watch_networks().borrow().clone();
    (world.cloud().routes(world.network), views[0].routes.clone())
}

#[tokio::test]
async fn a_route_can_show_before_it_is_applied() {
    for (visible, listed_meanwhile) in [(Visible::OnFinish, vec![]), (Visible::OnAccept, vec![route(DEFAULT)])] {
        let clock = Clock::new();
        let action_duration = Duration::from_secs(1);
        let world = World::of(clock.cloud(Settings { visible, action_duration, ..Settings::default() }));
        let got = world.served.post(&world.network_action("add_route"), body(DEFAULT)).await;
        assert_eq!(got.status, 201);
        assert_eq!(both(&world), (listed_meanwhile.clone(), vec![]), "{visible:?}");
        let network = world.served.get(&format!("/networks/{}", world.network)).await.json()["network"].clone();
        assert_eq!(network["routes"], serde_json::to_value(&listed_meanwhile).expect("routes"), "{visible:?}");
        clock.step(action_duration);
        world.cloud().settle();
        assert_eq!(both(&world), (vec![route(DEFAULT)], vec![route(DEFAULT)]), "{visible:?}");
    }
}

#[tokio::test]
async fn the_watchers_get_every_change_without_a_request() {
    let settings = Settings { action_duration: Duration::from_secs(1), ..Settings::default() };
    let world = World::new(settings);
    let mut views = world.cloud().watch_networks();
    let before = views.borrow_and_update().clone();
    let expected = json!([{
        "id": world.network, "name": "private", "ip_range": "10.0.0.0/16", "gateway": "10.0.0.1",
        "servers": [
            { "server": world.bastion, "ip": "10.0.0.2", "alias_ips": [], "mac_address": "86:00:00:2a:7d:e0" },
            { "server": world.host, "ip": "10.0.0.4", "alias_ips": [], "mac_address": "86:00:00:2a:7d:e1" },
        ],
        "routes": [],
    }]);
    assert_eq!(serde_json::to_value(&before).expect("views serialize"), expected);

    // No client polls the action, but the change arrives.
    world.served.post(&world.network_action("add_route"), body(DEFAULT)).await;
    assert_eq!(*views.borrow(), before);
    let arrived = tokio::time::timeout(Duration::from_secs(5), views.changed()).await;
    arrived.expect("within the action's time").expect("the cloud is there");
    assert_eq!(views.borrow_and_update()[0].routes, [route(DEFAULT)]);

    world.cloud().set_alias_ips(world.host, world.network, &[[10, 0, 0, 9].into()]);
    assert!(views.has_changed().expect("the cloud is there"));
    assert_eq!(views.borrow_and_update()[0].servers[1].alias_ips, [std::net::Ipv4Addr::new(10, 0, 0, 9)]);
    world.cloud().routes(world.network);
    assert!(!views.has_changed().expect("the cloud is there"), "a request changes nothing");
}

#[tokio::test]
async fn an_immediate_change_ignores_locks_and_wins() {
    let clock = Clock::new();
    let world = World::of(clock.cloud(slow()));
    let started = world.served.post(&world.network_action("add_route"), body(DEFAULT)).await;
    world.cloud().put_route(world.network, net("0.0.0.0/0"), [10, 0, 0, 4].into());
    clock.step(slow().action_duration);
    let action = world.served.end_of(&started).await;
    assert_eq!(action["status"], "error");
    assert_eq!(world.cloud().routes(world.network), [route("0.0.0.0/0 via 10.0.0.4")]);
    world.cloud().put_route(world.network, net("0.0.0.0/0"), [10, 0, 0, 2].into());
    assert_eq!(world.cloud().routes(world.network), [route(DEFAULT)]);
    world.cloud().remove_route(world.network, net("0.0.0.0/0"));
    assert_eq!(world.cloud().routes(world.network), []);
}

#[tokio::test]
async fn several_actions_can_be_requested_and_unknown_ids_are_left_out() {
    let world = World::new(instant());
    for written in [DEFAULT, "10.8.0.0/24 via 10.0.0.2"] {
        world.served.post(&world.network_action("add_route"), body(written)).await;
    }
    let body = world.served.get("/actions?id=500000000002&id=7&id=500000000001&page=1").await.json();
    let ids: Vec<&Value> = body["actions"].as_array().expect("a list").iter().map(|action| &action["id"]).collect();
    assert_eq!(ids, [500_000_000_001_u64, 500_000_000_002]);
    assert_eq!(world.served.get("/actions?id=x").await.error(), (422, "invalid_input".into()));
    let server = format!("/servers/{}/actions", world.host);
    assert_eq!(world.served.get(&server).await.json()["actions"], json!([]));
}
