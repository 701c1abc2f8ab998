//! Filters, sorting and pages.

use sandbox::cloud::{Cloud, OverLongPage, Settings};
use serde_json::{Value, json};

use crate::common::Served;
use crate::{World, instant, net};

/// Seven networks, `net-0` to `net-6`; the even ones are `env=test`.
fn seven() -> Served {
    let cloud = Cloud::default();
    for number in 0..7 {
        let network = cloud.create_network(&format!("net-{number}"), net(&format!("10.{number}.0.0/16")), &[]);
        if number % 2 == 0 {
            cloud.label_network(network, &[("env", "test"), ("number", &number.to_string())]);
        }
    }
    Served::start(cloud)
}

fn names(got: &Value) -> Vec<String> {
    let networks = got["networks"].as_array().expect("a list").iter();
    networks.map(|network| network["name"].as_str().expect("a name").replace("net-", "")).collect()
}

async fn listed(served: &Served, query: &str) -> String {
    let got = served.get(&format!("/networks?{query}")).await;
    assert_eq!(got.status, 200, "{query}: {}", got.text);
    names(&got.json()).join(" ")
}

#[tokio::test]
async fn a_list_has_pages_and_each_page_names_the_previous_and_the_next() {
    let served = seven();
    for (page, expected, previous, next) in [
        (1, "0 1 2", Value::Null, json!(2)),
        (2, "3 4 5", json!(1), json!(3)),
        (3, "6", json!(2), Value::Null),
        (4, "", json!(3), Value::Null),
        (99, "", json!(98), Value::Null),
    ] {
        let body = served.get(&format!("/networks?page={page}&per_page=3")).await.json();
        assert_eq!(names(&body).join(" "), expected, "{page}");
        let pagination = json!({
            "page": page, "per_page": 3, "previous_page": previous, "next_page": next,
            "last_page": 3, "total_entries": 7,
        });
        assert_eq!(body["meta"]["pagination"], pagination);
    }
}

#[tokio::test]
async fn the_link_header_has_the_urls_of_the_other_pages() {
    let served = seven();
    let got = served.get("/networks?page=2&per_page=3").await;
    let url = format!("{}/networks", served.url());
    let link = |page: u8, rel: &str| format!("<{url}?page={page}&per_page=3>; rel=\"{rel}\"");
    assert_eq!(got.header("link"), [link(1, "prev"), link(3, "next"), link(3, "last")].join(", "));
    let got = served.get("/networks?page=3&per_page=3").await;
    assert_eq!(got.header("link"), [link(2, "prev"), link(3, "last")].join(", "));
}

#[tokio::test]
async fn a_page_has_25_entries_or_up_to_50() {
    let cloud = Cloud::default();
    for number in 0..60 {
        cloud.create_network(&format!("net-{number}"), net(&format!("10.{number}.0.0/16")), &[]);
    }
    let served = Served::start(cloud);
    let count = async |query: &str| {
        let body = served.get(&format!("/networks?{query}")).await.json();
        (names(&body).len(), body["meta"]["pagination"]["per_page"].as_u64())
    };
    assert_eq!(count("").await, (25, Some(25)));
    assert_eq!(count("per_page=50").await, (50, Some(50)));
    assert_eq!(count("per_page=51").await, (50, Some(50)));
    assert_eq!(count("per_page=51&page=2").await, (10, Some(50)));
    served.cloud.update_settings(|settings| settings.over_long_page = OverLongPage::Refuse);
    assert_eq!(served.get("/networks?per_page=51").await.error(), (422, "invalid_input".into()));
    assert_eq!(count("per_page=50").await, (50, Some(50)));
}

#[tokio::test]
async fn a_list_is_filtered_by_name_and_by_labels() {
    let served = seven();
    for (query, expected) in [
        ("name=net-3", "3"),
        ("name=net", ""),
        ("label_selector=env", "0 2 4 6"),
        ("label_selector=env%3Dtest", "0 2 4 6"),
        ("label_selector=!env", "1 3 5"),
        ("label_selector=env%3D%3Dtest,number%20in%20(2,4)", "2 4"),
        ("label_selector=number%20notin%20(0,2)", "1 3 4 5 6"),
        ("label_selector=number!%3D6&name=net-6", ""),
    ] {
        assert_eq!(listed(&served, query).await, expected, "{query}");
    }
    let got = served.get("/networks?label_selector=a%20b").await;
    assert_eq!(got.error(), (422, "invalid_input".into()));
}

#[tokio::test]
async fn a_list_is_sorted_as_requested_and_by_id_by_default() {
    let served = seven();
    for (query, expected) in [
        ("", "0 1 2 3 4 5 6"),
        ("sort=id:desc", "6 5 4 3 2 1 0"),
        ("sort=name:desc", "6 5 4 3 2 1 0"),
        ("sort=name:asc&sort=id:desc", "0 1 2 3 4 5 6"),
        ("sort=name", "0 1 2 3 4 5 6"),
    ] {
        assert_eq!(listed(&served, query).await, expected, "{query}");
    }
    assert_eq!(served.get("/networks?sort=weight").await.error(), (422, "invalid_input".into()));
}

#[tokio::test]
async fn servers_are_filtered_by_status() {
    let world = World::new(Settings::default());
    let count = async |query: &str| {
        let body = world.served.get(&format!("/servers?{query}")).await.json();
        body["servers"].as_array().expect("a list").len()
    };
    assert_eq!(count("status=running").await, 2);
    assert_eq!(count("status=off").await, 0);
    assert_eq!(count("status=off&status=running").await, 2);
    assert_eq!(world.served.get("/servers?status=asleep").await.error(), (422, "invalid_input".into()));
}

#[tokio::test]
async fn primary_ips_are_filtered_by_address() {
    let world = World::new(Settings::default());
    let body = world.served.get("/primary_ips?ip=203.0.113.2").await.json();
    assert_eq!(body["primary_ips"].as_array().expect("a list").len(), 1);
    assert_eq!(body["primary_ips"][0]["assignee_id"], json!(world.bastion));
    let public = world.served.get(&format!("/servers/{}", world.bastion)).await.json()["server"]["public_net"].clone();
    assert_eq!(body["primary_ips"][0]["id"], public["ipv4"]["id"]);
}

#[tokio::test]
async fn histories_are_filtered_by_status_and_sorted() {
    let world = World::new(instant());
    for delete in [true, false] {
        let path = world.network_action("change_protection");
        assert_eq!(world.served.post(&path, json!({ "delete": delete })).await.status, 201);
    }
    let history = async |query: &str| {
        let body = world.served.get(&format!("/networks/{}/actions?{query}", world.network)).await.json();
        let actions = body["actions"].as_array().expect("a list").clone();
        actions.iter().map(|action| action["id"].as_u64().expect("an id") % 10).collect::<Vec<_>>()
    };
    assert_eq!(history("").await, [1, 2]);
    assert_eq!(history("sort=id:desc").await, [2, 1]);
    assert_eq!(history("status=running").await, [0; 0]);
    assert_eq!(history("status=success&status=error").await, [1, 2]);
    assert_eq!(history("id=500000000002").await, [2]);
}
