//! Floating IPs and their assignments.

use sandbox::cloud::FloatingReassign;
use serde_json::json;

use crate::{World, instant, slow};

#[tokio::test]
async fn a_floating_ip_moves_at_once_or_must_be_unassigned_first() {
    let world = World::new(instant());
    let vip = world.cloud().create_floating_ip("vip", [203, 0, 113, 99].into(), Some(world.bastion));
    let act = async |verb: &str, body| world.served.post(&format!("/floating_ips/{vip}/actions/{verb}"), body).await;
    let assigned = (422, "floating_ip_assigned".into());

    assert_eq!(act("assign", json!({ "server": world.bastion })).await.error(), assigned, "it is there already");
    let moved = act("assign", json!({ "server": world.host })).await;
    let resources = json!([{ "id": world.host, "type": "server" }, { "id": vip, "type": "floating_ip" }]);
    assert_eq!(moved.json()["action"]["resources"], resources);
    assert_eq!(moved.json()["action"]["command"], "assign_floating_ip");
    assert_eq!(world.cloud().floating_ip_holder(vip), Some(world.host));

    world.cloud().update_settings(|settings| settings.floating_reassign = FloatingReassign::Refused);
    assert_eq!(act("assign", json!({ "server": world.bastion })).await.error(), assigned);
    let unassign = format!("/floating_ips/{vip}/actions/unassign");
    assert_eq!(world.served.send(reqwest::Method::POST, &unassign, None).await.status, 201);
    assert_eq!(world.cloud().floating_ip_holder(vip), None);
    assert_eq!(world.served.send(reqwest::Method::POST, &unassign, None).await.error(), (422, "service_error".into()));
    assert_eq!(act("assign", json!({ "server": world.bastion })).await.status, 201);
    assert_eq!(world.cloud().floating_ip_holder(vip), Some(world.bastion));

    let server = world.served.get(&format!("/servers/{}", world.bastion)).await.json();
    assert_eq!(server["server"]["public_net"]["floating_ips"], json!([vip]));
    world.cloud().update_settings(|settings| settings.floating_reassign = FloatingReassign::Direct);
    assert_eq!(act("assign", json!({ "server": 9 })).await.error(), (404, "not_found".into()));
    assert_eq!(act("assign", json!({ "server": null })).await.error(), (422, "invalid_input".into()));
}

#[tokio::test]
async fn a_floating_ip_that_is_being_moved_is_locked_and_its_server_is_not() {
    let world = World::new(slow());
    let vip = world.cloud().create_floating_ip("vip", [203, 0, 113, 99].into(), None);
    let assign = format!("/floating_ips/{vip}/actions/assign");
    assert_eq!(world.served.post(&assign, json!({ "server": world.host })).await.status, 201);
    assert_eq!(world.served.post(&assign, json!({ "server": world.bastion })).await.error(), (423, "locked".into()));
    assert_eq!(world.cloud().floating_ip_holder(vip), None);
    let server = world.served.get(&format!("/servers/{}", world.host)).await.json();
    assert_eq!(server["server"]["locked"], false);
}
