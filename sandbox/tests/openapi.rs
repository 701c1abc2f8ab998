//! Every answer of the fake cloud is one that the official OpenAPI document allows, and so is every request that it
//! takes.
//!
//! [`common::Served`] holds each exchange against the document; the tests here make sure that there is one for every
//! endpoint and for every kind of answer.

#[allow(dead_code, reason = "shared by several test binaries")]
mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::clock::Clock;
use common::{Served, document};
use reqwest::Method;
use sandbox::cloud::{
    Cloud, Fault, FirewallRule, Injection, Matching, RateLimit, ReadOnlyAnswer, Settings, Times, endpoints,
};
use serde_json::{Value, json};

/// A project with something of everything.
struct Project {
    served: Served,
    network: u64,
    bastion: u64,
    host: u64,
    floating_ip: u64,
    primary_ip: u64,
    firewall: u64,
    /// One of the network's, which has ended.
    action: u64,
}

async fn project() -> Project {
    populated(Cloud::default()).await
}

async fn populated(cloud: Cloud) -> Project {
    let network = cloud.create_network("private", net("10.0.0.0/16"), &[net("10.0.0.0/24"), net("10.0.9.0/24")]);
    let bastion = cloud.create_server("bastion", Some([203, 0, 113, 2].into()));
    let host = cloud.create_server("host", None);
    cloud.attach(bastion, network, [10, 0, 0, 2].into(), "86:00:00:2a:7d:e0");
    cloud.set_alias_ips(bastion, network, &[[10, 0, 0, 10].into()]);
    cloud.put_route(network, net("10.8.0.0/24"), [10, 0, 0, 2].into());
    cloud.label_network(network, &[("env", "test")]);
    let floating_ip = cloud.create_floating_ip("vip", [203, 0, 113, 99].into(), Some(bastion));
    let ssh = FirewallRule { protocol: "tcp", port: Some("22".into()), source_ips: vec!["0.0.0.0/0".into()] };
    let ping = FirewallRule { protocol: "icmp", port: None, source_ips: vec!["::/0".into()] };
    let firewall = cloud.create_firewall("outside", &[ssh, ping], &[bastion]);
    let served = Served::start(cloud);
    let started =
        served.post(&format!("/networks/{network}/actions/change_protection"), json!({ "delete": false })).await;
    let action = served.end_of(&started).await["id"].as_u64().expect("an id");
    let primary_ip = served.get("/primary_ips").await.json()["primary_ips"][0]["id"].as_u64().expect("an id");
    let (network, bastion, host, floating_ip, firewall) = (network.0, bastion.0, host.0, floating_ip.0, firewall.0);
    Project { served, network, bastion, host, floating_ip, primary_ip, firewall, action }
}

fn net(written: &str) -> ipnet::Ipv4Net {
    written.parse().expect("a network")
}

impl Project {
    /// A request to each endpoint that is carried out, in an order in which they all can be: the router's own, but
    /// deletions last.
    fn requests(&self) -> Vec<(Method, &'static str, String, Option<Value>)> {
        let mut endpoints: Vec<_> = endpoints().collect();
        endpoints.sort_by_key(|(method, _)| method == Method::DELETE);
        let request = |(method, template): (Method, &'static str)| {
            let body = self.body(&method, template);
            (method, template, self.path(template), body)
        };
        endpoints.into_iter().map(request).collect()
    }

    fn path(&self, template: &str) -> String {
        let id = match template.split('/').nth(1) {
            Some("actions") => self.action,
            Some("networks") => self.network,
            Some("servers") => self.host,
            Some("floating_ips") => self.floating_ip,
            Some("primary_ips") => self.primary_ip,
            Some("firewalls") => self.firewall,
            Some("locations" | "datacenters") => 3,
            other => panic!("which of {other:?} is there to ask for?"),
        };
        let query = match template {
            "/actions" => format!("?id={}&id=1", self.action),
            "/networks" => "?name=private&label_selector=env%3Dtest&sort=id:desc".into(),
            "/networks/{id}/members" => "?type=server&status=ok".into(),
            _ => String::new(),
        };
        template.replace("{id}", &id.to_string()).replace("{action_id}", &self.action.to_string()) + &query
    }

