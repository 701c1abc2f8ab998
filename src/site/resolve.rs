//! Links, metadata and configuration in; the [`Site`] out. Pure.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::metadata::{MetadataView, PrivateNetwork};
use super::model::{PrivateLink, PublicLink, Site};
use super::observe::{Kernel, Link};
use crate::config;
use crate::net::{InterfaceName, MacAddress, overlap};
use crate::outcome::Problem;

/// Puts the site together. What is missing or contradictory becomes a problem, and the rest goes on.
///
/// `before` is the public interface of the last look: it stays the public one while it is there, whether or not a default
/// route leads through it at the moment (a DHCP client takes the route away and brings it back).
pub fn resolve(
    config: &config::Site,
    kernel: &Kernel,
    metadata: &MetadataView,
    sshd_ports: BTreeSet<u16>,
    before: Option<&InterfaceName>,
) -> Site {
    let mut problems = Vec::new();
    let mut private = if config.private.is_empty() {
        discovered_links(config.public_interface.as_ref(), kernel, metadata, &mut problems)
    } else {
        written_links(&config.private, kernel, &mut problems)
    };
    private.sort_by(|a, b| a.interface.cmp(&b.interface));
    let private = without_overlaps(private, &mut problems);
    let public = if let Some(name) = &config.public_interface {
        existing(kernel, name, "site.public_interface", &mut problems)
    } else {
        let private = known_as_private(config, kernel, metadata);
        let before = before.filter(|name| !private.contains(name));
        let known = || kernel.links.iter().find(|link| before == Some(&link.name));
        default_route_link(kernel, &private, &mut problems).or_else(known)
    };
    let public = public.map(|link| public_link(link, &mut problems));
    let server_id = config.server_id.or(metadata.latest.as_ref().and_then(|metadata| metadata.server_id));
    Site { server_id, public, private, sshd_ports, problems, hints: Vec::new() }
}

fn discovered_links(
    public: Option<&InterfaceName>,
    kernel: &Kernel,
    metadata: &MetadataView,
    problems: &mut Vec<Problem>,
) -> Vec<PrivateLink> {
    if let Some(error) = &metadata.error {
        problems.push(Problem::new(
            format!("the metadata service does not answer: {error}"),
            "on a server outside of Hetzner Cloud write the private links into [[site.private]]",
        ));
    }
    let Some(latest) = &metadata.latest else { return Vec::new() };
    if latest.private_networks.is_empty() {
        problems.push(Problem::new(
            "the metadata service lists no private network of this server",
            "attach the server to a network (hcloud server attach-to-network); it is noticed by itself",
        ));
    }
    latest.private_networks.iter().filter_map(|network| discovered_link(public, kernel, network, problems)).collect()
}

fn discovered_link(
    public: Option<&InterfaceName>,
    kernel: &Kernel,
    network: &PrivateNetwork,
    problems: &mut Vec<Problem>,
) -> Option<PrivateLink> {
    let Some(link) = kernel.links.iter().find(|link| has_mac(link, network.mac_address)) else {
        problems.push(Problem::new(
            format!("network {} has no interface here yet (looked for {})", network.network_id, network.mac_address),
            "it appears when Hetzner has plugged it in; a reboot helps where it never does",
        ));
        return None;
    };
    if public == Some(&link.name) {
        // What is written overrules what is discovered: a gateway behind another gateway has its uplink in a network.
        problems.push(Problem::new(
            format!("network {} is not served: {} is site.public_interface", network.network_id, link.name),
            "name the interface towards the internet there, or write \"auto\"",
        ));
        return None;
    }
    Some(private_link(
        link,
        PrivateLink {
            interface: link.name.clone(),
            mtu: link.mtu,
            address: network.ip,
            address_present: false,
            aliases: network.alias_ips.iter().copied().collect(),
            network: network.network,
            network_id: Some(network.network_id),
            network_name: network.network_name.clone(),
        },
        problems,
    ))
}

/// Bridges and VLANs on top of a link share its Ethernet address; links are sorted by index, so the link itself is first.
fn has_mac(link: &Link, mac: MacAddress) -> bool {
    link.mac == Some(mac)
}

fn written_links(links: &[config::PrivateLink], kernel: &Kernel, problems: &mut Vec<Problem>) -> Vec<PrivateLink> {
    links.iter().filter_map(|written| written_link(written, kernel, problems)).collect()
}

