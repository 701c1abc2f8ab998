//! Resources as JSON, field by field as in the OpenAPI document.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::cloud::model::change::Change;
use crate::cloud::model::ids::{NetworkId, ResourceId};
use crate::cloud::model::locations::{self, Location};
use crate::cloud::model::resources::{
    Attachment, Firewall, FloatingIp, Network, PrimaryIp, PublicAddress, Resources, Server, Subnet, SubnetKind,
};
use crate::cloud::project::actions::{Action, ActionLog, Status};
use crate::cloud::project::clock::rfc3339;

pub(super) fn action(action: &Action, now: SystemTime) -> Value {
    let resource = |resource: &ResourceId| {
        let (kind, id) = resource.kind_and_id();
        json!({ "id": id, "type": kind })
    };
    let error = json!({ "code": "action_failed", "message": "Action failed" });
    json!({
        "id": action.id,
        "command": action.change.command(),
        "status": action.status().name(),
        "progress": action.progress(now),
        "started": rfc3339(action.started),
        "finished": action.finished().map(rfc3339),
        "resources": action.resources.iter().map(resource).collect::<Vec<_>>(),
        "error": if action.status() == Status::Error { error } else { Value::Null },
    })
}

pub(super) fn network(resources: &Resources, network: &Network) -> Value {
    let route = |route: &crate::cloud::Route| json!({ "destination": route.destination, "gateway": route.gateway });
    json!({
        "id": network.id,
        "name": network.name,
        "ip_range": network.ip_range,
        "subnets": network.subnets.iter().map(|held| subnet(network, held)).collect::<Vec<_>>(),
        "routes": network.routes.iter().map(route).collect::<Vec<_>>(),
        "servers": resources.members(network.id).map(|(server, _)| server.id).collect::<Vec<_>>(),
        "load_balancers": [],
        "protection": { "delete": network.delete_protection },
        "labels": network.labels,
        "created": rfc3339(network.created),
        "expose_routes_to_vswitch": network.expose_routes_to_vswitch,
    })
}

fn subnet(network: &Network, subnet: &Subnet) -> Value {
    let (kind, vswitch_id) = match subnet.kind {
        SubnetKind::Cloud => ("cloud", None),
        SubnetKind::Server => ("server", None),
        SubnetKind::Vswitch { id } => ("vswitch", Some(id)),
    };
    json!({
        "type": kind,
        "ip_range": subnet.ip_range,
        "network_zone": subnet.network_zone,
        "gateway": network.gateway_of(subnet),
        "vswitch_id": vswitch_id,
    })
}

/// The status of a member of a network, by the running actions.
pub(super) fn member_status(actions: &ActionLog, server: &Server, network: NetworkId) -> &'static str {
    let mut here = actions.running().filter_map(|action| match &action.change {
        Change::Attach { server, attachment } => Some((*server, attachment.network, "attaching")),
        Change::Detach { server, network } => Some((*server, *network, "detaching")),
        Change::SetAliasIps { server, network, .. } => Some((*server, *network, "updating")),
        _ => None,
    });
    let status = here.find(|&(id, other, _)| (id, other) == (server.id, network));
    status.map_or("ok", |(_, _, status)| status)
}

pub(super) fn member(network: &Network, server: &Server, attachment: &Attachment, status: &str) -> Value {
    json!({
        "type": "server",
        "id": server.id,
        "ip": attachment.ip,
        "status": status,
        "alias_ips": attachment.alias_ips,
        "subnet": network.subnet_of(attachment.ip).map_or(network.ip_range, |subnet| subnet.ip_range),
    })
}

pub(super) fn server(resources: &Resources, actions: &ActionLog, server: &Server) -> Value {
    let private_net = |attachment: &Attachment| {
        json!({
            "network": attachment.network,
            "ip": attachment.ip,
            "alias_ips": attachment.alias_ips,
            "mac_address": attachment.mac_address,
        })
    };
    json!({
        "id": server.id,
        "name": server.name,
        "status": "running",
        "created": rfc3339(server.created),
        "public_net": public_net(resources, server),
        "private_net": server.attachments.iter().map(private_net).collect::<Vec<_>>(),
        "server_type": server_type(),
        "location": location(&locations::HOME),
        "image": null,
        "iso": null,
        "rescue_enabled": false,
        "locked": actions.locks(ResourceId::Server(server.id)),
        "backup_window": null,
        "outgoing_traffic": null,
        "ingoing_traffic": null,
        "included_traffic": 21_990_232_555_520_u64,
        "protection": { "delete": false, "rebuild": false },
        "labels": server.labels,
        "volumes": [],
        "load_balancers": [],
        "primary_disk_size": 40,
        "placement_group": null,
    })
}

