//! `[hcloud]`

use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::super::findings::Findings;
use super::super::raw::{Entry, RawHcloud};
use super::super::values;
use super::super::{Environment, Hcloud, TokenSource};
use super::{endpoint, everywhere_v4};
use crate::hetzner::PUBLIC_GATEWAY;
use crate::net::{is_private, overlap};

/// Hetzner's public API (Hetzner API documentation, "Getting started").
const DEFAULT_ENDPOINT: &str = "https://api.hetzner.cloud/v1";
const DEFAULT_TOKEN_FILE: &str = "/etc/bastiond/hcloud-token";
/// 180 calls an hour for each network: a twentieth of the 3600 that the whole project shares.
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(20);
const MAX_DESTINATIONS: usize = crate::hetzner::MAX_ROUTES;

pub(super) fn section(raw: RawHcloud, environment: &Environment, found: &mut Findings) -> Hcloud {
    found.unknown("hcloud", &raw.unknown);
    let from_file = found.value("hcloud.endpoint", raw.endpoint);
    let from_environment = ("HCLOUD_ENDPOINT", environment.hcloud_endpoint.as_deref());
    let endpoint =
        endpoint("hcloud.endpoint", from_file, from_environment, found).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let token_file = found.value("hcloud.token_file", raw.token_file).unwrap_or_else(|| DEFAULT_TOKEN_FILE.to_owned());
    if !token_file.starts_with('/') {
        found.report("hcloud.token_file", format!("`{token_file}` is no absolute path"));
    }
    let destinations = match found.value("hcloud.destinations", raw.destinations) {
        None => vec![everywhere_v4()],
        Some(texts) => destinations(texts, found),
    };
    let poll_interval = found.read("hcloud", "poll_interval", raw.poll_interval, values::span);
    let credential = environment.credentials_directory.as_ref().map(|directory| directory.join("hcloud-token"));
    let files = [PathBuf::from(token_file)].into_iter().chain(environment.hcloud_token_file.clone());
    Hcloud {
        enabled: found.value("hcloud.enabled", raw.enabled).unwrap_or(true),
        endpoint,
        token: TokenSource { credential, files: files.collect(), value: environment.hcloud_token.clone() },
        destinations,
        take_over: found.value("hcloud.take_over", raw.take_over).unwrap_or(false),
        poll_interval: poll_interval.unwrap_or(DEFAULT_POLL_INTERVAL),
        network: environment.hcloud_network.clone(),
    }
}

fn destinations(mut texts: Vec<Entry<String>>, found: &mut Findings) -> Vec<Ipv4Net> {
    if texts.len() > MAX_DESTINATIONS {
        found.report(
            "hcloud.destinations",
            format!("{} destinations; a Hetzner Network holds at most {MAX_DESTINATIONS} routes", texts.len()),
        );
        texts.truncate(MAX_DESTINATIONS);
    }
    let mut destinations: Vec<Ipv4Net> = Vec::new();
    for (key, text) in found.elements("hcloud.destinations", texts) {
        let Some(destination) = found.network(&key, &text) else { continue };
        // The rules that the API enforces (its documentation of "Add a route to a Network").
        if destination != everywhere_v4() && !is_private(destination) {
            found.report(key, format!("{destination} is neither 0.0.0.0/0 nor inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16: Hetzner takes no other"));
        } else if destination != everywhere_v4() && destination.contains(&PUBLIC_GATEWAY) {
            found.report(key, format!("{destination} contains {PUBLIC_GATEWAY}, which Hetzner keeps for itself"));
        } else if let Some(other) = destinations.iter().find(|&&other| {
            other == destination
                || (overlap(other, destination) && other.prefix_len() > 0 && destination.prefix_len() > 0)
        }) {
            found.report(key, format!("{destination} overlaps {other}: Hetzner takes only one of them"));
        } else {
            destinations.push(destination);
        }
    }
    destinations
}
