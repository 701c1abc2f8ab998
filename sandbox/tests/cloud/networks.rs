//! Networks, their subnets and their routes.

use sandbox::cloud::Settings;
use serde_json::{Value, json};

use crate::{World, body, instant, net, route};

#[tokio::test]
async fn a_network_is_shown_with_all_its_fields() {
    let world = World::new(Settings::default());
    world.cloud().put_route(world.network, net("0.0.0.0/0"), [10, 0, 0, 2].into());
    let mut network = world.served.get(&format!("/networks/{}", world.network)).await.json()["network"].clone();
    network["created"] = Value::Null;
    let expected = json!({
        "id": world.network,
        "name": "private",
        "ip_range": "10.0.0.0/16",
        "subnets": [{
            "type": "cloud", "ip_range": "10.0.0.0/24", "network_zone": "eu-central", "gateway": "10.0.0.1",
            "vswitch_id": null,
        }],
        "routes": [{ "destination": "0.0.0.0/0", "gateway": "10.0.0.2" }],
        "servers": [world.bastion, world.host],
        "load_balancers": [],
        "protection": { "delete": false },
        "labels": {},
        "created": null,
        "expose_routes_to_vswitch": false,
    });
    assert_eq!(network, expected);
}

#[tokio::test]
async fn actions_add_and_delete_routes() {
    let world = World::new(Settings::default());
    let default = "0.0.0.0/0 via 10.0.0.2";
    let added = world.served.post(&world.network_action("add_route"), body(default)).await;
    let action = world.served.end_of(&added).await;
    assert_eq!(action["command"], "add_route");
    assert_eq!(action["resources"], json!([{ "id": world.network, "type": "network" }]));
    assert_eq!(world.cloud().routes(world.network), [route(default)]);
    let deleted = world.served.post(&world.network_action("delete_route"), body(default)).await;
    world.served.end_of(&deleted).await;
    assert_eq!(world.cloud().routes(world.network), []);
}

#[tokio::test]
async fn a_refused_route_gets_the_error_text_of_the_real_api() {
    let world = World::new(instant());
    world.cloud().put_route(world.network, net("10.8.0.0/24"), [10, 0, 0, 2].into());
    let invalid = |message: &str| (422, "invalid_input".to_owned(), message.to_owned());
    let overlap = "network route destination overlaps with another subnetwork or network route";
    for (written, message) in [
        ("10.8.0.0/24 via 10.0.0.2", overlap),
        ("10.8.0.0/16 via 10.0.0.2", overlap),
        ("10.0.0.0/24 via 10.0.0.2", overlap),
        ("0.0.0.0/0 via 10.0.0.1", "invalid gateway"),
        ("0.0.0.0/0 via 10.1.0.2", "network route gateway not part of the network IP range (10.0.0.0/16)"),
        ("0.0.0.0/0 via 172.31.1.1", "network route gateway not part of the network IP range (10.0.0.0/16)"),
    ] {
        let got = world.served.post(&world.network_action("add_route"), body(written)).await;
        assert_eq!(got.refusal(), invalid(message), "{written}");
    }
    let absent = world.served.post(&world.network_action("delete_route"), body("10.8.0.0/24 via 10.0.0.3")).await;
    assert_eq!(absent.error(), (404, "not_found".into()));
    assert_eq!(world.cloud().routes(world.network), [route("10.8.0.0/24 via 10.0.0.2")]);
}

