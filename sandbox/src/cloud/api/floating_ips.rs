//! `/floating_ips` and their actions.

use serde_json::json;

use super::body::{Fields, ID};
use super::call::{Answer, Call, Endpoint};
use super::error::ApiError;
use super::listing::list;
use super::{actions, schema};
use crate::cloud::model::change::Change;
use crate::cloud::model::ids::{FloatingIpId, ResourceId, ServerId};
use crate::cloud::model::refusal::Refusal;
use crate::cloud::model::resources::FloatingIp;
use crate::cloud::project::settings::FloatingReassign;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get("/floating_ips", list_floating_ips),
    Endpoint::get("/floating_ips/{id}", get),
    Endpoint::get("/floating_ips/{id}/actions", own_actions),
    Endpoint::post("/floating_ips/{id}/actions/assign", assign),
    Endpoint::post("/floating_ips/{id}/actions/unassign", unassign),
];

fn floating_ip_in_path(call: &Call<'_>) -> Result<FloatingIp, ApiError> {
    Ok(call.visible().floating_ip(call.id("id", "floating_ip")?)?.clone())
}

fn list_floating_ips(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    list(call, "floating_ips", call.visible().floating_ips.into_values(), schema::floating_ip)
}

fn get(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    Ok(Answer::ok(json!({ "floating_ip": schema::floating_ip(&floating_ip_in_path(call)?) })))
}

fn own_actions(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let id: FloatingIpId = floating_ip_in_path(call)?.id;
    actions::history(call, |resource| resource == ResourceId::FloatingIp(id))
}

fn assign(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let held = floating_ip_in_path(call)?;
    let server = ServerId(Fields::closed(call.body, &["server"])?.required("server", &ID)?);
    if held.server.is_some() && call.project.settings.floating_reassign == FloatingReassign::Refused {
        return Err(Refusal::FloatingIpAssigned.into());
    }
    call.start(Change::AssignFloatingIp { floating_ip: held.id, server })
}

fn unassign(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let floating_ip = floating_ip_in_path(call)?.id;
    call.start(Change::UnassignFloatingIp { floating_ip })
}
