//! What clients of the tunnel are told: where they reach this server, and which resolvers they use.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::diagnostics::Diagnostics;
use crate::config::raw::Entry;
use bastiond_tunnel::endpoint::EndpointName;

/// wg-quick and the apps of phones take so many and more; a person needs two.
const MAX_RESOLVERS: usize = 16;

/// A name or an address, with or without a port. Without one, it is the port that the tunnel listens on.
pub(super) fn check_endpoint(
    raw: Entry<String>,
    listen_port: u16,
    diagnostics: &mut Diagnostics,
) -> Option<EndpointName> {
    let key = "wireguard.endpoint";
    let text = diagnostics.value(key, raw)?;
    let endpoint = parse_endpoint(&text, listen_port);
    let is_nowhere = |endpoint: &EndpointName| matches!(endpoint, EndpointName::Address(address) if address.ip().is_unspecified() || address.ip().is_multicast());
    if endpoint.as_ref().is_none_or(is_nowhere) {
        let reason = format!(
            "`{text}` is not where clients can reach this server (like vpn.example.org, 198.51.100.2:51820 or \
             [2001:db8::2]:51820)"
        );
        diagnostics.error(key, reason);
        return None;
    }
    endpoint
}

fn parse_endpoint(text: &str, port: u16) -> Option<EndpointName> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some(EndpointName::Address(SocketAddr::new(address, port)));
    }
    text.parse().or_else(|_| format!("{text}:{port}").parse()).ok()
}

/// The resolvers' addresses, without repetitions.
pub(super) fn check_dns(raw: Entry<Vec<Entry<String>>>, diagnostics: &mut Diagnostics) -> Vec<IpAddr> {
    let key = "wireguard.dns";
    let listed = diagnostics.value(key, raw).unwrap_or_default();
    if listed.len() > MAX_RESOLVERS {
        diagnostics.error(key, format!("has {} resolvers; clients take {MAX_RESOLVERS} at most", listed.len()));
    }
    let (mut resolvers, mut known) = (Vec::new(), BTreeSet::new());
    for (key, text) in diagnostics.elements(key, listed) {
        match text.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() || address.is_multicast() => {
                diagnostics.error(key, format!("{address} is no resolver's address"));
            }
            Ok(address) if known.insert(address) => resolvers.push(address),
            Ok(address) => diagnostics.error(key, format!("{address} is listed twice; remove one of them")),
            Err(_) => {
                let reason = format!("`{text}` is not the address of a resolver (like 10.0.0.2 or fd00::53)");
                diagnostics.error(key, reason);
            }
        }
    }
    resolvers
}
