//! `/servers` and what they do in networks.

use serde_json::{Value, json};

use super::body::{ADDRESS, ADDRESSES, CIDR, Fields, HOSTNAME, ID, LABELS};
use super::front::{Answer, Call};
use super::listing::{filter, list};
use super::{ApiError, Endpoint, actions, schema};
use crate::cloud::change::Change;
use crate::cloud::ids::{NetworkId, ServerId};
use crate::cloud::refusal::Refusal;
use crate::cloud::seed::place;
use crate::cloud::state::{Resource, World};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get("/servers", list_servers),
    Endpoint::get("/servers/{id}", get),
    Endpoint::put("/servers/{id}", update),
    Endpoint::get("/servers/{id}/actions", own_actions),
    Endpoint::post("/servers/{id}/actions/attach_to_network", attach_to_network),
    Endpoint::post("/servers/{id}/actions/change_alias_ips", change_alias_ips),
    Endpoint::post("/servers/{id}/actions/detach_from_network", detach_from_network),
];

const STATUSES: [&str; 9] =
    ["running", "initializing", "starting", "stopping", "off", "deleting", "migrating", "rebuilding", "unknown"];

/// The server of the path, and the world around it.
fn server_of(call: &Call<'_>) -> Result<(ServerId, World), ApiError> {
    let id = call.id("id", "server")?;
    let world = call.visible();
    world.server(id)?;
    Ok((id, world))
}

fn rendered(call: &Call<'_>, world: &World, id: ServerId) -> Result<Value, ApiError> {
    Ok(json!({ "server": schema::server(world, &call.project.actions, world.server(id)?) }))
}

fn list_servers(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let world = call.visible();
    let is_status = filter(call.query, "status", &STATUSES)?;
    // Every server of this cloud runs.
    let servers = world.servers.values().filter(|_| is_status("running")).cloned();
    list(call, "servers", servers, |server| schema::server(&world, &call.project.actions, server))
}

fn get(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, world) = server_of(call)?;
    Ok(Answer::ok(rendered(call, &world, id)?))
}

fn update(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, world) = server_of(call)?;
    let fields = Fields::open(call.body)?;
    let name = fields.optional("name", &HOSTNAME)?;
    let labels = fields.optional("labels", &LABELS)?;
    if world.servers.values().any(|other| name.as_ref() == Some(&other.name) && other.id != id) {
        return Err(Refusal::NameTaken.into());
    }
    let server = call.project.world.server_mut(id)?;
    server.name = name.unwrap_or_else(|| server.name.clone());
    server.labels = labels.unwrap_or_else(|| server.labels.clone());
    Ok(Answer::ok(rendered(call, &call.visible(), id)?))
}

fn own_actions(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, _) = server_of(call)?;
    actions::history(call, |resource| resource == Resource::Server(id))
}

fn attach_to_network(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (server, world) = server_of(call)?;
    let fields = Fields::open(call.body)?;
    let network = NetworkId(fields.required("network", &ID)?);
    let ip = fields.optional("ip", &ADDRESS)?;
    let alias_ips = fields.optional("alias_ips", &ADDRESSES)?.unwrap_or_default();
    let ip_range = fields.optional("ip_range", &CIDR)?;
    world.network(network)?;
    let attachment = place(call.project, server, network, ip, ip_range, alias_ips)?;
    call.start(Change::Attach { server, attachment })
}

fn detach_from_network(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (server, world) = server_of(call)?;
    let network = NetworkId(Fields::open(call.body)?.required("network", &ID)?);
    world.network(network)?;
    call.start(Change::Detach { server, network })
}

fn change_alias_ips(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (server, world) = server_of(call)?;
    let fields = Fields::open(call.body)?;
    let network = NetworkId(fields.required("network", &ID)?);
    let alias_ips = fields.required("alias_ips", &ADDRESSES)?;
    world.network(network)?;
    call.start(Change::SetAliasIps { server, network, alias_ips })
}
