//! `[hcloud]`

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::diagnostics::Diagnostics;
use super::values::{self, EVERYWHERE_V4};
use crate::config::environment::Environment;
use crate::config::model::{Hcloud, TokenSource};
use crate::config::raw::{Entry, RawHcloud};
use crate::hetzner::{MAX_ROUTES, PUBLIC_GATEWAY};
use crate::net::{is_private, overlap};

/// Hetzner's public API (Hetzner API documentation, "Getting started").
const DEFAULT_ENDPOINT: &str = "https://api.hetzner.cloud/v1";
const DEFAULT_TOKEN_FILE: &str = "/etc/bastiond/hcloud-token";
/// 180 calls an hour for each network: a twentieth of the 3600 that the whole project shares.
const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(20);

pub(super) fn check_hcloud(raw: RawHcloud, environment: &Environment, diagnostics: &mut Diagnostics) -> Hcloud {
    diagnostics.reject_unknown_keys("hcloud", &raw.unknown);
    let from_file = diagnostics.value("hcloud.endpoint", raw.endpoint);
    let from_environment = ("HCLOUD_ENDPOINT", environment.hcloud_endpoint.as_deref());
    let endpoint = diagnostics.parse_endpoint("hcloud.endpoint", from_file, from_environment);
    // What the environment says was said for this one process, by a person who sees it.
    let is_from_file = environment.hcloud_endpoint.is_none();
    if let Some(host) = endpoint.as_deref().filter(|_| is_from_file).and_then(exposed_host) {
        let reason = format!(
            "the API token goes to {host} unencrypted, and everybody on the way can take it; write https://, or reach \
             it by loopback"
        );
        diagnostics.warn("hcloud.endpoint", reason);
    }
    let token_file = diagnostics.value("hcloud.token_file", raw.token_file);
    let token_file = token_file.unwrap_or_else(|| DEFAULT_TOKEN_FILE.to_owned());
    if !token_file.starts_with('/') {
        diagnostics.error("hcloud.token_file", format!("`{token_file}` is not an absolute path"));
    }
    let destinations = match diagnostics.value("hcloud.destinations", raw.destinations) {
        None => vec![EVERYWHERE_V4],
        Some(texts) => check_destinations(texts, diagnostics),
    };
    let poll_interval = diagnostics.parse_field("hcloud", "poll_interval", raw.poll_interval, values::parse_duration);
    let credential = environment.credentials_directory.as_ref().map(|directory| directory.join("hcloud-token"));
    let files = [PathBuf::from(token_file)].into_iter().chain(environment.hcloud_token_file.clone());
    Hcloud {
        enabled: diagnostics.value("hcloud.enabled", raw.enabled).unwrap_or(true),
        endpoint: endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
        token: TokenSource { credential, files: files.collect(), value: environment.hcloud_token.clone() },
        destinations,
        take_over: diagnostics.value("hcloud.take_over", raw.take_over).unwrap_or(false),
        poll_interval: poll_interval.unwrap_or(DEFAULT_POLL_INTERVAL),
        network: environment.hcloud_network.clone(),
    }
}

/// The host of an endpoint without TLS, unless it is this machine itself.
fn exposed_host(endpoint: &str) -> Option<String> {
    let url = reqwest::Url::parse(endpoint).ok().filter(|url| url.scheme() == "http")?;
    let host = url.host_str()?;
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_own = address.map_or(host == "localhost", |address| address.is_loopback());
    (!is_own).then(|| host.to_owned())
}

fn check_destinations(mut texts: Vec<Entry<String>>, diagnostics: &mut Diagnostics) -> Vec<Ipv4Net> {
    if texts.len() > MAX_ROUTES {
        let reason = format!("{} destinations; a Hetzner Network holds at most {MAX_ROUTES} routes", texts.len());
        diagnostics.error("hcloud.destinations", reason);
        texts.truncate(MAX_ROUTES);
    }
    let mut destinations: Vec<Ipv4Net> = Vec::new();
    for (key, text) in diagnostics.elements("hcloud.destinations", texts) {
        let Some(destination) = diagnostics.parse_network(&key, &text) else { continue };
        // The API's own rules (its documentation of "Add a route to a Network").
        let is_everywhere = destination == EVERYWHERE_V4;
        let conflicts = |other: &Ipv4Net| {
            *other == destination || (*other != EVERYWHERE_V4 && !is_everywhere && overlap(*other, destination))
        };
        let reason = if !is_everywhere && !is_private(destination) {
            format!(
                "Hetzner rejects {destination}; write 0.0.0.0/0, or ranges inside 10.0.0.0/8, 172.16.0.0/12 or \
                 192.168.0.0/16"
            )
        } else if !is_everywhere && destination.contains(&PUBLIC_GATEWAY) {
            format!("{destination} contains {PUBLIC_GATEWAY}, which Hetzner reserves; write ranges without it")
        } else if let Some(other) = destinations.iter().find(|other| conflicts(other)) {
            format!("{destination} overlaps {other}; Hetzner accepts only one of them")
        } else {
            destinations.push(destination);
            continue;
        };
        diagnostics.error(key, reason);
    }
    destinations
}
