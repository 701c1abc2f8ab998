//! Servers in networks: attaching, alias IPs, members.

use std::net::Ipv4Addr;

use sandbox::cloud::Settings;
use serde_json::{Value, json};

use crate::{World, instant, net, slow};

impl World {
    async fn act(&self, server: sandbox::cloud::ServerId, command: &str, body: Value) -> crate::common::served::Got {
        self.served.post(&format!("/servers/{server}/actions/{command}"), body).await
    }

    async fn members(&self, query: &str) -> Value {
        self.served.get(&format!("/networks/{}/members?{query}", self.network)).await.json()["members"].clone()
    }
}

#[tokio::test]
async fn a_server_shows_its_attachment_to_the_network() {
    let world = World::new(Settings::default());
    world.cloud().set_alias_ips(world.host, world.network, &[[10, 0, 0, 40].into()]);
    let server = world.served.get(&format!("/servers/{}", world.host)).await.json()["server"].clone();
    let place = json!({
        "network": world.network, "ip": "10.0.0.4", "alias_ips": ["10.0.0.40"], "mac_address": "86:00:00:2a:7d:e1",
    });
    assert_eq!(server["private_net"], json!([place]));
    assert_eq!(server["public_net"], json!({ "ipv4": null, "ipv6": null, "floating_ips": [], "firewalls": [] }));
    let bastion = world.served.get(&format!("/servers/{}", world.bastion)).await.json()["server"].clone();
    assert_eq!(bastion["public_net"]["ipv4"]["ip"], "203.0.113.2");
    assert!(bastion.get("datacenter").is_none(), "gone since 2026-07-01");
    assert_eq!((&bastion["location"]["name"], &bastion["locked"]), (&json!("hel1"), &json!(false)));
}

#[tokio::test]
async fn a_server_gets_the_requested_address_or_a_free_one() {
    let world = World::new(instant());
    let fresh = world.cloud().create_server("fresh", None);
    let got = world.act(fresh, "attach_to_network", json!({ "network": world.network })).await;
    let resources = json!([{ "id": fresh, "type": "server" }, { "id": world.network, "type": "network" }]);
    assert_eq!(got.json()["action"]["resources"], resources);
    let place = |body: Value| body["server"]["private_net"][0]["ip"].clone();
    assert_eq!(place(world.served.get(&format!("/servers/{fresh}")).await.json()), "10.0.0.3");
    let again = world.act(fresh, "attach_to_network", json!({ "network": world.network })).await;
    assert_eq!(again.error(), (422, "server_already_attached".into()));

    world.act(fresh, "detach_from_network", json!({ "network": world.network })).await;
    let taken = world.act(fresh, "attach_to_network", json!({ "network": world.network, "ip": "10.0.0.4" })).await;
    assert_eq!(taken.refusal(), (422, "ip_not_available".into(), "provided IP is not available".into()));
    let elsewhere = json!({ "network": world.network, "ip_range": "10.0.9.0/24" });
    let nowhere = world.act(fresh, "attach_to_network", elsewhere).await;
    assert_eq!(nowhere.refusal(), (422, "no_subnet_available".into(), "no subnet or IP available".into()));
    let apart = json!({ "network": world.network, "ip": "10.0.0.9", "ip_range": "10.0.9.0/24" });
    assert_eq!(world.act(fresh, "attach_to_network", apart).await.error(), (422, "invalid_input".into()));
    let asked = json!({ "network": world.network, "ip": "10.0.0.50", "alias_ips": ["10.0.0.51"] });
    assert_eq!(world.act(fresh, "attach_to_network", asked).await.status, 201);
    assert_eq!(world.cloud().alias_ips(fresh, world.network), [Ipv4Addr::new(10, 0, 0, 51)]);

    let wide = world.cloud().create_network("wide", net("10.0.0.0/8"), &[net("10.9.0.0/24")]);
    let overlapping = world.act(fresh, "attach_to_network", json!({ "network": wide })).await;
    assert_eq!(overlapping.error(), (422, "networks_overlap".into()));
    let absent = world.act(fresh, "attach_to_network", json!({ "network": 9 })).await;
    assert_eq!(absent.error(), (404, "not_found".into()));
}

