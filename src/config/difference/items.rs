//! A configuration as items: the settings that are a few values each.

use super::item::{Item, SecretValue, duration, list, or};
use super::{policy, tunnel};
use crate::config::model::{Config, DockerBridges, Hcloud, Health, Log, PrivateLink, Site, TokenSource};

/// Everything that a configuration says.
pub(super) fn items(config: &Config) -> Vec<Item<'_>> {
    // `warnings` say something about the file, not about the gateway.
    let Config { log, site, nat, egress, networks, tenants, firewall, hcloud, health, wireguard, hosts, warnings: _ } =
        config;
    let Log { level } = log;
    let mut items = vec![Item::key("log.level", level.as_str().to_lowercase())];
    items.extend(of_site(site));
    items.extend(policy::of_nat(nat));
    items.extend(policy::of_egress(egress));
    items.extend(networks.iter().flat_map(|network| policy::of_network(network, egress)));
    items.extend(tenants.iter().map(|line| Item::entry("tenants allow", policy::acl(line))));
    items.extend(policy::of_firewall(firewall));
    items.extend(of_hcloud(hcloud));
    let Health { enabled, targets } = health;
    items.push(Item::key("health.enabled", enabled));
    items.extend(targets.iter().map(|target| Item::entry("probe target", target.to_string())));
    items.extend(hosts.iter().map(|(name, ranges)| Item::named("host", name, format!("{name} = {}", list(ranges)))));
    items.extend(wireguard.iter().flat_map(tunnel::of_tunnel));
    items
}

fn of_site(site: &Site) -> Vec<Item<'_>> {
    let Site { public_interface, server_id, metadata_endpoint, docker, private } = site;
    let docker = match docker {
        DockerBridges::Report => "auto",
        DockerBridges::Serve => "true",
        DockerBridges::Ignore => "false",
    };
    let mut items = vec![
        Item::key("site.public_interface", or(public_interface.as_ref(), "auto")),
        Item::key("site.server_id", or(server_id.as_ref(), "auto")),
        Item::key("site.metadata_endpoint", metadata_endpoint),
        Item::key("site.docker", docker),
    ];
    items.extend(private.iter().map(|PrivateLink { interface, network, address, network_id, also }| {
        let address = or(address.as_ref(), "auto");
        let id = network_id.map_or_else(String::new, |id| format!(" (network {id})"));
        let also = if also.is_empty() { String::new() } else { format!(" also {}", list(also)) };
        let text = format!("{interface} {network} address {address}{id}{also}");
        Item::named("private link", interface.to_string(), text)
    }));
    items
}

fn of_hcloud(hcloud: &Hcloud) -> Vec<Item<'_>> {
    let Hcloud { enabled, endpoint, token, destinations, take_over, poll_interval, network } = hcloud;
    // A credential is systemd's, and no key of the file.
    let TokenSource { credential: _, files, value } = token;
    let mut items = vec![
        Item::key("hcloud.enabled", enabled),
        Item::key("hcloud.endpoint", endpoint),
        Item::key("hcloud.token_file", list(files.iter().map(|file| file.display()))),
        Item::key("hcloud.take_over", take_over),
        Item::key("hcloud.poll_interval", duration(*poll_interval)),
    ];
    items.extend(
        value
            .as_ref()
            .map(|token| Item { secret: Some(SecretValue::Token(token)), ..Item::key("HCLOUD_TOKEN", "[redacted]") }),
    );
    items.extend(network.as_ref().map(|network| Item::key("HCLOUD_NETWORK", network)));
    items.extend(destinations.iter().map(|destination| Item::entry("cloud route", destination.to_string())));
    items
}
