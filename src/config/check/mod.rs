//! From the raw file to a [`Config`], or to all errors at once. Every default is written here and nowhere else.

mod access;
mod access_entry;
mod acl;
mod behind;
mod budget;
mod context;
mod diagnostics;
mod egress;
mod firewall;
mod for_clients;
mod forwards;
mod hcloud;
mod health;
mod key_files;
mod lockout;
mod nat;
mod natural_order;
mod overlap;
mod peers;
mod places;
mod private;
mod private_key;
mod reserved;
mod services;
mod site;
mod statics;
mod suggestion;
mod values;
mod wg_file;
mod wireguard;

pub(super) use context::CheckContext;

use super::diagnostic::Diagnostic;
use super::files::Files;
use super::model::{Config, Log};
use super::raw::{RawConfig, RawLog};
use budget::Budget;
use diagnostics::Diagnostics;
use egress::CheckedNetwork;

pub(super) fn check(raw: RawConfig, context: &CheckContext<'_, impl Files>) -> Result<Config, Vec<Diagnostic>> {
    let mut all = Diagnostics::default();
    let diagnostics = &mut all;
    diagnostics.reject_unknown_keys("", &raw.unknown);
    let log = check_log(diagnostics.section_or_default("log", raw.log), diagnostics);
    let (site, private) =
        site::check_site(diagnostics.section_or_default("site", raw.site), context.environment, diagnostics);
    let private = private.with_ranges_behind(behind::ranges_of_networks(&raw.network));
    let mut budget = Budget::new("all access lists together (each source counted with each destination and port)");
    let nat = nat::check_nat(diagnostics.section_or_default("nat", raw.nat), &private, &mut budget, diagnostics);
    let egress = egress::check_egress(diagnostics.section_or_default("egress", raw.egress), &mut budget, diagnostics);
    let networks = diagnostics.value("network", raw.network).map(|blocks| blocks.0).unwrap_or_default();
    let networks = egress::check_networks(networks, &egress.lists, &private, &mut budget, diagnostics);
    let tenants = acl::check_tenants(diagnostics.section_or_default("tenants", raw.tenants), &mut budget, diagnostics);
    budget.check(diagnostics);
    nat.check_public_addresses(networks.iter().flat_map(CheckedNetwork::pools), diagnostics);
    let (mut firewall, port) =
        firewall::check_firewall(diagnostics.section_or_default("firewall", raw.firewall), diagnostics);
    let hosts = places::check_hosts(diagnostics.section_or_default("hosts", raw.hosts), diagnostics);
    let places = places::Places::new(hosts, networks.iter().filter_map(CheckedNetwork::named), diagnostics);
    let tunnel = wireguard::check_wireguard(raw.wireguard, port, &site, &places, context, diagnostics);
    firewall.wireguard_port = tunnel.open_port;
    lockout::check_ssh_only_by_tunnel(&firewall, tunnel.for_ssh(), diagnostics);
    forwards::check_ports_of_bastion(&nat.forwards, &firewall, diagnostics);
    forwards::warn_about_hidden_services(&nat.forwards, &firewall, diagnostics);
    let hcloud =
        hcloud::check_hcloud(diagnostics.section_or_default("hcloud", raw.hcloud), context.environment, diagnostics);
    let networks: Vec<_> = networks.into_iter().filter_map(CheckedNetwork::finish).collect();
    behind::check_ranges_behind(&site, &networks, tunnel.wireguard.as_ref(), diagnostics);
    let health = health::check_health(diagnostics.section_or_default("health", raw.health), diagnostics);
    let warnings = all.into_warnings()?;
    let (nat, wireguard) = (nat.finish(), tunnel.wireguard);
    let hosts = places.into_hosts();
    Ok(Config { log, site, nat, egress, networks, tenants, firewall, hcloud, health, wireguard, hosts, warnings })
}

fn check_log(raw: RawLog, diagnostics: &mut Diagnostics) -> Log {
    diagnostics.reject_unknown_keys("log", &raw.unknown);
    let level = diagnostics.parse_field("log", "level", raw.level, |text: &str| match text {
        "error" => Ok(tracing::Level::ERROR),
        "warn" => Ok(tracing::Level::WARN),
        "info" => Ok(tracing::Level::INFO),
        "debug" => Ok(tracing::Level::DEBUG),
        "trace" => Ok(tracing::Level::TRACE),
        _ => Err(format!("`{text}` is not one of error, warn, info, debug, trace")),
    });
    Log { level: level.unwrap_or(tracing::Level::INFO) }
}
