//! `/primary_ips` and `/firewalls`, which a gateway only reads.

use serde_json::json;

use super::call::{Answer, Call, Endpoint};
use super::error::ApiError;
use super::listing::{filter, list};
use super::schema;
use crate::cloud::model::ids::{FirewallId, PrimaryIpId, ResourceId};
use crate::cloud::model::refusal::Refusal;
use crate::cloud::model::resources::{PrimaryIp, PublicAddress};

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get("/primary_ips", list_primary_ips),
    Endpoint::get("/primary_ips/{id}", get_primary_ip),
    Endpoint::get("/firewalls", list_firewalls),
    Endpoint::get("/firewalls/{id}", get_firewall),
];

fn list_primary_ips(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let is_ip = filter(call.query, "ip", &[])?;
    let address = |held: &PrimaryIp| match held.address {
        PublicAddress::V4(ip) => ip.to_string(),
        PublicAddress::V6(net) => net.to_string(),
    };
    let wanted = call.visible().primary_ips.into_values().filter(|held| is_ip(&address(held)));
    list(call, "primary_ips", wanted, schema::primary_ip)
}

fn get_primary_ip(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let id: PrimaryIpId = call.id("id", "primary_ip")?;
    let held = call.project.resources.primary_ips.get(&id);
    let held = held.ok_or_else(|| Refusal::absent(ResourceId::PrimaryIp(id)))?;
    Ok(Answer::ok(json!({ "primary_ip": schema::primary_ip(held) })))
}

fn list_firewalls(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    list(call, "firewalls", call.visible().firewalls.into_values(), schema::firewall)
}

fn get_firewall(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let id: FirewallId = call.id("id", "firewall")?;
    let held = call.project.resources.firewalls.get(&id);
    let held = held.ok_or_else(|| Refusal::absent(ResourceId::Firewall(id)))?;
    Ok(Answer::ok(json!({ "firewall": schema::firewall(held) })))
}
