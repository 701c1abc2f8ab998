//! Combines links, metadata and configuration into the [`Site`]. Pure.

mod reports;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::metadata::{Doubt, MetadataView, PrivateNetwork};
use super::model::{PrivateLink, PublicLink, Site};
use super::observe::{Kernel, Link};
use super::route::Route;
use crate::config;
use crate::net::{InterfaceName, MacAddress, overlap};
use crate::outcome::Problem;
use reports::{doubtful, mtu_hint, mtu_problem, silent_metadata};

/// Builds the site. What is missing or contradictory becomes a problem and does not affect the rest.
///
/// `previous` is the public link of the previous pass. It stays the public one while it exists, even if no default
/// route uses it at the moment: a DHCP client removes the route and adds it again. Its own address stays the first one
/// while it is away.
pub(super) fn resolve(
    config: &config::Site,
    kernel: &Kernel,
    metadata: &MetadataView,
    sshd_ports: BTreeSet<u16>,
    previous: Option<&PublicLink>,
) -> Site {
    let mut problems = Vec::new();
    let mut private = if config.private.is_empty() {
        discovered_links(config.public_interface.as_ref(), kernel, metadata, &mut problems)
    } else {
        configured_links(&config.private, kernel, &mut problems)
    };
    private.sort_by(|a, b| a.interface.cmp(&b.interface));
    let private = without_overlaps(private, &mut problems);
    problems.extend(private.iter().filter_map(mtu_problem));
    let hints = private.iter().filter_map(mtu_hint).collect();
    let public = if let Some(name) = &config.public_interface {
        find_link(kernel, name, "site.public_interface", &mut problems)
    } else {
        let private = known_as_private(config, kernel, metadata);
        let previous = previous.map(|link| &link.interface).filter(|name| !private.contains(name));
        let known = || kernel.links.iter().find(|link| previous == Some(&link.name));
        default_route_link(kernel, &private, own_address(metadata), &mut problems).or_else(known)
    };
    let public = public.map(|link| public_link(link, metadata, previous, &mut problems));
    let server_id = config.server_id.or(metadata.latest.as_ref().and_then(|metadata| metadata.server_id));
    let broadcasts = broadcasts(kernel, &private);
    Site { server_id, public, private, broadcasts, sshd_ports, problems, hints, ..Site::default() }
}

/// This server's primary public address.
fn own_address(metadata: &MetadataView) -> Option<Ipv4Addr> {
    metadata.latest.as_ref().and_then(|latest| latest.public_ipv4)
}

/// The broadcast addresses of private networks that the kernel takes for such: those of the prefixes that are on a
/// link.
fn broadcasts(kernel: &Kernel, private: &[PrivateLink]) -> BTreeSet<Ipv4Addr> {
    let on_link = kernel.links.iter().flat_map(|link| &link.addresses).filter(|prefix| prefix.prefix_len() < 31);
    let of_networks = |address: &Ipv4Addr| private.iter().any(|link| link.network.broadcast() == *address);
    on_link.map(Ipv4Net::broadcast).filter(of_networks).collect()
}

fn discovered_links(
    public: Option<&InterfaceName>,
    kernel: &Kernel,
    metadata: &MetadataView,
    problems: &mut Vec<Problem>,
) -> Vec<PrivateLink> {
    if let Some(problem) = silent_metadata(metadata) {
        problems.push(problem);
    }
    let Some(latest) = &metadata.latest else { return Vec::new() };
    if latest.private_networks.is_empty() {
        problems.push(Problem::new(
            "no-private-network",
            "the metadata service lists no private network of this server",
            "attach the server to a network (hcloud server attach-to-network); bastiond then finds it automatically",
        ));
    }
    let is_unlisted = |network: &PrivateNetwork| metadata.doubts.contains(&Doubt::Unlisted(network.network_id));
    // One that is not listed any more and has no interface was detached.
    let is_there = |network: &&PrivateNetwork| {
        !is_unlisted(network) || kernel.links.iter().any(|link| has_mac(link, network.mac_address))
    };
    let networks = latest.private_networks.iter().filter(is_there);
    let links: Vec<PrivateLink> =
        networks.filter_map(|network| discovered_link(public, kernel, network, problems)).collect();
    problems.extend(metadata.doubts.iter().filter_map(|doubt| doubtful(doubt, &links, latest.server_id)));
    links
}

