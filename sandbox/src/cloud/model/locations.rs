//! The locations and network zones of the Hetzner Cloud.

use super::ids::LocationId;

/// A location: a site with data centers, part of a network zone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Location {
    pub(crate) id: LocationId,
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) country: &'static str,
    pub(crate) city: &'static str,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) network_zone: &'static str,
}

/// The location of everything in the project.
pub(crate) const HOME: Location = LOCATIONS[2];

/// All locations, in the order of their ids.
pub(crate) const LOCATIONS: [Location; 6] = [
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

/// Whether a network zone of this name exists.
pub(crate) fn is_zone(name: &str) -> bool {
    LOCATIONS.iter().any(|location| location.network_zone == name)
}
