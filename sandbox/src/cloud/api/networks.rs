//! `/networks` and their actions.

use serde_json::{Value, json};

use super::body::{ADDRESS, BOOL, CIDR, Fields, ID, LABELS, NAME, OBJECTS, TEXT};
use super::call::{Answer, Call, Endpoint};
use super::error::ApiError;
use super::listing::{filter, list, page, sort};
use super::{actions, schema};
use crate::cloud::model::change::Change;
use crate::cloud::model::ids::{NetworkId, ResourceId, ServerId};
use crate::cloud::model::locations::is_zone;
use crate::cloud::model::refusal::Refusal;
use crate::cloud::model::resources::Route;
use crate::cloud::model::resources::{Attachment, Network, Resources, Server, Subnet, SubnetKind};
use crate::cloud::model::routes;
use crate::cloud::model::subnets;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get("/networks", list_networks),
    Endpoint::post("/networks", create),
    Endpoint::get("/networks/{id}", get),
    Endpoint::put("/networks/{id}", update),
    Endpoint::delete("/networks/{id}", delete),
    Endpoint::get("/networks/{id}/members", members),
    Endpoint::get("/networks/actions", all_actions),
    Endpoint::get("/networks/{id}/actions", own_actions),
    Endpoint::get("/networks/{id}/actions/{action_id}", own_action),
    Endpoint::post("/networks/{id}/actions/add_route", add_route),
    Endpoint::post("/networks/{id}/actions/delete_route", delete_route),
    Endpoint::post("/networks/{id}/actions/add_subnet", add_subnet),
    Endpoint::post("/networks/{id}/actions/delete_subnet", delete_subnet),
    Endpoint::post("/networks/{id}/actions/change_ip_range", change_ip_range),
    Endpoint::post("/networks/{id}/actions/change_protection", change_protection),
];

/// The id of the network in the path, and the visible resources.
fn network_in_path(call: &Call<'_>) -> Result<(NetworkId, Resources), ApiError> {
    let id = call.id("id", "network")?;
    let resources = call.visible();
    resources.network(id)?;
    Ok((id, resources))
}

fn network_json(resources: &Resources, id: NetworkId) -> Result<Value, ApiError> {
    Ok(json!({ "network": schema::network(resources, resources.network(id)?) }))
}

fn list_networks(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let resources = call.visible();
    list(call, "networks", resources.networks.values().cloned(), |network| schema::network(&resources, network))
}

fn get(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, resources) = network_in_path(call)?;
    Ok(Answer::ok(network_json(&resources, id)?))
}

fn create(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let known = ["name", "ip_range", "labels", "subnets", "routes", "expose_routes_to_vswitch"];
    let fields = Fields::closed(call.body, &known)?;
    let mut network = Network {
        id: NetworkId(0),
        name: fields.required("name", &NAME)?,
        ip_range: fields.required("ip_range", &CIDR)?,
        subnets: Vec::new(),
        routes: Vec::new(),
        delete_protection: false,
        labels: fields.optional("labels", &LABELS)?.unwrap_or_default(),
        created: call.now,
        expose_routes_to_vswitch: fields.optional("expose_routes_to_vswitch", &BOOL)?.unwrap_or(false),
    };
    check_name(&call.project.resources, &network.name, None)?;
    subnets::check_range(network.ip_range)?;
    for wanted in fields.optional("subnets", &OBJECTS)?.unwrap_or_default() {
        let subnet = parse_subnet(&wanted.only(&SUBNET_FIELDS)?, &network)?;
        subnets::check(&network, &subnet)?;
        network.subnets.push(subnet);
    }
    for wanted in fields.optional("routes", &OBJECTS)?.unwrap_or_default() {
        let route = parse_route(&wanted.only(&ROUTE_FIELDS)?)?;
        routes::check(&network, &route)?;
        network.routes.push(route);
    }
    network.id = NetworkId(call.project.next_id());
    let id = network.id;
    call.project.resources.networks.insert(id, network);
    Ok(Answer::created(network_json(&call.visible(), id)?))
}

fn update(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, _) = network_in_path(call)?;
    let fields = Fields::closed(call.body, &["name", "labels", "expose_routes_to_vswitch"])?;
    let name = fields.optional("name", &NAME)?;
    let labels = fields.optional("labels", &LABELS)?;
    let expose_routes_to_vswitch = fields.optional("expose_routes_to_vswitch", &BOOL)?;
    call.check_lock(ResourceId::Network(id))?;
    if let Some(name) = &name {
        check_name(&call.project.resources, name, Some(id))?;
    }
    let network = call.project.resources.network_mut(id)?;
    network.name = name.unwrap_or_else(|| network.name.clone());
    // The new labels replace all old ones.
    network.labels = labels.unwrap_or_else(|| network.labels.clone());
    network.expose_routes_to_vswitch = expose_routes_to_vswitch.unwrap_or(network.expose_routes_to_vswitch);
    Ok(Answer::ok(network_json(&call.visible(), id)?))
}

fn check_name(resources: &Resources, name: &str, except: Option<NetworkId>) -> Result<(), ApiError> {
    let taken = resources.networks.values().any(|other| other.name == name && Some(other.id) != except);
    if taken { Err(Refusal::NameTaken.into()) } else { Ok(()) }
}

