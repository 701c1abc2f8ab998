//! `/locations`, and `/datacenters`, which is gone.

use serde_json::json;

use super::front::{Answer, Call, parameter};
use super::listing::{page, sort};
use super::{ApiError, Endpoint, schema};
use crate::cloud::ids::LocationId;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get("/locations", list),
    Endpoint::get("/locations/{id}", get),
    Endpoint::get("/datacenters", removed),
    Endpoint::get("/datacenters/{id}", removed),
];

/// A place with servers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Location {
    pub(super) id: LocationId,
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) country: &'static str,
    pub(super) city: &'static str,
    pub(super) latitude: f64,
    pub(super) longitude: f64,
    pub(super) network_zone: &'static str,
}

/// Where everything in the project is.
pub(super) const HOME: Location = ALL[2];

const ALL: [Location; 6] = [
    Location {
        id: LocationId(1),
        name: "fsn1",
        description: "Falkenstein DC Park 1",
        country: "DE",
        city: "Falkenstein",
        latitude: 50.476_12,
        longitude: 12.370_071,
        network_zone: "eu-central",
    },
    Location {
        id: LocationId(2),
        name: "nbg1",
        description: "Nuremberg DC Park 1",
        country: "DE",
        city: "Nuremberg",
        latitude: 49.452_102,
        longitude: 11.076_665,
        network_zone: "eu-central",
    },
    Location {
        id: LocationId(3),
        name: "hel1",
        description: "Helsinki DC Park 1",
        country: "FI",
        city: "Helsinki",
        latitude: 60.169_855,
        longitude: 24.938_379,
        network_zone: "eu-central",
    },
    Location {
        id: LocationId(4),
        name: "ash",
        description: "Ashburn, VA",
        country: "US",
        city: "Ashburn, VA",
        latitude: 39.045_821,
        longitude: -77.487_073,
        network_zone: "us-east",
    },
    Location {
        id: LocationId(5),
        name: "hil",
        description: "Hillsboro, OR",
        country: "US",
        city: "Hillsboro, OR",
        latitude: 45.542_22,
        longitude: -122.951_924,
        network_zone: "us-west",
    },
    Location {
        id: LocationId(6),
        name: "sin",
        description: "Singapore",
        country: "SG",
        city: "Singapore",
        latitude: 1.283_333,
        longitude: 103.833_333,
        network_zone: "ap-southeast",
    },
];

/// Whether there is such a network zone.
pub(super) fn is_zone(name: &str) -> bool {
    ALL.iter().any(|location| location.network_zone == name)
}

fn list(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let name: Option<String> = parameter(call.query, "name")?;
    let mut locations = ALL.to_vec();
    locations.retain(|location| name.as_ref().is_none_or(|name| name == location.name));
    sort(&mut locations, call.query, &[("id", |a, b| a.id.cmp(&b.id)), ("name", |a, b| a.name.cmp(b.name))])?;
    page(call, "locations", &locations, schema::location)
}

fn get(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let id: LocationId = call.id("id", "location")?;
    match ALL.iter().find(|location| location.id == id) {
        Some(location) => Ok(Answer::ok(json!({ "location": schema::location(location) }))),
        None => Err(ApiError::not_found("location", &id.to_string())),
    }
}

/// Announced for 1 October 2026.
fn removed(_: &mut Call<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::removed("https://docs.hetzner.cloud/changelog#datacenters-removed"))
}