#[tokio::test]
async fn the_body_of_a_route_has_destination_and_gateway_and_no_other_fields() {
    let world = World::new(instant());
    let both = json!({ "destination": "0.0.0.0/0", "gateway": "10.0.0.2" });
    let with = |field: &str, value: Value| {
        let mut body = both.clone();
        body[field] = value;
        body
    };
    let without = |field: &str| {
        let mut body = both.clone();
        body.as_object_mut().expect("an object").remove(field);
        body
    };
    for (body, field, problem) in [
        (with("labels", json!({})), "labels", "unknown field"),
        (without("gateway"), "gateway", "is required"),
        (without("destination"), "destination", "is required"),
        (with("destination", json!("0.0.0.0")), "destination", "must be an IPv4 network in CIDR notation"),
        (with("destination", json!("::/0")), "destination", "must be an IPv4 network in CIDR notation"),
        (with("gateway", json!("10.0.0.2/32")), "gateway", "must be an IPv4 address"),
        (with("gateway", json!(7)), "gateway", "must be an IPv4 address"),
    ] {
        for command in ["add_route", "delete_route"] {
            let got = world.served.post(&world.network_action(command), body.clone()).await;
            let message = format!("invalid input in field '{field}': {problem}");
            let details = json!({ "fields": [{ "name": field, "messages": [problem] }] });
            let error = json!({ "code": "invalid_input", "message": message, "details": details });
            assert_eq!((got.status, &got.json()["error"]), (422, &error), "{command} {body}");
        }
    }
    assert_eq!(world.cloud().routes(world.network), []);
}

#[tokio::test]
async fn the_hundred_and_first_route_is_refused() {
    let world = World::new(instant());
    for number in 0..100 {
        world.cloud().put_route(world.network, net(&format!("10.9.{number}.0/24")), [10, 0, 0, 2].into());
    }
    let got = world.served.post(&world.network_action("add_route"), body("0.0.0.0/0 via 10.0.0.2")).await;
    assert_eq!(got.error(), (403, "resource_limit_exceeded".into()));
    assert_eq!(got.json()["error"]["details"], json!({ "limits": [{ "name": "network_route_limit" }] }));
}

#[tokio::test]
async fn an_alias_ip_can_be_a_gateway() {
    let world = World::new(instant());
    world.cloud().set_alias_ips(world.bastion, world.network, &[[10, 0, 0, 100].into()]);
    let got = world.served.post(&world.network_action("add_route"), body("0.0.0.0/0 via 10.0.0.100")).await;
    assert_eq!(got.status, 201);
    assert_eq!(world.cloud().routes(world.network), [route("0.0.0.0/0 via 10.0.0.100")]);
}

#[tokio::test]
async fn a_network_is_created_with_its_subnets_and_routes() {
    let world = World::new(instant());
    let wanted = json!({
        "name": "tenant", "ip_range": "10.2.0.0/16", "labels": { "tenant": "a" },
        "subnets": [
            { "type": "cloud", "network_zone": "eu-central" },
            { "type": "vswitch", "network_zone": "eu-central", "ip_range": "10.2.8.0/24", "vswitch_id": 1000 },
        ],
        "routes": [{ "destination": "0.0.0.0/0", "gateway": "10.2.0.2" }],
    });
    let got = world.served.post("/networks", wanted.clone()).await;
    let network = &got.json()["network"];
    let subnets = json!([
        {
            "type": "cloud", "ip_range": "10.2.0.0/24", "network_zone": "eu-central", "gateway": "10.2.0.1",
            "vswitch_id": null,
        },
        {
            "type": "vswitch", "ip_range": "10.2.8.0/24", "network_zone": "eu-central", "gateway": "10.2.8.1",
            "vswitch_id": 1000,
        },
    ]);
    assert_eq!((got.status, &network["subnets"]), (201, &subnets));
    assert_eq!((&network["routes"], &network["labels"]), (&wanted["routes"], &wanted["labels"]));

    let again = world.served.post("/networks", wanted.clone()).await;
    assert_eq!(again.error(), (409, "uniqueness_error".into()));
    let with = |field: &str, value: Value| {
        let mut body = wanted.clone();
        body["name"] = json!("another");
        body[field] = value;
        body
    };
    for (body, message) in [
        (with("ip_range", json!("10.2.0.0/25")), "invalid ip_range: 10.2.0.0/25 is smaller than /24"),
        (with("ip_range", json!("100.64.0.0/16")), "invalid ip_range: 100.64.0.0/16 is not a private range"),
        (with("name", json!("")), "invalid input in field 'name': must have 1 to 128 characters"),
        (with("labels", json!({ "hetzner.cloud/x": "" })), "invalid input in field 'labels': must be valid labels"),
        (
            with("subnets", json!([{ "type": "cloud", "network_zone": "mars" }])),
            "invalid input in field 'network_zone': is not a network zone",
        ),
        (
            with("subnets", json!([{ "type": "vswitch", "network_zone": "eu-central" }])),
            "subnet of type vswitch needs a vswitch_id",
        ),
    ] {
        let got = world.served.post("/networks", body).await;
        assert_eq!(got.refusal(), (422, "invalid_input".into(), message.into()));
    }
}