fn written_link(written: &config::PrivateLink, kernel: &Kernel, problems: &mut Vec<Problem>) -> Option<PrivateLink> {
    let link = existing(kernel, &written.interface, "site.private.interface", problems)?;
    let inside = |address: &Ipv4Addr| written.network.contains(address);
    let Some(address) = written.address.or_else(|| link.addresses.iter().map(Ipv4Net::addr).find(inside)) else {
        problems.push(Problem::new(
            format!("{} has no address inside of {} yet", link.name, written.network),
            "configure it, or name the coming one in site.private.address",
        ));
        return None;
    };
    let aliases = link.addresses.iter().map(Ipv4Net::addr).filter(inside).filter(|&alias| alias != address);
    Some(private_link(
        link,
        PrivateLink {
            interface: link.name.clone(),
            mtu: link.mtu,
            address,
            address_present: false,
            aliases: aliases.collect(),
            network: written.network,
            network_id: written.network_id,
            network_name: None,
        },
        problems,
    ))
}

/// Looks whether the link has its address already.
fn private_link(link: &Link, described: PrivateLink, problems: &mut Vec<Problem>) -> PrivateLink {
    let address_present = link.up && link.addresses.iter().any(|net| net.addr() == described.address);
    if !address_present {
        problems.push(Problem::new(
            format!("{} does not have its address {} yet, or is down", link.name, described.address),
            "it comes by DHCP; if it stays away, look at the server's network configuration",
        ));
    }
    PrivateLink { address_present, ..described }
}

/// Two links with overlapping ranges cannot both be routed: the first keeps it.
fn without_overlaps(links: Vec<PrivateLink>, problems: &mut Vec<Problem>) -> Vec<PrivateLink> {
    let mut kept: Vec<PrivateLink> = Vec::new();
    for link in links {
        match kept.iter().find(|earlier| overlap(earlier.network, link.network)) {
            Some(earlier) => problems.push(Problem::new(
                format!(
                    "{} on {} overlaps {} on {}: only the latter is served",
                    link.network, link.interface, earlier.network, earlier.interface
                ),
                "give the networks different ranges, or write the link to serve into [[site.private]]",
            )),
            None => kept.push(link),
        }
    }
    kept
}

fn public_link(link: &Link, problems: &mut Vec<Problem>) -> PublicLink {
    let addresses: Vec<Ipv4Addr> = link.addresses.iter().map(Ipv4Net::addr).collect();
    if !link.up {
        problems.push(Problem::new(
            format!("{} is down", link.name),
            format!("nothing reaches the internet until it is up (ip link set {} up)", link.name),
        ));
    } else if addresses.is_empty() {
        problems.push(Problem::new(
            format!("{} has no IPv4 address yet", link.name),
            "it comes by DHCP; nothing is translated until it is there",
        ));
    }
    PublicLink { interface: link.name.clone(), mtu: link.mtu, addresses }
}

/// Every interface that is said to be private, whether it can be served or not: none of them is the way to the internet.
fn known_as_private<'a>(
    config: &'a config::Site,
    kernel: &'a Kernel,
    metadata: &MetadataView,
) -> BTreeSet<&'a InterfaceName> {
    let networks = metadata.latest.iter().flat_map(|latest| &latest.private_networks);
    let discovered = networks.flat_map(|network| kernel.links.iter().filter(|link| has_mac(link, network.mac_address)));
    config.private.iter().map(|link| &link.interface).chain(discovered.map(|link| &link.name)).collect()
}

fn default_route_link<'a>(
    kernel: &'a Kernel,
    private: &BTreeSet<&InterfaceName>,
    problems: &mut Vec<Problem>,
) -> Option<&'a Link> {
    let mut routes = kernel.default_routes.clone();
    routes.sort_by_key(|route| route.metric);
    let links = routes.iter().filter_map(|route| kernel.links.iter().find(|link| link.index == route.interface));
    let mut through_private = None;
    for link in links {
        if !private.contains(&link.name) {
            return Some(link);
        }
        through_private = through_private.or(Some(link));
    }
    problems.push(match through_private {
        Some(link) => Problem::new(
            format!("the only default route leaves by the private interface {}", link.name),
            "give the bastion a public interface, or name it in site.public_interface",
        ),
        None => Problem::new(
            "there is no IPv4 default route, so the public interface is not known yet",
            "it comes by DHCP; without one, name the interface in site.public_interface",
        ),
    });
    None
}

fn existing<'a>(kernel: &'a Kernel, name: &InterfaceName, key: &str, problems: &mut Vec<Problem>) -> Option<&'a Link> {
    let link = kernel.links.iter().find(|link| link.name == *name);
    if link.is_none() {
        let names: Vec<&str> =
            kernel.links.iter().map(|link| link.name.as_str()).filter(|&name| name != "lo").collect();
        problems.push(Problem::new(
            format!("{key}: there is no interface {name}"),
            format!("the interfaces here are: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }),
        ));
    }
    link
}

#[cfg(test)]
mod tests;