/// "Attached resources will be detached automatically."
fn delete(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, resources) = network_in_path(call)?;
    call.check_lock(ResourceId::Network(id))?;
    if resources.network(id)?.delete_protection {
        return Err(Refusal::Protected(id).into());
    }
    for server in call.project.resources.servers.values_mut() {
        server.attachments.retain(|attachment| attachment.network != id);
    }
    call.project.resources.networks.remove(&id);
    Ok(Answer::no_content())
}

/// A row of the member list.
struct Member {
    server: ServerId,
    status: &'static str,
    attachment: Attachment,
    json: Value,
}

fn members(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, resources) = network_in_path(call)?;
    let network = resources.network(id)?;
    let row = |server: &Server, attachment: &Attachment| {
        let status = schema::member_status(&call.project.actions, server, id);
        let json = schema::member(network, server, attachment, status);
        Member { server: server.id, status, attachment: attachment.clone(), json }
    };
    let attached = resources.members(id).map(|(server, attachment)| row(server, attachment));
    // Servers that are being attached are listed already.
    let coming = call.project.actions.running().filter_map(|action| match &action.change {
        Change::Attach { server, attachment } if attachment.network == id => {
            let server = resources.server(*server).ok()?;
            server.attachment(id).is_none().then(|| row(server, attachment))
        }
        _ => None,
    });
    let is_kind = filter(call.query, "type", &["server", "load_balancer"])?;
    let is_status = filter(call.query, "status", &["ok", "attaching", "detaching", "updating", "error"])?;
    let is_subnet = filter(call.query, "subnet", &[])?;
    let wanted = |member: &Member| {
        let subnet = member.json["subnet"].as_str().unwrap_or_default();
        is_kind("server") && is_status(member.status) && is_subnet(subnet)
    };
    let mut members: Vec<Member> = attached.chain(coming).filter(wanted).collect();
    sort(
        &mut members,
        call.query,
        &[
            ("id", |a, b| a.server.cmp(&b.server)),
            ("type", |_, _| std::cmp::Ordering::Equal),
            ("status", |a, b| a.status.cmp(b.status)),
            ("ip", |a, b| a.attachment.ip.cmp(&b.attachment.ip)),
        ],
    )?;
    page(call, "members", &members, |member| member.json.clone())
}

fn all_actions(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    actions::history(call, |resource| matches!(resource, ResourceId::Network(_)))
}

fn own_actions(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, _) = network_in_path(call)?;
    actions::history(call, |resource| resource == ResourceId::Network(id))
}

fn own_action(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, _) = network_in_path(call)?;
    actions::get_for_resource(call, ResourceId::Network(id))
}

const ROUTE_FIELDS: [&str; 2] = ["destination", "gateway"];

fn parse_route(fields: &Fields) -> Result<Route, ApiError> {
    Ok(Route { destination: fields.required("destination", &CIDR)?, gateway: fields.required("gateway", &ADDRESS)? })
}

fn add_route(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (network, _) = network_in_path(call)?;
    let route = parse_route(&Fields::closed(call.body, &ROUTE_FIELDS)?)?;
    call.start(Change::AddRoute { network, route })
}

fn delete_route(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (network, _) = network_in_path(call)?;
    let route = parse_route(&Fields::closed(call.body, &ROUTE_FIELDS)?)?;
    call.start(Change::DeleteRoute { network, route })
}

// `gateway` is not documented, but hcloud-go sends an empty one and the real API accepts it.
const SUBNET_FIELDS: [&str; 5] = ["type", "ip_range", "network_zone", "vswitch_id", "gateway"];

fn parse_subnet(fields: &Fields, network: &Network) -> Result<Subnet, ApiError> {
    let kind = match fields.required("type", &TEXT)?.as_str() {
        "cloud" => SubnetKind::Cloud,
        "server" => SubnetKind::Server,
        "vswitch" => {
            let id = fields.optional("vswitch_id", &ID)?.ok_or(Refusal::VswitchMissing)?;
            SubnetKind::Vswitch { id }
        }
        _ => return Err(ApiError::invalid_field("type", "must be cloud, server or vswitch")),
    };
    let network_zone = fields.required("network_zone", &TEXT)?;
    if !is_zone(&network_zone) {
        return Err(ApiError::invalid_field("network_zone", "is not a network zone"));
    }
    let ip_range = match fields.optional("ip_range", &CIDR)? {
        Some(ip_range) => ip_range,
        None => subnets::first_free(network)?,
    };
    Ok(Subnet { kind, ip_range, network_zone })
}

fn add_subnet(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (network, resources) = network_in_path(call)?;
    let fields = Fields::closed(call.body, &SUBNET_FIELDS)?;
    let subnet = parse_subnet(&fields, resources.network(network)?)?;
    call.start(Change::AddSubnet { network, subnet })
}

fn delete_subnet(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (network, _) = network_in_path(call)?;
    let ip_range = Fields::closed(call.body, &["ip_range"])?.required("ip_range", &CIDR)?;
    call.start(Change::DeleteSubnet { network, ip_range })
}

fn change_ip_range(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (network, _) = network_in_path(call)?;
    let ip_range = Fields::closed(call.body, &["ip_range"])?.required("ip_range", &CIDR)?;
    call.start(Change::ExtendIpRange { network, ip_range })
}

fn change_protection(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (network, resources) = network_in_path(call)?;
    let wanted = Fields::closed(call.body, &["delete"])?.optional("delete", &BOOL)?;
    let delete = wanted.unwrap_or(resources.network(network)?.delete_protection);
    call.start(Change::Protect { network, delete })
}
