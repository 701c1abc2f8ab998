//! `[health]`

use std::net::{Ipv4Addr, SocketAddrV4};

use super::diagnostics::Diagnostics;
use crate::config::model::Health;
use crate::config::raw::{Entry, RawHealth};
use crate::net::is_private;

/// Hetzner's recursive resolvers, which its images use (docs.hetzner.com, "DNS").
const DEFAULT_TARGETS: [Ipv4Addr; 2] = [Ipv4Addr::new(185, 12, 64, 1), Ipv4Addr::new(185, 12, 64, 2)];
/// DNS (RFC 1035).
const DNS_PORT: u16 = 53;
/// Each target is asked in turn, and all of them within a second.
const MAX_TARGETS: usize = 4;

pub(super) fn check_health(raw: RawHealth, diagnostics: &mut Diagnostics) -> Health {
    diagnostics.reject_unknown_keys("health", &raw.unknown);
    let targets = match diagnostics.value("health.targets", raw.targets) {
        None => DEFAULT_TARGETS.map(|address| SocketAddrV4::new(address, DNS_PORT)).into(),
        Some(texts) => check_targets(texts, diagnostics),
    };
    Health { enabled: diagnostics.value("health.enabled", raw.enabled).unwrap_or(true), targets }
}

fn check_targets(texts: Vec<Entry<String>>, diagnostics: &mut Diagnostics) -> Vec<SocketAddrV4> {
    if texts.is_empty() || texts.len() > MAX_TARGETS {
        let reason = format!("{} resolvers; write 1 to {MAX_TARGETS}, or health.enabled = false", texts.len());
        diagnostics.error("health.targets", reason);
    }
    let mut targets: Vec<SocketAddrV4> = Vec::new();
    for (key, text) in diagnostics.elements("health.targets", texts) {
        match parse_target(&text) {
            Ok(target) if targets.contains(&target) => diagnostics.error(key, format!("{target} is written twice")),
            Ok(target) => targets.push(target),
            Err(reason) => diagnostics.error(key, reason),
        }
    }
    targets
}

fn parse_target(text: &str) -> Result<SocketAddrV4, String> {
    let with_port = text.parse::<SocketAddrV4>();
    let target = with_port.or_else(|_| text.parse().map(|address| SocketAddrV4::new(address, DNS_PORT)));
    let target = target.map_err(|_| format!("`{text}` is not an IPv4 address, alone or with a port (192.0.2.1:53)"))?;
    let address = *target.ip();
    if target.port() == 0 {
        return Err(format!("`{text}` has port 0; leave the port out for 53"));
    }
    if is_private(address.into()) || address.is_loopback() || address.is_multicast() || address.is_unspecified() {
        return Err(format!(
            "{address} is not on the internet, and probes prove the way there; write a public resolver"
        ));
    }
    Ok(target)
}
