//! What is wrong with a packet before anything is known of its flow: sources that its interface cannot have, and those that
//! are not heard at all. It stands before connection tracking, so junk costs no entry there.

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfHook};

use super::super::element::{Element, ranges, ranges_by_family};
use super::super::model::{Chain, Set, fields};
use super::super::statement::{
    RuleStatement, Value, accept, address, anonymous_set, destination_type, eq, field, goto, iifname, interface, ne,
    number, prefix, set, text,
};
use super::drops::{Reason, drop_as};
use super::{RAW, filter};
use crate::config::Config;
use crate::hetzner::{self, METADATA_ADDRESS, PUBLIC_GATEWAY};
use crate::inputs::Tunnel;
use crate::net::{v4, v6};
use crate::site::{PublicLink, Site};

/// What is neither a destination on the internet nor a source from there.
pub(super) fn unroutable(public: Option<&PublicLink>) -> Vec<Ipv4Net> {
    hetzner::unroutable(public.iter().flat_map(|public| &public.addresses))
}

pub(super) fn sets(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Vec<Set> {
    let inside = site.private.iter().map(|link| link.network);
    let in_tunnel = tunnel.map(|tunnel| v4(tunnel.networks.iter().copied())).unwrap_or_default();
    let unexpected = unroutable(site.public.as_ref()).into_iter().chain(inside).chain(in_tunnel);
    let mut sets = vec![Set::ranges("not_from_outside", [fields::V4], ranges(unexpected))];
    let (blocked4, blocked6) = ranges_by_family(&config.firewall.blocklist);
    let blocked: [(_, [&'static str; 1], Vec<Element>); 2] =
        [("blocked4", [fields::V4], blocked4), ("blocked6", [fields::V6], blocked6)];
    sets.extend(
        blocked
            .into_iter()
            .filter(|(.., elements)| !elements.is_empty())
            .map(|(name, key, elements)| Set::ranges(name, key, elements)),
    );
    sets
}

pub(super) fn chains(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Vec<Chain> {
    let mut rules = Vec::new();
    let from = |name| eq(iifname(), interface(name));
    if let Some(public) = &site.public {
        let outside = || from(&public.interface);
        rules.push(vec![outside(), eq(field("ip", "saddr"), set("not_from_outside")), goto("unexpected")]);
        let listed = |is_v4| config.firewall.blocklist.iter().any(|range| range.addr().is_ipv4() == is_v4);
        for (protocol, name, is_v4) in [("ip", "blocked4", true), ("ip6", "blocked6", false)] {
            if listed(is_v4) {
                rules.push(vec![outside(), eq(field(protocol, "saddr"), set(name)), drop_as(Reason::Blocked)]);
            }
        }
    }
    for link in &site.private {
        let foreign = ne(field("ip", "saddr"), prefix(link.network.into()));
        rules.push(vec![from(&link.interface), foreign, goto("unexpected")]);
    }
    rules.extend(tunnel.into_iter().flat_map(of_tunnel));
    vec![
        unexpected(),
        Chain { name: "early".into(), base: Some(filter(NfHook::Prerouting, RAW, NfChainPolicy::Accept)), rules },
    ]
}

/// A source belongs to the tunnel or to the rest of the world.
fn of_tunnel(tunnel: &Tunnel) -> Vec<Vec<RuleStatement>> {
    let inside = || eq(iifname(), interface(&tunnel.interface));
    let outside = || ne(iifname(), interface(&tunnel.interface));
    let spoofed = |place: RuleStatement, source: RuleStatement| vec![place, source, drop_as(Reason::Spoofed)];
    let mut rules = vec![
        spoofed(inside(), ne(field("ip", "saddr"), set("tunnel_sources4"))),
        spoofed(inside(), ne(field("ip6", "saddr"), set("tunnel_sources6"))),
    ];
    // Not the sites: the peer's own public address may well lie in one. IPv4 from outside and from private links is looked at
    // above; this is for interfaces that are nobody's.
    if !v4(tunnel.networks.iter().copied()).is_empty() {
        rules.push(spoofed(outside(), eq(field("ip", "saddr"), set("tunnel_networks4"))));
    }
    if !v6(tunnel.networks.iter().copied()).is_empty() {
        rules.push(spoofed(outside(), eq(field("ip6", "saddr"), set("tunnel_networks6"))));
    }
    rules
}

/// A source that its link should not have: some pass for a reason, most are dropped.
fn unexpected() -> Chain {
    let from_cloud: [Value; 2] = [address(PUBLIC_GATEWAY), address(METADATA_ADDRESS)];
    let for_us = || eq(destination_type(), anonymous_set(["local", "broadcast"].map(text)));
    // Routers between here and anywhere may answer from addresses of their carrier's own; whether an error is about a flow
    // of ours, connection tracking knows.
    let errors = ["destination-unreachable", "time-exceeded", "parameter-problem"].map(text);
    Chain::regular(
        "unexpected",
        vec![
            // Answers to our own DHCP requests: Hetzner's server is in a private range. These two are for the bastion itself: a
            // private host may pretend to be the server, and must not get to the internet as such.
            vec![for_us(), eq(field("udp", "sport"), number(67)), eq(field("udp", "dport"), number(68)), accept()],
            vec![for_us(), eq(field("ip", "saddr"), anonymous_set(from_cloud)), accept()],
            vec![eq(field("ip", "saddr"), set("private_networks")), drop_as(Reason::Spoofed)],
            vec![eq(field("icmp", "type"), anonymous_set(errors)), accept()],
            vec![drop_as(Reason::Bogon)],
        ],
    )
}
