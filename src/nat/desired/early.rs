//! Sources that a packet's interface cannot have, and the blocklist. These rules stand before connection tracking, so
//! such packets cost no entry there.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfHook};

use super::super::element::{Element, FieldValue, ranges, ranges_by_family};
use super::super::model::{Chain, Rule, Set, fields};
use super::super::statement::{
    RuleStatement, Value, accept, address, anonymous_set, concat, eq, field, goto, iifname, interface, ne, number,
    prefix, set, text,
};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Section};
use super::link_probes::returned_probes;
use super::{ERRORS, RAW, Scope, comes_in_by, filter, is_for_us, untracked};
use crate::hetzner::{self, METADATA_ADDRESS, PUBLIC_GATEWAY};
use crate::inputs::Tunnel;
use crate::net::{v4, v6};
use crate::site::{PrivateLink, PublicLink, Site};

/// The set of the sources that no packet from the internet has, and no packet to it.
pub(super) const NOT_FROM_OUTSIDE: &str = "not_from_outside";
/// The set of the sources behind networks.
const SOURCES_BEHIND: &str = "sources_behind";

/// Ranges that are neither destinations on the internet nor sources from there.
pub(super) fn unroutable(public: Option<&PublicLink>) -> Vec<Ipv4Net> {
    hetzner::unroutable(public.iter().flat_map(|public| &public.addresses))
}

/// The sources that no packet from the internet has: those that are not routed there, and ours.
pub(super) fn not_from_outside(Scope { site, tunnel, .. }: Scope<'_>) -> Vec<Ipv4Net> {
    let networks = site.private.iter().flat_map(PrivateLink::ranges);
    let in_tunnel = tunnel.map(|tunnel| v4(tunnel.networks.iter().copied())).unwrap_or_default();
    unroutable(site.public.as_ref()).into_iter().chain(networks).chain(in_tunnel).collect()
}

/// The blocklist, and checks of sources by interface.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, tunnel, .. } = scope;
    let mut rules: Vec<Rule> = Vec::new();
    let mut sets = vec![Set::ranges(NOT_FROM_OUTSIDE, [fields::V4], ranges(not_from_outside(scope)))];
    if let Some(public) = &site.public {
        let unexpected = eq(field("ip", "saddr"), set(NOT_FROM_OUTSIDE));
        rules.push(vec![comes_in_by(&public.interface), unexpected, goto("unexpected")]);
    }
    let (blocked4, blocked6) = ranges_by_family(&config.firewall.blocklist);
    let families = [("ip", "blocked4", fields::V4, blocked4), ("ip6", "blocked6", fields::V6, blocked6)];
    for (protocol, name, kind, blocked) in families.into_iter().filter(|(.., blocked)| !blocked.is_empty()) {
        sets.push(Set::ranges(name, [kind], blocked));
        if let Some(public) = &site.public {
            let is_blocked = eq(field(protocol, "saddr"), set(name));
            rules.push(vec![comes_in_by(&public.interface), is_blocked, drop_as(DropReason::Blocked)]);
        }
    }
    for link in &site.private {
        if link.is_local {
            // A guest asks for its address without having one.
            let unspecified = eq(field("ip", "saddr"), address(Ipv4Addr::UNSPECIFIED));
            rules.push(vec![
                comes_in_by(&link.interface),
                unspecified,
                eq(field("udp", "dport"), number(67)),
                accept(),
            ]);
        }
        let foreign = ne(field("ip", "saddr"), prefix(link.network.into()));
        rules.push(vec![comes_in_by(&link.interface), foreign, goto("unexpected")]);
    }
    rules.extend(tunnel.into_iter().flat_map(tunnel_rules));
    rules.extend(untracked::branch(scope));
    let base = filter(NfHook::Prerouting, RAW, NfChainPolicy::Accept);
    let behind = sources_behind(site);
    let has_sources_behind = behind.is_some();
    sets.extend(behind);
    let (to_probes, probes) = returned_probes(scope).unzip();
    let unexpected = unexpected_chain(to_probes, has_sources_behind, untracked::dhcp_branch(scope));
    let chains = probes.into_iter().chain([unexpected, Chain::base("early", base, rules)]);
    Feature { sets, chains: chains.map(|chain| (Section::Early, chain)).collect(), ..Feature::default() }
}

/// A source is either inside the tunnel or outside.
fn tunnel_rules(tunnel: &Tunnel) -> Vec<Rule> {
    let inside = || comes_in_by(&tunnel.interface);
    let outside = || ne(iifname(), interface(&tunnel.interface));
    let spoofed = |link: RuleStatement, source: RuleStatement| vec![link, source, drop_as(DropReason::Spoofed)];
    let mut rules = vec![
        spoofed(inside(), ne(field("ip", "saddr"), set("tunnel_sources4"))),
        spoofed(inside(), ne(field("ip6", "saddr"), set("tunnel_sources6"))),
    ];
    // Not the remote networks: one of them may contain the peer's own public address. Other rules check IPv4 sources
    // from outside and from private links; these check all other interfaces too.
    if !v4(tunnel.networks.iter().copied()).is_empty() {
        rules.push(spoofed(outside(), eq(field("ip", "saddr"), set("tunnel_networks4"))));
    }
    if !v6(tunnel.networks.iter().copied()).is_empty() {
        rules.push(spoofed(outside(), eq(field("ip6", "saddr"), set("tunnel_networks6"))));
    }
    rules
}

/// The sources behind networks, each with the link that they come in by; `None` without any.
fn sources_behind(site: &Site) -> Option<Set> {
    let element = |link: &PrivateLink, range: Ipv4Net| {
        Element::new([FieldValue::Interface(link.interface.clone()), FieldValue::network(range)])
    };
    let elements: Vec<Element> =
        site.private.iter().flat_map(|link| link.behind.iter().map(move |range| element(link, *range))).collect();
    (!elements.is_empty()).then(|| Set::ranges(SOURCES_BEHIND, [fields::INTERFACE, fields::V4], elements))
}

/// Packets with a source that their link should not have. Some pass for a reason, most are dropped. `to_probes`: the
/// rule for probes that come back by a private link; `from_dhcp`: the one for answers of DHCP servers.
fn unexpected_chain(to_probes: Option<Rule>, has_sources_behind: bool, from_dhcp: Option<Rule>) -> Chain {
    let from_cloud: [Value; 2] = [address(PUBLIC_GATEWAY), address(METADATA_ADDRESS)];
    // Routers on the internet may send errors from private addresses of their operators. Connection tracking knows
    // whether an error is about one of our flows.
    // Pods, and clients of other VPN servers. Here, so that the packets of the network's own hosts cost no look-up.
    let known = || vec![eq(concat([iifname(), field("ip", "saddr")]), set(SOURCES_BEHIND)), accept()];
    let mut rules = Vec::from_iter(to_probes);
    rules.extend(has_sources_behind.then(known));
    // Answers to our own DHCP requests come from a private range: Hetzner's server is there. This rule and the next one
    // hold for packets to the bastion only: a private host may forge that source, and must not reach the internet with
    // it.
    rules.extend(from_dhcp);
    rules.extend([
        vec![is_for_us(), eq(field("ip", "saddr"), anonymous_set(from_cloud)), accept()],
        vec![eq(field("ip", "saddr"), set("private_networks")), drop_as(DropReason::Spoofed)],
        vec![eq(field("icmp", "type"), anonymous_set(ERRORS.map(text))), accept()],
        vec![drop_as(DropReason::Bogon)],
    ]);
    Chain::regular("unexpected", rules)
}