    fn body(&self, method: &Method, template: &str) -> Option<Value> {
        let network = self.network;
        if method == Method::PUT {
            return Some(json!({ "name": "inner", "labels": { "a": "b" } }));
        }
        if method != Method::POST {
            return None;
        }
        Some(match template.rsplit('/').next()? {
            "networks" => json!({
                "name": "spare", "ip_range": "10.2.0.0/16", "labels": { "env": "test" },
                "expose_routes_to_vswitch": true,
                "subnets": [
                    { "type": "cloud", "network_zone": "eu-central" },
                    { "type": "server", "network_zone": "eu-central", "ip_range": "10.2.9.0/24" },
                    { "type": "vswitch", "network_zone": "eu-central", "ip_range": "10.2.8.0/24", "vswitch_id": 1000 },
                ],
                "routes": [{ "destination": "10.8.0.0/24", "gateway": "10.2.0.2" }],
            }),
            "add_route" | "delete_route" => json!({ "destination": "0.0.0.0/0", "gateway": "10.0.0.2" }),
            "add_subnet" => json!({ "type": "cloud", "network_zone": "eu-central", "ip_range": "10.0.7.0/24" }),
            "delete_subnet" => json!({ "ip_range": "10.0.7.0/24" }),
            "change_ip_range" => json!({ "ip_range": "10.0.0.0/15" }),
            "change_protection" => json!({ "delete": false }),
            "attach_to_network" => json!({ "network": network, "ip": "10.0.0.20", "alias_ips": ["10.0.0.21"] }),
            "change_alias_ips" => json!({ "network": network, "alias_ips": ["10.0.0.22"] }),
            "detach_from_network" => json!({ "network": network }),
            "assign" => json!({ "server": self.host }),
            "unassign" => return None,
            other => panic!("no value for the parameter {other}"),
        })
    }
}

type Checked = BTreeSet<(String, String, u16)>;

fn expected(status: impl Fn(&Method, &str) -> Option<u16>) -> Checked {
    endpoints()
        .filter_map(|(method, path)| Some((method.to_string(), path.to_owned(), status(&method, path)?)))
        .collect()
}

/// The answer of an endpoint that carries its request out.
fn success(method: &Method, path: &str) -> u16 {
    match method.as_str() {
        _ if path.starts_with("/datacenters") => 410,
        "POST" => 201,
        "DELETE" => 204,
        _ => 200,
    }
}