fn discovered_link(
    public: Option<&InterfaceName>,
    kernel: &Kernel,
    network: &PrivateNetwork,
    problems: &mut Vec<Problem>,
) -> Option<PrivateLink> {
    let Some(link) = kernel.links.iter().find(|link| has_mac(link, network.mac_address)) else {
        problems.push(Problem::new(
            "network-without-interface",
            format!("network {} has no interface here yet (looked for {})", network.network_id, network.mac_address),
            "wait until Hetzner has attached it; if it does not appear, reboot the server",
        ));
        return None;
    };
    if public == Some(&link.name) {
        // The configuration overrides discovery: a gateway behind another gateway has its uplink in a private network.
        problems.push(Problem::new(
            "network-not-served",
            format!("network {} is not served: {} is site.public_interface", network.network_id, link.name),
            "set it to the interface towards the internet, or to \"auto\"",
        ));
        return None;
    }
    Some(check_address(
        link,
        PrivateLink {
            interface: link.name.clone(),
            mtu: link.mtu,
            address: network.ip,
            address_present: false,
            aliases: network.alias_ips.iter().copied().collect(),
            network: network.network,
            gateway: gateway_of(network.gateway, network.network, link, kernel),
            behind: Vec::new(),
            is_local: false,
            network_id: Some(network.network_id),
            network_name: network.network_name.clone(),
        },
        problems,
    ))
}

/// Bridges and VLANs on top of a link have its Ethernet address too. Links are sorted by index, so the link itself
/// comes first.
fn has_mac(link: &Link, mac: MacAddress) -> bool {
    link.mac == Some(mac)
}

fn configured_links(links: &[config::PrivateLink], kernel: &Kernel, problems: &mut Vec<Problem>) -> Vec<PrivateLink> {
    links.iter().filter_map(|configured| configured_link(configured, kernel, problems)).collect()
}

fn configured_link(
    configured: &config::PrivateLink,
    kernel: &Kernel,
    problems: &mut Vec<Problem>,
) -> Option<PrivateLink> {
    let link = find_link(kernel, &configured.interface, "site.private.interface", problems)?;
    let inside = |address: &Ipv4Addr| configured.network.contains(address);
    let Some(address) = configured.address.or_else(|| link.addresses.iter().map(Ipv4Net::addr).find(inside)) else {
        problems.push(Problem::new(
            "link-without-address",
            format!("{} has no address inside {} yet", link.name, configured.network),
            "configure one, or write the future one into site.private.address",
        ));
        return None;
    };
    let aliases = link.addresses.iter().map(Ipv4Net::addr).filter(inside).filter(|&alias| alias != address);
    Some(check_address(
        link,
        PrivateLink {
            interface: link.name.clone(),
            mtu: link.mtu,
            address,
            address_present: false,
            aliases: aliases.collect(),
            network: configured.network,
            gateway: gateway_of(None, configured.network, link, kernel),
            behind: Vec::new(),
            is_local: false,
            network_id: configured.network_id,
            network_name: None,
        },
        problems,
    ))
}

/// The router of a network: the one of the kernel's route to it, or else the one that the metadata names.
fn gateway_of(named: Option<Ipv4Addr>, network: Ipv4Net, link: &Link, kernel: &Kernel) -> Option<Ipv4Addr> {
    let leads_there =
        |route: &&Route| route.interface == Some(link.index) && route.destination == network && route.is_in_main();
    let routed = || kernel.routes.iter().filter(leads_there).find_map(|route| route.gateway);
    routed().or(named.filter(|gateway| network.contains(gateway)))
}

/// Ranges that interfaces lead to which are neither public nor private links: bridges of containers, tunnels of other
/// programs.
pub(super) fn elsewhere(kernel: &Kernel, site: &Site, tunnel: Option<&InterfaceName>) -> Vec<Ipv4Net> {
    let is_ours = |name: &InterfaceName| {
        site.public.as_ref().is_some_and(|link| link.interface == *name)
            || site.private.iter().any(|link| link.interface == *name)
            || tunnel == Some(name)
            || name.as_str() == "lo"
    };
    let others: Vec<&Link> = kernel.links.iter().filter(|link| !is_ours(&link.name)).collect();
    // Not routes to half of the internet, as some VPNs make them: narrower ones win over those.
    let is_other = |route: &&Route| {
        route.is_in_main()
            && route.destination.prefix_len() >= 8
            && others.iter().any(|link| Some(link.index) == route.interface)
    };
    let routed = kernel.routes.iter().filter(is_other).map(|route| route.destination);
    let attached = others.iter().flat_map(|link| link.addresses.iter().map(Ipv4Net::trunc));
    Ipv4Net::aggregate(&routed.chain(attached).collect())
}

/// Checks whether the link has its address already.
fn check_address(link: &Link, described: PrivateLink, problems: &mut Vec<Problem>) -> PrivateLink {
    let address_present = link.up && link.addresses.iter().any(|net| net.addr() == described.address);
    if !address_present {
        problems.push(Problem::new(
            "link-without-address",
            format!("{} does not have its address {} yet, or is down", link.name, described.address),
            "DHCP assigns it; if it stays missing, check the server's network configuration",
        ));
    }
    PrivateLink { address_present, ..described }
}

/// Two links with overlapping ranges cannot both be routed; only the first one is kept.
fn without_overlaps(links: Vec<PrivateLink>, problems: &mut Vec<Problem>) -> Vec<PrivateLink> {
    let mut kept: Vec<PrivateLink> = Vec::new();
    for link in links {
        match kept.iter().find(|earlier| overlap(earlier.network, link.network)) {
            Some(earlier) => problems.push(Problem::new(
                "networks-overlap",
                format!(
                    "{} on {} overlaps {} on {}, and only the latter is served",
                    link.network, link.interface, earlier.network, earlier.interface
                ),
                "give the networks different ranges, or write the link to serve into [[site.private]]",
            )),
            None => kept.push(link),
        }
    }
    kept
}

