//! From the file as it stands to a [`Config`], or to every [`Problem`] at once. The defaults are written here and nowhere else.

mod acl;
mod budget;
mod egress;
mod file;
mod firewall;
mod forwards;
mod hcloud;
mod keys;
mod nat;
mod overlap;
mod peers;
mod private;
mod services;
mod site;
mod statics;
mod wireguard;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::findings::Findings;
use super::raw::{RawConfig, RawLog};
use super::{Config, Environment, Files, Log, Problem};
use budget::Budget;
use egress::CheckedNetwork;

/// What a configuration is checked with, beside its text.
pub(super) struct Surroundings<'a, F> {
    pub(super) environment: &'a Environment,
    pub(super) files: &'a F,
    /// Whether everybody on this server may read the file.
    pub(super) readable_by_all: bool,
}

pub(super) fn check(raw: RawConfig, around: &Surroundings<'_, impl Files>) -> Result<Config, Vec<Problem>> {
    let mut found = Findings::default();
    found.unknown("", &raw.unknown);
    let log = log(found.section("log", raw.log), &mut found);
    let (site, private) = site::section(found.section("site", raw.site), around.environment, &mut found);
    let mut budget = Budget::of("all access lists together, each source counted with each destination and port");
    let nat = nat::section(found.section("nat", raw.nat), &private, &mut budget, &mut found);
    let egress = egress::section(found.section("egress", raw.egress), &mut budget, &mut found);
    let networks = found.value("network", raw.network).map(|blocks| blocks.0).unwrap_or_default();
    let networks = egress::networks(networks, &egress.lists, &private, &mut budget, &mut found);
    let tenants = acl::tenants(found.section("tenants", raw.tenants), &mut budget, &mut found);
    budget.keep(&mut found);
    nat.addresses_differ(networks.iter().filter_map(|network| network.pool.as_ref()), &mut found);
    let (mut firewall, port) = firewall::section(found.section("firewall", raw.firewall), &mut found);
    let tunnel = wireguard::section(raw.wireguard, port, &site, around, &mut found);
    firewall.wireguard_port = tunnel.open_port;
    let wireguard = tunnel.wireguard;
    firewall::ssh_by_tunnel(&firewall, wireguard.as_ref(), &mut found);
    forwards::spare_the_bastion(&nat.forwards, &firewall, &mut found);
    forwards::spare_services(&nat.forwards, &firewall, &mut found);
    let hcloud = hcloud::section(found.section("hcloud", raw.hcloud), around.environment, &mut found);
    if found.problems.is_empty() {
        found.warnings.sort();
        let Findings { warnings, .. } = found;
        let nat = nat.whole();
        let networks = networks.into_iter().filter_map(CheckedNetwork::whole).collect();
        return Ok(Config { log, site, nat, egress, networks, tenants, firewall, hcloud, wireguard, warnings });
    }
    found.problems.sort();
    Err(found.problems)
}

fn log(raw: RawLog, found: &mut Findings) -> Log {
    found.unknown("log", &raw.unknown);
    let level = found.value("log.level", raw.level).and_then(|text| {
        let level = match text.as_str() {
            "error" => Some(tracing::Level::ERROR),
            "warn" => Some(tracing::Level::WARN),
            "info" => Some(tracing::Level::INFO),
            "debug" => Some(tracing::Level::DEBUG),
            "trace" => Some(tracing::Level::TRACE),
            _ => None,
        };
        if level.is_none() {
            found.report("log.level", format!("`{text}` is none of error, warn, info, debug, trace"));
        }
        level
    });
    Log { level: level.unwrap_or(tracing::Level::INFO) }
}

/// The file's value unless the environment has one: variables win, as in the official tools.
fn endpoint(
    key: &str,
    from_file: Option<String>,
    (variable, from_environment): (&str, Option<&str>),
    found: &mut Findings,
) -> Option<String> {
    let from_file = from_file.and_then(|text| found.base_url(key, &text));
    match from_environment {
        Some(text) => found.base_url(variable, text),
        None => from_file,
    }
}

fn everywhere_v4() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)
}

fn everywhere_v6() -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)
}