#[tokio::test]
async fn the_answers_of_every_endpoint_are_as_documented() {
    let project = project().await;
    let requests = project.requests();
    for (method, template, path, body) in requests {
        let got = project.served.send(method.clone(), &path, body.map(|body| body.to_string())).await;
        assert_eq!(got.status, success(&method, template), "{method} {path}: {}", got.text);
        if got.status == 201 && got.json().get("action").is_some() {
            let action = project.served.end_of(&got).await;
            assert_eq!((&action["status"], &action["error"]), (&json!("success"), &Value::Null), "{path}");
        }
    }
    let all = expected(|method, path| Some(success(method, path)));
    let checked = project.served.checked();
    let unchecked: Vec<_> = all.difference(&checked).collect();
    assert!(unchecked.is_empty(), "endpoints of the router without a checked success: {unchecked:#?}");
    let undocumented: Vec<_> =
        endpoints().filter(|(method, path)| document().template(method.as_str(), path) != Some(path)).collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

#[tokio::test]
async fn the_errors_of_every_endpoint_are_as_documented() {
    let mut project = project().await;
    let requests = project.requests();
    let token = project.served.token.take();
    let cloud = project.served.cloud.clone();

    // In front of the endpoints.
    let mut expect = Vec::new();
    for (token, reading, writing) in [
        (None, (401, "unauthorized"), (401, "unauthorized")),
        (Some("wrong".to_owned()), (401, "unauthorized"), (401, "unauthorized")),
        (Some(Settings::default().read_only_token), (0, ""), (401, "token_readonly")),
    ] {
        project.served.token = token;
        for (method, template, path, body) in &requests {
            let got = project.served.send(method.clone(), path, body.as_ref().map(Value::to_string)).await;
            let (status, code) = if method == Method::GET { reading } else { writing };
            if status != 0 {
                assert_eq!(got.error(), (status, code.into()), "{method} {path}");
                expect.push((method.to_string(), (*template).to_owned(), status));
            }
        }
    }
    cloud.update_settings(|settings| settings.read_only_answer = ReadOnlyAnswer::Forbidden403);
    for (method, _, path, body) in requests.iter().filter(|(method, ..)| method != Method::GET) {
        let got = project.served.send(method.clone(), path, body.as_ref().map(Value::to_string)).await;
        assert_eq!(got.error(), (403, "forbidden".into()), "{method} {path}");
    }
    project.served.token = token;

    // Faults, and the rate limit.
    for (method, _, path, body) in &requests {
        for code in [400, 401, 403, 404, 405, 409, 412, 422, 423, 429, 500, 502, 503, 504] {
            let fault = Fault::Status { code, json: true };
            cloud.inject(Injection { matching: Matching::any(), fault, times: Times::Next(1) });
            let got = project.served.send(method.clone(), path, body.as_ref().map(Value::to_string)).await;
            assert_eq!(got.status, code, "{method} {path}");
        }
        for (fault, error) in [
            (Fault::RateLimited, (429, "rate_limit_exceeded")),
            (Fault::Maintenance, (403, "maintenance")),
            (Fault::Api { status: 422, code: "service_error".into(), message: "no".into() }, (422, "service_error")),
        ] {
            cloud.inject(Injection { matching: Matching::any(), fault, times: Times::Next(1) });
            let got = project.served.send(method.clone(), path, body.as_ref().map(Value::to_string)).await;
            assert_eq!(got.error(), (error.0, error.1.into()), "{method} {path}");
        }
        cloud.drain_rate_limit_to(0);
        let got = project.served.send(method.clone(), path, body.as_ref().map(Value::to_string)).await;
        assert_eq!(got.error(), (429, "rate_limit_exceeded".into()), "{method} {path}");
        cloud.update_settings(|settings| settings.rate_limit.burst += 1); // full again
    }
    let all = expected(|_, _| Some(401));
    assert_eq!(all.difference(&expect.into_iter().collect()).collect::<Vec<_>>(), Vec::<&_>::new());
}

#[tokio::test]
async fn ids_that_do_not_exist_and_broken_bodies_are_answered_as_documented() {
    let project = project().await;
    let served = &project.served;
    let requests = project.requests();
    for (method, template) in endpoints().filter(|(_, path)| path.contains("{id}") && !path.starts_with("/datacenters"))
    {
        for id in ["9", "abc"] {
            let path = template.replace("{id}", id).replace("{action_id}", id);
            let got = served.send(method.clone(), &path, Some("{}".into())).await;
            assert_eq!(got.error(), (404, "not_found".into()), "{method} {path}");
        }
    }
    for (method, template, path, body) in requests.iter().filter(|(.., body)| body.is_some()) {
        for broken in ["", "{", "[]"] {
            let got = served.send(method.clone(), path, Some(broken.into())).await;
            assert_eq!(got.error(), (400, "json_error".into()), "{method} {path} {broken}");
        }
        let mut with_unknown = body.clone().unwrap_or_default();
        with_unknown["unknown"] = json!(true);
        let closed = !document().request_problems(method.as_str(), template, &with_unknown.to_string()).is_empty();
        if closed {
            let got = served.send(method.clone(), path, Some(with_unknown.to_string())).await;
            let fields = json!({ "fields": [{ "name": "unknown", "messages": ["unknown field"] }] });
            assert_eq!(got.error(), (422, "invalid_input".into()), "{method} {path}");
            assert_eq!(got.json()["error"]["details"], fields, "{method} {path}");
        }
        for field in body.as_ref().and_then(Value::as_object).into_iter().flatten().map(|(field, _)| field) {
            let mut wrong = body.clone().unwrap_or_default();
            wrong[field] = json!({ "of": ["another", "kind"] });
            if field == "labels" {
                wrong[field] = json!(7);
            }
            let got = served.send(method.clone(), path, Some(wrong.to_string())).await;
            assert_eq!(got.error(), (422, "invalid_input".into()), "{method} {path} {wrong}");
        }
    }
}

#[tokio::test]
async fn lists_and_their_pages_are_as_documented() {
    let project = project().await;
    let served = &project.served;
    let lists = [
        "/networks",
        "/networks/actions",
        &format!("/networks/{}/actions", project.network),
        &format!("/networks/{}/members", project.network),
        "/servers",
        &format!("/servers/{}/actions", project.bastion),
        "/floating_ips",
        &format!("/floating_ips/{}/actions", project.floating_ip),
        "/primary_ips",
        "/firewalls",
        "/locations",
    ];
    for list in lists {
        for (query, status) in [
            ("page=1&per_page=1", 200),
            ("page=99", 200),
            ("per_page=1000", 200),
            ("sort=id:desc", 200),
            ("page=0", 422),
            ("page=x", 422),
            ("per_page=0", 422),
            ("sort=nothing", 422),
            ("sort=id:sideways", 422),
        ] {
            let got = served.get(&format!("{list}?{query}")).await;
            assert_eq!(got.status, status, "{list}?{query}: {}", got.text);
        }
    }
    assert_eq!(served.get("/actions").await.error(), (410, "deprecated_api_endpoint".into()));
}

#[tokio::test]
async fn actions_and_members_are_as_documented_in_every_state() {
    let clock = Clock::new();
    let action_duration = Duration::ZERO;
    let project = populated(clock.cloud(Settings { action_duration, ..Settings::default() })).await;
    let Project { served, network, bastion, host, .. } = &project;
    let action_duration = Duration::from_secs(1);
    served.cloud.update_settings(|settings| settings.action_duration = action_duration);
    let states = async |started: &common::served::Got| {
        let id = started.json()["action"]["id"].clone();
        let mut seen = BTreeSet::new();
        for path in
            ["/actions/{id}", "/actions?id={id}", "/networks/{network}/actions", "/networks/{network}/actions/{id}"]
        {
            let path = path.replace("{id}", &id.to_string()).replace("{network}", &network.to_string());
            let body = served.get(&path).await.json();
            let listed = body["actions"].as_array().and_then(|all| all.iter().find(|action| action["id"] == id));
            let action = listed.unwrap_or(&body["action"]);
            seen.insert((action["status"].to_string(), action["error"]["code"].to_string()));
        }
        seen
    };
    let only = |status: &str, code: &str| BTreeSet::from([(status.to_owned(), code.to_owned())]);
    let member = async || {
        let members = served.get(&format!("/networks/{network}/members?sort=id:desc")).await.json();
        (members["members"][0]["id"].clone(), members["members"][0]["status"].clone())
    };

    for (server, verb, body, status) in [
        (host, "attach_to_network", json!({ "network": network }), "attaching"),
        (host, "change_alias_ips", json!({ "network": network, "alias_ips": ["10.0.0.77"] }), "updating"),
        (host, "detach_from_network", json!({ "network": network }), "detaching"),
        (bastion, "change_alias_ips", json!({ "network": network, "alias_ips": [] }), "updating"),
    ] {
        let started = served.post(&format!("/servers/{server}/actions/{verb}"), body).await;
        assert_eq!(states(&started).await, only("\"running\"", "null"), "{verb}");
        assert_eq!(member().await, (json!(server), json!(status)), "{verb}");
        assert_eq!(served.get(&format!("/servers/{server}")).await.json()["server"]["locked"], true, "{verb}");
        clock.step(action_duration);
        assert_eq!(states(&started).await, only("\"success\"", "null"), "{verb}");
    }
    assert_eq!(member().await, (json!(bastion), json!("ok")));

    let matching = Matching::post("add_route");
    served.cloud.inject(Injection { matching, fault: Fault::ActionFailed, times: Times::Next(1) });
    let route = json!({ "destination": "0.0.0.0/0", "gateway": "10.0.0.2" });
    let started = served.post(&format!("/networks/{network}/actions/add_route"), route).await;
    clock.step(action_duration);
    assert_eq!(states(&started).await, only("\"error\"", "\"action_failed\""));
}

#[tokio::test]
async fn an_empty_project_is_listed_as_documented() {
    let rate_limit = RateLimit { burst: 100, refill_per_second: 1 };
    let served = Served::start(Cloud::new(Settings { rate_limit, ..Settings::default() }));
    for list in ["networks", "servers", "floating_ips", "primary_ips", "firewalls"] {
        let pagination = json!({
            "page": 1, "per_page": 25, "previous_page": null, "next_page": null, "last_page": 1, "total_entries": 0,
        });
        let expected = json!({ list: [], "meta": { "pagination": pagination } });
        assert_eq!(served.get(&format!("/{list}")).await.json(), expected);
    }
}

#[test]
fn the_openapi_document_rejects_wrong_answers() {
    let violations = |status: u16, body: Value| {
        document().answer_problems("GET", "/networks/{id}/members", status, &body.to_string()).len()
    };
    let meta = json!({ "pagination": {
        "page": 1, "per_page": 25, "previous_page": null, "next_page": null, "last_page": 1, "total_entries": 1,
    } });
    let member = json!({
        "type": "server", "id": 1, "ip": "10.0.0.2", "status": "ok", "alias_ips": ["10.0.0.3"], "subnet": "10.0.0.0/24",
    });
    assert_eq!(violations(200, json!({ "members": [member], "meta": meta })), 0);
    let mut misspelt = member.clone();
    misspelt["status"] = json!("fine");
    assert_eq!(violations(200, json!({ "members": [misspelt], "meta": meta })), 1);
    let mut formless = member.clone();
    formless["alias_ips"] = json!(["10.0.0.300"]);
    assert_eq!(violations(200, json!({ "members": [formless], "meta": meta })), 1);
    assert_eq!(violations(200, json!({ "members": [member] })), 1);
    assert_eq!(violations(201, json!({})), 1, "no such status");
    assert_eq!(violations(404, json!({ "error": { "code": "not_found", "message": "", "details": null } })), 0);
    assert_eq!(violations(404, json!({ "error": { "code": "not_found", "details": null } })), 1);
    let request = |body: &str| document().request_problems("POST", "/networks/{id}/actions/add_route", body).len();
    assert_eq!(request(r#"{"destination":"0.0.0.0/0","gateway":"10.0.0.2"}"#), 0);
    assert_eq!(request(r#"{"destination":"0.0.0.0/0"}"#), 1);
    assert_eq!(request(r#"{"destination":"0.0.0.0/0","gateway":"10.0.0.2","via":"x"}"#), 1);
}