fn public_net(resources: &Resources, server: &Server) -> Value {
    let primary = |address: PublicAddress| {
        let held = resources.primary_ips.values().find(|held| held.server == server.id && held.address == address);
        held.map(|held| held.id)
    };
    let ipv4 = server.public_ipv4.map(|ip| {
        let id = primary(PublicAddress::V4(ip));
        json!({ "id": id, "ip": ip, "blocked": false, "dns_ptr": dns_ptr(ip.octets()) })
    });
    let ipv6 = server.public_ipv6.map(|net| {
        let id = primary(PublicAddress::V6(net));
        json!({ "id": id, "ip": net, "blocked": false, "dns_ptr": [] })
    });
    let floating_ips =
        resources.floating_ips.values().filter(|held| held.server == Some(server.id)).map(|held| held.id);
    let firewalls = resources.firewalls.values().filter(|firewall| firewall.servers.contains(&server.id));
    let applied = |firewall: &Firewall| json!({ "id": firewall.id, "status": "applied" });
    json!({
        "ipv4": ipv4,
        "ipv6": ipv6,
        "floating_ips": floating_ips.collect::<Vec<_>>(),
        "firewalls": firewalls.map(applied).collect::<Vec<_>>(),
    })
}

fn dns_ptr([a, b, c, d]: [u8; 4]) -> String {
    format!("static.{d}.{c}.{b}.{a}.clients.your-server.de")
}

/// The server type of all servers.
fn server_type() -> Value {
    json!({
        "id": 104,
        "name": "cx22",
        "description": "CX22",
        "cores": 2,
        "memory": 4,
        "disk": 40,
        "deprecated": false,
        "deprecation": null,
        "prices": [],
        "storage_type": "local",
        "cpu_type": "shared",
        "category": "cost_optimized",
        "architecture": "x86",
        "locations": [],
    })
}

pub(super) fn floating_ip(floating_ip: &FloatingIp) -> Value {
    let ip = floating_ip.ip;
    json!({
        "id": floating_ip.id,
        "name": floating_ip.name,
        "description": null,
        "ip": ip,
        "type": "ipv4",
        "server": floating_ip.server,
        "dns_ptr": [{ "ip": ip, "dns_ptr": dns_ptr(ip.octets()) }],
        "home_location": location(&locations::HOME),
        "blocked": false,
        "protection": { "delete": false },
        "labels": floating_ip.labels,
        "created": rfc3339(floating_ip.created),
    })
}

pub(super) fn primary_ip(primary_ip: &PrimaryIp) -> Value {
    let (kind, ip, dns_ptr) = match primary_ip.address {
        PublicAddress::V4(ip) => ("ipv4", ip.to_string(), vec![json!({ "ip": ip, "dns_ptr": dns_ptr(ip.octets()) })]),
        PublicAddress::V6(net) => ("ipv6", net.to_string(), vec![]),
    };
    json!({
        "id": primary_ip.id,
        "name": primary_ip.name,
        "labels": {},
        "created": rfc3339(primary_ip.created),
        "blocked": false,
        "location": location(&locations::HOME),
        "ip": ip,
        "dns_ptr": dns_ptr,
        "protection": { "delete": false },
        "type": kind,
        "auto_delete": true,
        "assignee_type": "server",
        "assignee_id": primary_ip.server,
    })
}

pub(super) fn firewall(firewall: &Firewall) -> Value {
    let rule = |rule: &crate::cloud::FirewallRule| {
        json!({
            "description": null,
            "direction": "in",
            "source_ips": rule.source_ips,
            "destination_ips": [],
            "protocol": rule.protocol,
            "port": rule.port,
        })
    };
    let applied = |server: &crate::cloud::ServerId| json!({ "type": "server", "server": { "id": server } });
    json!({
        "id": firewall.id,
        "name": firewall.name,
        "labels": firewall.labels,
        "created": rfc3339(firewall.created),
        "rules": firewall.rules.iter().map(rule).collect::<Vec<_>>(),
        "applied_to": firewall.servers.iter().map(applied).collect::<Vec<_>>(),
    })
}

pub(super) fn location(location: &Location) -> Value {
    json!({
        "id": location.id,
        "name": location.name,
        "description": location.description,
        "country": location.country,
        "city": location.city,
        "latitude": location.latitude,
        "longitude": location.longitude,
        "network_zone": location.network_zone,
    })
}