/// The public link, its own address first: the one that the metadata service names. While another program removes that
/// and adds it again, it stays the first, so that no other address becomes the bastion's own for a moment.
fn public_link(
    link: &Link,
    metadata: &MetadataView,
    previous: Option<&PublicLink>,
    problems: &mut Vec<Problem>,
) -> PublicLink {
    let own = own_address(metadata);
    let has_none = own.is_none() && metadata.latest.as_ref().is_some_and(|latest| latest.server_id.is_some());
    let mut addresses: Vec<Ipv4Addr> = link.addresses.iter().map(Ipv4Net::addr).collect();
    let known = previous.filter(|it| it.interface == link.name).map_or(&[][..], |it| it.addresses.as_slice());
    // An address that was not there before replaces it: the server's address has changed, and the metadata is older.
    let is_away = |own: &Ipv4Addr| known.first() == Some(own) && addresses.iter().all(|it| known.contains(it));
    if let Some(position) = addresses.iter().position(|address| Some(*address) == own) {
        addresses[..=position].rotate_right(1);
    } else if let Some(own) = own.filter(|own| !addresses.is_empty() && is_away(own)) {
        addresses.insert(0, own);
        problems.push(Problem::new(
            "own-address-missing",
            format!("{} does not have its own address {own} at the moment", link.name),
            "DHCP or the network configuration adds it again; answers to it do not arrive before",
        ));
    }
    if !link.up {
        problems.push(Problem::new(
            "public-link-down",
            format!("{} is down", link.name),
            format!("run `ip link set {} up`; until then nothing reaches the internet", link.name),
        ));
    } else if addresses.is_empty() && has_none {
        problems.push(Problem::new(
            "no-public-address",
            format!(
                "{} has no IPv4 address, and Hetzner lists none for this server: NAT needs a public one",
                link.name
            ),
            "switch the server off and add one: hcloud primary-ip create --type ipv4 --assignee-id SERVER; if \
             it is to be \
             a VPN only, set egress.allow = []",
        ));
    } else if addresses.is_empty() {
        problems.push(Problem::new(
            "no-public-address",
            format!("{} has no IPv4 address yet", link.name),
            "DHCP assigns it; until then nothing is translated",
        ));
    }
    PublicLink { interface: link.name.clone(), mtu: link.mtu, addresses }
}

/// Every interface that is private by configuration or metadata, even if it cannot be served. None of them leads to the
/// internet.
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
    own: Option<Ipv4Addr>,
    problems: &mut Vec<Problem>,
) -> Option<&'a Link> {
    let mut routes = kernel.default_routes.clone();
    routes.sort_by_key(|route| route.metric);
    let links = routes.iter().filter_map(|route| kernel.links.iter().find(|link| link.index == route.interface));
    let links: Vec<&Link> = links.collect();
    // A VPN client may have added a better default route. The public link is still the one with the public address.
    let has_own = |link: &&&Link| link.addresses.iter().any(|net| Some(net.addr()) == own);
    if let Some(link) = links.iter().find(has_own).filter(|link| !private.contains(&link.name)) {
        return Some(link);
    }
    // A server that has IPv6 only: the tunnel and this server's own ports work.
    let v6_only = || {
        let links =
            kernel.default_routes_v6.iter().filter_map(|index| kernel.links.iter().find(|it| it.index == *index));
        links.into_iter().find(|link| link.addresses.is_empty() && !private.contains(&link.name))
    };
    if let Some(link) = links.is_empty().then(v6_only).flatten() {
        return Some(link);
    }
    let mut through_private = None;
    for link in links {
        if !private.contains(&link.name) {
            return Some(link);
        }
        through_private = through_private.or(Some(link));
    }
    problems.push(match through_private {
        Some(link) => Problem::new(
            "default-route-private",
            format!("the only default route uses the private interface {}", link.name),
            "give the bastion a public interface, or name it in site.public_interface",
        ),
        None => Problem::new(
            "no-default-route",
            "there is no IPv4 default route, so the public interface is not known yet",
            "DHCP adds it; if there is none, name the interface in site.public_interface",
        ),
    });
    None
}

fn find_link<'a>(kernel: &'a Kernel, name: &InterfaceName, key: &str, problems: &mut Vec<Problem>) -> Option<&'a Link> {
    let link = kernel.links.iter().find(|link| link.name == *name);
    if link.is_none() {
        let names: Vec<&str> =
            kernel.links.iter().map(|link| link.name.as_str()).filter(|&name| name != "lo").collect();
        problems.push(Problem::new(
            "interface-missing",
            format!("{key}: there is no interface {name}"),
            format!("the interfaces here are: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }),
        ));
    }
    link
}

#[cfg(test)]
mod tests;
