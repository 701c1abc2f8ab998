//! Packets that connection tracking does not see: those of the tunnel's UDP port, and of DHCP. Anybody can send them,
//! so each could cost an entry of the connection table.
//!
//! The chains stand before connection tracking. What they leave to it, the other chains decide about as usual.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use nftables::types::{NfChainPolicy, NfHook};

use super::super::model::{Chain, Rule};
use super::super::statement::{
    RuleStatement, Value, accept, address, anonymous_set, any_of, ct_state, destination_type, eq, field, goto,
    icmp_error_port, iifname, interface, nfproto, notrack, number, oifname, prefix, text,
};
use super::egress_address::usable_statics;
use super::feature::{Feature, Section};
use super::published::forwards_at;
use super::{ERRORS, RAW, Scope, comes_in_by, filter, is_for_us, link_local_v6};
use crate::config::Transport;
use crate::inputs::untracked_port;
use crate::net::InterfaceName;

/// The chain about packets that come in.
const CHAIN: &str = "not_tracked";
/// Ports of DHCP and DHCPv6 (RFC 2131 section 4.1, RFC 8415 section 7.2).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCP6_SERVER: u16 = 547;
const DHCP6_CLIENT: u16 = 546;

/// The chains, if anything is not tracked on this server.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    if to_ports(scope).is_none() {
        return Feature::default();
    }
    let base = filter(NfHook::Output, RAW, NfChainPolicy::Accept);
    let chains = [
        (Section::Early, Chain::regular(CHAIN, arriving(scope))),
        (Section::Output, Chain::base("output_not_tracked", base, sent(scope))),
    ];
    Feature { chains: chains.into(), ..Feature::default() }
}

/// The rule of the chain `early` that leads there: one look-up for UDP, one comparison for the rest.
pub(super) fn branch(scope: Scope<'_>) -> Option<Rule> {
    let ports = ports(scope);
    let mut rule = vec![to_ports(scope)?, goto(CHAIN)];
    if ports.iter().eq([&DHCP6_CLIENT]) {
        // Most packets are IPv4, and this is all that they are asked.
        rule.insert(0, eq(nfproto(), text("ipv6")));
    }
    Some(rule)
}

/// The same for answers of DHCP servers, whose address may be one that no other packet has.
pub(super) fn dhcp_branch(scope: Scope<'_>) -> Option<Rule> {
    let rule = || [&[is_for_us()], &udp(DHCP_SERVER, DHCP_CLIENT)[..], &[goto(CHAIN)]].concat();
    (!scope.site.dhcp_links.is_empty()).then(rule)
}

/// The rules of the chain `input` for errors about packets of the tunnel, which belong to no flow. They stand before
/// what is invalid is dropped: the kernel learns the path's MTU from such an error.
pub(super) fn tunnel_errors(scope: Scope<'_>) -> Vec<Rule> {
    let Some(port) = untracked_port(scope.config) else { return Vec::new() };
    let about_tunnel = |protocol: &'static str, types: &[&'static str]| {
        let types = anonymous_set(types.iter().copied().map(text));
        vec![eq(field(protocol, "type"), types), eq(icmp_error_port(protocol), number(port)), accept()]
    };
    let errors_v6 = ["destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem"];
    vec![about_tunnel("icmp", &ERRORS), about_tunnel("icmpv6", &errors_v6)]
}

/// The rule of the chain `input` for what is not tracked.
pub(super) fn accept_untracked(scope: Scope<'_>) -> Option<Rule> {
    Some(vec![any_of(ct_state(), text("untracked")), to_ports(scope)?, accept()])
}

/// The UDP ports at which something is not tracked.
fn ports(Scope { config, site, .. }: Scope<'_>) -> BTreeSet<u16> {
    let dhcp = (!site.dhcp_links.is_empty()).then_some(DHCP_CLIENT);
    let dhcp6 = site.public.is_some().then_some(DHCP6_CLIENT);
    dhcp.into_iter().chain(dhcp6).chain(untracked_port(config)).collect()
}

/// Matches UDP to these ports; `None` if there is none.
fn to_ports(scope: Scope<'_>) -> Option<RuleStatement> {
    let ports = ports(scope);
    (!ports.is_empty()).then(|| eq(field("udp", "dport"), anonymous_set(ports.into_iter().map(number))))
}

fn arriving(scope: Scope<'_>) -> Vec<Rule> {
    let Scope { config, site, .. } = scope;
    let mut rules = Vec::new();
    if let Some(links) = dhcp_links(scope) {
        let of_dhcp = &udp(DHCP_SERVER, DHCP_CLIENT)[..];
        rules.push([&[eq(iifname(), links)], of_dhcp, &[is_for_us(), notrack()]].concat());
    }
    if let Some(public) = &site.public {
        let from_link = eq(field("ip6", "saddr"), prefix(link_local_v6()));
        let of_dhcp = &udp(DHCP6_SERVER, DHCP6_CLIENT)[..];
        rules.push([&[comes_in_by(&public.interface), from_link], of_dhcp, &[notrack()]].concat());
    }
    if let Some(port) = untracked_port(config) {
        let to_tunnel = || eq(field("udp", "dport"), number(port));
        let forwarded = forwarded_addresses(scope, port);
        if !forwarded.is_empty() {
            let there = eq(field("ip", "daddr"), anonymous_set(forwarded.into_iter().map(address)));
            rules.push(vec![to_tunnel(), there, accept()]);
        }
        rules.push(vec![to_tunnel(), eq(destination_type(), text("local")), notrack()]);
    }
    rules
}

fn sent(scope: Scope<'_>) -> Vec<Rule> {
    let Scope { config, site, .. } = scope;
    let mut rules = Vec::new();
    if let Some(port) = untracked_port(config) {
        rules.push(vec![eq(field("udp", "sport"), number(port)), notrack()]);
    }
    if let Some(links) = dhcp_links(scope) {
        rules.push([&[eq(oifname(), links)], &udp(DHCP_CLIENT, DHCP_SERVER)[..], &[notrack()]].concat());
    }
    if let Some(public) = &site.public {
        let out = eq(oifname(), interface(&public.interface));
        rules.push([&[out], &udp(DHCP6_CLIENT, DHCP6_SERVER)[..], &[notrack()]].concat());
    }
    rules
}

fn udp(from: u16, to: u16) -> [RuleStatement; 2] {
    [eq(field("udp", "sport"), number(from)), eq(field("udp", "dport"), number(to))]
}

fn dhcp_links(scope: Scope<'_>) -> Option<Value> {
    let links: &BTreeSet<InterfaceName> = &scope.site.dhcp_links;
    (!links.is_empty()).then(|| anonymous_set(links.iter().map(interface)))
}

/// The public addresses at which a forward or a static address takes this UDP port: a packet that is not tracked is not
/// translated.
fn forwarded_addresses(Scope { config, site, .. }: Scope<'_>, port: u16) -> BTreeSet<Ipv4Addr> {
    let takes = |forward: &crate::config::Forward| {
        forward.transports.each().contains(&Transport::Udp)
            && (forward.ports.first..=forward.ports.last).contains(&port)
    };
    let forwards = forwards_at(config, site).into_iter().filter(|(forward, _)| takes(forward));
    let statics = usable_statics(config, site).map(|entry| entry.public);
    forwards.flat_map(|(_, addresses)| addresses).chain(statics).collect()
}