#[tokio::test]
async fn new_labels_replace_all_old_ones() {
    let world = World::new(instant());
    world.cloud().label_network(world.network, &[("a", "1"), ("b", "2")]);
    let path = format!("/networks/{}", world.network);
    let got = world.served.put(&path, json!({ "labels": { "c": "3" } })).await.json();
    assert_eq!((&got["network"]["labels"], &got["network"]["name"]), (&json!({ "c": "3" }), &json!("private")));
    let got = world.served.put(&path, json!({ "name": "inside" })).await.json();
    assert_eq!((&got["network"]["labels"], &got["network"]["name"]), (&json!({ "c": "3" }), &json!("inside")));
}

#[tokio::test]
async fn deleting_a_network_detaches_its_servers_unless_it_is_protected() {
    let world = World::new(instant());
    let path = format!("/networks/{}", world.network);
    world.served.post(&world.network_action("change_protection"), json!({ "delete": true })).await;
    assert_eq!(world.served.delete(&path).await.error(), (423, "protected".into()));
    world.served.post(&world.network_action("change_protection"), json!({ "delete": false })).await;
    assert_eq!(world.served.delete(&path).await.status, 204);
    assert_eq!(world.served.get(&path).await.error(), (404, "not_found".into()));
    let server = world.served.get(&format!("/servers/{}", world.host)).await.json();
    assert_eq!(server["server"]["private_net"], json!([]));
}

#[tokio::test]
async fn subnets_are_added_and_deleted_but_not_while_servers_use_them() {
    let world = World::new(instant());
    let subnet = json!({ "type": "cloud", "network_zone": "eu-central" });
    assert_eq!(world.served.post(&world.network_action("add_subnet"), subnet).await.status, 201);
    let ranges = async || {
        let network = world.served.get(&format!("/networks/{}", world.network)).await.json();
        let subnets = network["network"]["subnets"].as_array().expect("a list").clone();
        subnets.iter().map(|subnet| subnet["ip_range"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ranges().await, ["10.0.0.0/24", "10.0.1.0/24"]);
    let delete = async |range: &str| {
        world.served.post(&world.network_action("delete_subnet"), json!({ "ip_range": range })).await
    };
    assert_eq!(delete("10.0.0.0/24").await.error(), (422, "service_error".into()));
    assert_eq!(delete("10.0.5.0/24").await.error(), (404, "not_found".into()));
    assert_eq!(delete("10.0.1.0/24").await.status, 201);
    assert_eq!(ranges().await, ["10.0.0.0/24"]);
}

#[tokio::test]
async fn the_ip_range_of_a_network_can_be_extended() {
    let world = World::new(instant());
    let change = async |range: &str| {
        world.served.post(&world.network_action("change_ip_range"), json!({ "ip_range": range })).await
    };
    assert_eq!(change("10.0.0.0/17").await.error(), (422, "invalid_input".into()));
    assert_eq!(change("10.0.0.0/14").await.status, 201);
    let network = world.served.get(&format!("/networks/{}", world.network)).await.json();
    assert_eq!(network["network"]["ip_range"], "10.0.0.0/14");
}
