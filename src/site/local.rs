//! Networks of this server itself: bridges of containers and virtual machines. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::model::{PrivateLink, Site};
use super::observe::{Kernel, Link};
use crate::config::{Config, DockerBridges, NetworkName};
use crate::net::overlap;
use crate::outcome::Problem;

/// Digits in the name of the bridge of a Docker network: `br-` and the beginning of the network's id.
const DOCKER_ID_DIGITS: usize = 12;

/// Whether Docker gives this name to bridges. Networks may have bridges with other names
/// (`com.docker.network.bridge.name`); those are named one by one.
pub(crate) fn is_dockers(name: &str) -> bool {
    let is_id = |id: &str| id.len() == DOCKER_ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    matches!(name, "docker0" | "docker_gwbridge") || name.strip_prefix("br-").is_some_and(is_id)
}

/// Adds the local networks that the configuration names, or Docker's bridges if it wants them. A bridge with guests
/// that is not served is reported: its guests have no network.
pub(super) fn add_local_links(site: &mut Site, config: &Config, kernel: &Kernel) {
    let tunnel = config.wireguard.as_ref().map(|tunnel| &tunnel.interface);
    for link in kernel.links.iter().filter(|link| link.name.as_str() != "lo" && tunnel != Some(&link.name)) {
        if site.private.iter().any(|private| private.interface == link.name) {
            continue;
        }
        let is_public = site.public.as_ref().is_some_and(|public| public.interface == link.name);
        let policy = config.networks.iter().find(|policy| policy.network == NetworkName::Interface(link.name.clone()));
        let guests = kernel.bridges.get(&link.index).copied();
        let is_docker = guests.is_some() && is_dockers(link.name.as_str());
        match (policy, is_public) {
            (Some(policy), true) => {
                let what = format!("{}.interface: {} is this server's public interface", policy.key, link.name);
                site.conflicts.push(Problem::new(
                    "interface-is-public",
                    what,
                    "name a bridge, or the interface of a private network",
                ));
            }
            (policy, false) if policy.is_some() || is_docker && config.site.docker == DockerBridges::Serve => {
                let key = policy.map_or_else(|| "site.docker".to_owned(), |policy| format!("{}.interface", policy.key));
                match local_link(link) {
                    Some(local) => add(site, &key, local),
                    None if policy.is_some() => {
                        let what = format!("{key}: {} has no IPv4 network yet", link.name);
                        site.hints.push(Problem::new(
                            "bridge-not-ready",
                            what,
                            "it is served once it has an address with a network",
                        ));
                    }
                    None => {}
                }
            }
            (_, false) if guests.is_some_and(|guests| guests > 0) => report(site, config, link, is_docker),
            (None, true) | (_, false) => {}
        }
    }
    for policy in &config.networks {
        let NetworkName::Interface(name) = &policy.network else { continue };
        if kernel.links.iter().all(|link| link.name != *name) {
            let what = format!("{}.interface: there is no interface {name} yet", policy.key);
            site.hints.push(Problem::new("bridge-not-ready", what, "it is served once it is there"));
        }
    }
    site.private.sort_by(|a, b| a.interface.cmp(&b.interface));
}

/// The link as one of ours; `None` if it has no address with a network around it.
fn local_link(link: &Link) -> Option<PrivateLink> {
    let mut networks = link.addresses.iter().filter(|net| net.prefix_len() < 32);
    let first = networks.next()?;
    let behind: BTreeSet<Ipv4Net> =
        networks.map(Ipv4Net::trunc).filter(|network| !overlap(*network, first.trunc())).collect();
    let others = link.addresses.iter().map(Ipv4Net::addr).filter(|address| *address != first.addr());
    Some(PrivateLink {
        interface: link.name.clone(),
        mtu: link.mtu,
        address: first.addr(),
        address_present: link.up,
        aliases: others.collect::<BTreeSet<Ipv4Addr>>(),
        network: first.trunc(),
        gateway: None,
        behind: behind.into_iter().collect(),
        is_local: true,
        network_id: None,
        network_name: None,
    })
}

/// Adds the link, unless one of its ranges is already another link's.
fn add(site: &mut Site, key: &str, local: PrivateLink) {
    let public = site.public.iter().flat_map(|public| public.addresses.iter().map(|address| Ipv4Net::from(*address)));
    let taken: Vec<Ipv4Net> = site.private.iter().flat_map(PrivateLink::ranges).chain(public).collect();
    let overlapping =
        local.ranges().find_map(|range| Some((range, *taken.iter().find(|other| overlap(**other, range))?)));
    match overlapping {
        None => site.private.push(local),
        Some((range, other)) => {
            let what = format!("{key}: {range} on {} overlaps {other}, and is not served", local.interface);
            site.conflicts.push(Problem::new("bridge-overlaps", what, "give the bridge another network"));
        }
    }
}

fn report(site: &mut Site, config: &Config, link: &Link, is_docker: bool) {
    let networks: Vec<String> = link.addresses.iter().map(|net| net.trunc().to_string()).collect();
    let (name, networks) = (&link.name, networks.join(", "));
    if networks.is_empty() {
        // A bridge without an address is a switch, and its guests do not use this server as a gateway.
        return;
    }
    let what =
        format!("{name} ({networks}) has guests and is not served: they have no network, published ports included");
    if !is_docker {
        let advice =
            format!("serve it: write the two lines [[network]] and interface = \"{name}\" into the configuration");
        site.hints.push(Problem::new("bridge-not-served", what, advice));
    } else if config.site.docker == DockerBridges::Report {
        let advice = "serve Docker's networks: write docker = true below [site]; or docker = false to leave them alone";
        site.conflicts.push(Problem::new("bridge-not-served", what, advice));
    }
}
