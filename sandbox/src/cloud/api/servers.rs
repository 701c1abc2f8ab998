//! `/servers` and their actions in networks.

use serde_json::{Value, json};

use super::body::{ADDRESS, ADDRESSES, CIDR, Fields, HOSTNAME, ID, LABELS};
use super::call::{Answer, Call, Endpoint};
use super::error::ApiError;
use super::listing::{filter, list};
use super::{actions, schema};
use crate::cloud::model::change::Change;
use crate::cloud::model::ids::{NetworkId, ResourceId, ServerId};
use crate::cloud::model::refusal::Refusal;
use crate::cloud::model::resources::Resources;

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

/// The id of the server in the path, and the visible resources.
fn server_in_path(call: &Call<'_>) -> Result<(ServerId, Resources), ApiError> {
    let id = call.id("id", "server")?;
    let resources = call.visible();
    resources.server(id)?;
    Ok((id, resources))
}

fn server_json(call: &Call<'_>, resources: &Resources, id: ServerId) -> Result<Value, ApiError> {
    Ok(json!({ "server": schema::server(resources, &call.project.actions, resources.server(id)?) }))
}

fn list_servers(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let resources = call.visible();
    let is_status = filter(call.query, "status", &STATUSES)?;
    // Every server of this cloud is running.
    let servers = resources.servers.values().filter(|_| is_status("running")).cloned();
    list(call, "servers", servers, |server| schema::server(&resources, &call.project.actions, server))
}

fn get(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, resources) = server_in_path(call)?;
    Ok(Answer::ok(server_json(call, &resources, id)?))
}

fn update(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, resources) = server_in_path(call)?;
    let fields = Fields::open(call.body)?;
    let name = fields.optional("name", &HOSTNAME)?;
    let labels = fields.optional("labels", &LABELS)?;
    if resources.servers.values().any(|other| name.as_ref() == Some(&other.name) && other.id != id) {
        return Err(Refusal::NameTaken.into());
    }
    let server = call.project.resources.server_mut(id)?;
    server.name = name.unwrap_or_else(|| server.name.clone());
    server.labels = labels.unwrap_or_else(|| server.labels.clone());
    Ok(Answer::ok(server_json(call, &call.visible(), id)?))
}

fn own_actions(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (id, _) = server_in_path(call)?;
    actions::history(call, |resource| resource == ResourceId::Server(id))
}

fn attach_to_network(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (server, resources) = server_in_path(call)?;
    let fields = Fields::open(call.body)?;
    let network = NetworkId(fields.required("network", &ID)?);
    let ip = fields.optional("ip", &ADDRESS)?;
    let alias_ips = fields.optional("alias_ips", &ADDRESSES)?.unwrap_or_default();
    let ip_range = fields.optional("ip_range", &CIDR)?;
    resources.network(network)?;
    let attachment = call.project.new_attachment(server, network, ip, ip_range, alias_ips)?;
    call.start(Change::Attach { server, attachment })
}

fn detach_from_network(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (server, resources) = server_in_path(call)?;
    let network = NetworkId(Fields::open(call.body)?.required("network", &ID)?);
    resources.network(network)?;
    call.start(Change::Detach { server, network })
}

fn change_alias_ips(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let (server, resources) = server_in_path(call)?;
    let fields = Fields::open(call.body)?;
    let network = NetworkId(fields.required("network", &ID)?);
    let alias_ips = fields.required("alias_ips", &ADDRESSES)?;
    resources.network(network)?;
    call.start(Change::SetAliasIps { server, network, alias_ips })
}