#[tokio::test]
async fn new_alias_ips_replace_all_old_ones_and_belong_to_one_server() {
    let world = World::new(instant());
    let change = async |server, aliases: &[&str]| {
        world.act(server, "change_alias_ips", json!({ "network": world.network, "alias_ips": aliases })).await
    };
    let aliases = |server| world.cloud().alias_ips(server, world.network);
    let (vip, other): (Ipv4Addr, Ipv4Addr) = ([10, 0, 0, 100].into(), [10, 0, 0, 101].into());
    assert_eq!(change(world.bastion, &["10.0.0.100", "10.0.0.101"]).await.status, 201);
    assert_eq!(aliases(world.bastion), [vip, other]);
    assert_eq!(change(world.host, &["10.0.0.100"]).await.error(), (422, "ip_not_available".into()));
    assert_eq!(change(world.bastion, &["10.0.0.101"]).await.status, 201);
    assert_eq!(change(world.host, &["10.0.0.100"]).await.status, 201);
    assert_eq!((aliases(world.bastion), aliases(world.host)), (vec![other], vec![vip]));
    assert_eq!(change(world.host, &[]).await.status, 201);
    assert_eq!(aliases(world.host), [Ipv4Addr::UNSPECIFIED; 0]);

    let keyless = world.act(world.host, "change_alias_ips", json!({ "network": world.network })).await;
    assert_eq!(keyless.error(), (422, "invalid_input".into()));
    let other = world.cloud().create_network("other", net("10.2.0.0/16"), &[]);
    let apart = world.act(world.host, "change_alias_ips", json!({ "network": other, "alias_ips": [] })).await;
    assert_eq!(apart.error(), (422, "invalid_input".into()));
}

#[tokio::test]
async fn a_server_that_is_being_changed_is_locked_and_its_network_reports_a_conflict() {
    let world = World::new(slow());
    let clear = json!({ "network": world.network, "alias_ips": [] });
    assert_eq!(world.act(world.bastion, "change_alias_ips", clear.clone()).await.status, 201);
    let again = world.act(world.bastion, "change_alias_ips", clear.clone()).await;
    let message = "cannot perform operation because server is locked";
    assert_eq!(again.refusal(), (423, "locked".into(), message.into()));
    assert_eq!(world.act(world.host, "change_alias_ips", clear).await.error(), (409, "conflict".into()));
    let locked =
        async |server| world.served.get(&format!("/servers/{server}")).await.json()["server"]["locked"].clone();
    assert_eq!((locked(world.bastion).await, locked(world.host).await), (json!(true), json!(false)));
}

#[tokio::test]
async fn members_show_which_servers_are_being_attached_detached_or_changed() {
    let world = World::new(slow());
    let member = |id, ip: &str, status: &str| {
        let subnet = "10.0.0.0/24";
        json!({ "type": "server", "id": id, "ip": ip, "status": status, "alias_ips": [], "subnet": subnet })
    };
    let fresh = world.cloud().create_server("fresh", None);
    let bastion = member(world.bastion, "10.0.0.2", "ok");
    let host = member(world.host, "10.0.0.4", "ok");
    assert_eq!(world.members("").await, json!([bastion, host]));
    assert_eq!(world.members("sort=ip:desc").await, json!([host, bastion]));
    assert_eq!(world.members("type=load_balancer").await, json!([]));
    assert_eq!(world.members("subnet=10.0.1.0/24").await, json!([]));
    world.act(fresh, "attach_to_network", json!({ "network": world.network })).await;
    let coming = member(fresh, "10.0.0.3", "attaching");
    assert_eq!(world.members("").await, json!([bastion, host, coming]));
    assert_eq!(world.members("status=attaching").await, json!([coming]));
    assert_eq!(world.members("status=ok&subnet=10.0.0.0/24").await, json!([bastion, host]));
}

#[tokio::test]
async fn a_server_is_renamed_to_a_hostname_that_no_other_has() {
    let world = World::new(Settings::default());
    let path = format!("/servers/{}", world.host);
    let rename = async |name: &str| world.served.put(&path, json!({ "name": name })).await;
    assert_eq!(rename("bastion").await.error(), (409, "uniqueness_error".into()));
    assert_eq!(rename("not_a_hostname").await.error(), (422, "invalid_input".into()));
    assert_eq!(rename("web-1.example").await.json()["server"]["name"], "web-1.example");
    let labelled = world.served.put(&path, json!({ "labels": { "role": "web" } })).await.json();
    assert_eq!(
        (&labelled["server"]["labels"], &labelled["server"]["name"]),
        (&json!({ "role": "web" }), &json!("web-1.example"))
    );
}
