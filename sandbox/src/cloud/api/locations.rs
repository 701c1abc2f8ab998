//! `/locations`, and `/datacenters`, which was removed.

use serde_json::json;

use super::call::{Answer, Call, Endpoint, parameter};
use super::error::ApiError;
use super::listing::{page, sort};
use super::schema;
use crate::cloud::model::ids::LocationId;
use crate::cloud::model::locations::LOCATIONS;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get("/locations", list),
    Endpoint::get("/locations/{id}", get),
    Endpoint::get("/datacenters", removed),
    Endpoint::get("/datacenters/{id}", removed),
];

fn list(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let name: Option<String> = parameter(call.query, "name")?;
    let mut locations = LOCATIONS.to_vec();
    locations.retain(|location| name.as_ref().is_none_or(|name| name == location.name));
    sort(&mut locations, call.query, &[("id", |a, b| a.id.cmp(&b.id)), ("name", |a, b| a.name.cmp(b.name))])?;
    page(call, "locations", &locations, schema::location)
}

fn get(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let id: LocationId = call.id("id", "location")?;
    match LOCATIONS.iter().find(|location| location.id == id) {
        Some(location) => Ok(Answer::ok(json!({ "location": schema::location(location) }))),
        None => Err(ApiError::not_found("location", &id.to_string())),
    }
}

/// The removal was announced for 1 October 2026.
fn removed(_: &mut Call<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::removed("https://docs.hetzner.cloud/changelog#datacenters-removed"))
}
