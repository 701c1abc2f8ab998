//! The chain `postrouting`: the addresses under which packets leave.
//!
//! It decides about every flow between our links, also about those that keep their source: what it left undecided, the
//! nat chains of other programs could translate.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::types::NfHook;

use super::super::model::{Chain, Rule};
use super::super::statement::{
    RuleStatement, address, address_by_source, anonymous_set, eq, field, iifname, interface, masquerade, oifname,
    prefix, set, snat,
};
use super::egress_address::{egress_pool, own_address, own_pool, slots};
use super::feature::{Feature, Slot};
use super::probes::further_sources;
use super::published::{is_translated, publishes};
use super::{Scope, all_links, nat};
use crate::config::Config;
use crate::net::InterfaceName;
use crate::site::{PrivateLink, PublicLink, Site};

/// The chain, made of the features' rules.
pub(super) fn chain(features: &mut Feature) -> Chain {
    let slots = [
        Slot::SourceNatStatic,
        Slot::SourceNatEgress,
        Slot::SourceNatHairpin,
        Slot::SourceNatLocal,
        Slot::SourceNatTunnel,
        Slot::SourceNatProbes,
        Slot::SourceNatKeep,
        Slot::SourceNatMissing,
    ];
    let rules = slots.into_iter().flat_map(|slot| features.take_rules(slot)).collect();
    Chain::base("postrouting", nat(NfHook::Postrouting), rules)
}

/// The public addresses of private hosts, and of peers that may reach the internet.
pub(super) fn egress_nat(Scope { config, site, tunnel }: Scope<'_>) -> Vec<Rule> {
    let Some(public) = &site.public else { return Vec::new() };
    let mut rules = Vec::new();
    let out = |from: RuleStatement, pool: &[Ipv4Addr]| {
        vec![eq(oifname(), interface(&public.interface)), from, translation(pool, config, public)]
    };
    for (hosts, addresses) in hosts_with_addresses(config, site) {
        let ranges = hosts.into_iter().map(|range| prefix(range.into()));
        let from = eq(field("ip", "saddr"), anonymous_set(ranges));
        rules.push(out(from, &slots(addresses, config, public)));
    }
    let shared = slots(&config.nat.egress_addresses, config, public);
    for link in &site.private {
        if let Some(addresses) = own_pool(link, config) {
            let further = further_sources(config, site, |network| network == link.network);
            rules.push(out(source(std::slice::from_ref(link), &further), &slots(addresses, config, public)));
        }
    }
    let has_own_pool = |network: Ipv4Net| {
        let link = site.private.iter().find(|link| link.network == network);
        link.is_some_and(|link| own_pool(link, config).is_some())
    };
    let further = further_sources(config, site, |network| !has_own_pool(network));
    match site.private.as_slice() {
        [] => {}
        [link] if link.behind.is_empty() => rules.push(out(source(std::slice::from_ref(link), &further), &shared)),
        _ if further.is_empty() => rules.push(out(eq(field("ip", "saddr"), set("private_networks")), &shared)),
        links => rules.push(out(source(links, &further), &shared)),
    }
    if tunnel.is_some_and(|tunnel| tunnel.full_tunnel) {
        rules.push(out(eq(field("ip", "saddr"), set("tunnel_sources4")), &shared));
    }
    rules
}

/// Matches packets from the networks of these links and from what is behind them, and from further sources of probes.
fn source(links: &[PrivateLink], further: &[Ipv4Addr]) -> RuleStatement {
    let ranges = Ipv4Net::aggregate(&links.iter().flat_map(PrivateLink::ranges).collect());
    // One comparison is cheaper than a look-up.
    let sources = if let ([single], []) = (ranges.as_slice(), further) {
        prefix((*single).into())
    } else {
        let ranges = ranges.into_iter().map(|range| prefix(range.into()));
        anonymous_set(ranges.chain(further.iter().copied().map(address)))
    };
    eq(field("ip", "saddr"), sources)
}

/// The translation of what a private network sends to the internet.
pub(super) fn egress_translation(link: &PrivateLink, config: &Config, public: &PublicLink) -> RuleStatement {
    translation(&egress_pool(link, config, public), config, public)
}

/// The hosts of `[[network.egress]]` that are in a network of this server, with their addresses. Narrow ranges come
/// first, so that the first match is the narrowest: one rule for each list of addresses and length of prefix.
fn hosts_with_addresses<'a>(config: &'a Config, site: &Site) -> Vec<(Vec<Ipv4Net>, &'a [Ipv4Addr])> {
    let mut all: Vec<(Ipv4Net, &[Ipv4Addr])> = Vec::new();
    for link in &site.private {
        let policy = config.policy_of(link.network, &link.interface);
        for entry in policy.iter().flat_map(|policy| &policy.egress) {
            let is_served = |range: &&Ipv4Net| link.ranges().any(|own| own.contains(*range));
            all.extend(entry.from.iter().filter(is_served).map(|range| (*range, entry.addresses.as_slice())));
        }
    }
    all.sort_by_key(|(range, addresses)| (std::cmp::Reverse(range.prefix_len()), *addresses, *range));
    let mut grouped: Vec<(Vec<Ipv4Net>, &[Ipv4Addr])> = Vec::new();
    for (range, addresses) in all {
        match grouped.last_mut() {
            Some((hosts, same)) if *same == addresses && hosts[0].prefix_len() == range.prefix_len() => {
                hosts.push(range);
            }
            _ => grouped.push((vec![range], addresses)),
        }
    }
    grouped
}

/// Answers to a private host that used the public address of another one must come back here: otherwise the two would
/// talk directly.
pub(super) fn hairpin(Scope { config, site, .. }: Scope<'_>) -> Feature {
    let links = || anonymous_set(site.private.iter().map(|link| interface(&link.interface)));
    let rule = || vec![eq(iifname(), links()), eq(oifname(), links()), is_translated(), masquerade(false)];
    let is_wanted = publishes(config) && !site.private.is_empty();
    let rules = is_wanted.then(|| (Slot::SourceNatHairpin, rule()));
    Feature { rules: rules.into_iter().collect(), ..Feature::default() }
}

/// Guests of this server's own bridges reach private hosts under this server's address: Hetzner's gateway drops other
/// sources, and would send the answers elsewhere.
pub(super) fn local_guests(site: &Site) -> Feature {
    let names = |is_local: bool| {
        let links = site.private.iter().filter(move |link| link.is_local == is_local);
        links.map(|link| interface(&link.interface)).collect::<Vec<_>>()
    };
    let (local, others) = (names(true), names(false));
    if local.is_empty() || others.is_empty() {
        return Feature::default();
    }
    let rule = vec![eq(iifname(), anonymous_set(local)), eq(oifname(), anonymous_set(others)), masquerade(false)];
    Feature { rules: vec![(Slot::SourceNatLocal, rule)], ..Feature::default() }
}

/// Flows between our links keep their source where no rule translates it. A translation to the same address is one: no
/// chain of another program is asked after it.
pub(super) fn keep_sources(scope: Scope<'_>) -> Feature {
    let tunnel = scope.tunnel.map(|tunnel| &tunnel.interface);
    // What goes to a bridge of this server, the program that manages it translates.
    let private = scope.site.private.iter().filter(|link| !link.is_local);
    let inside: Vec<_> = private.map(|link| &link.interface).chain(tunnel).collect();
    let names = |links: &[&InterfaceName]| anonymous_set(links.iter().map(|link| interface(link)));
    let rule = || {
        let between = [eq(iifname(), names(&all_links(scope))), eq(oifname(), names(&inside))];
        between.into_iter().chain([snat(field("ip", "saddr"), false)]).collect()
    };
    let is_wanted = scope.site.public.is_some() && !inside.is_empty();
    Feature { rules: is_wanted.then(|| (Slot::SourceNatKeep, rule())).into_iter().collect(), ..Feature::default() }
}

/// Rules name the server's own address instead of using `masquerade`, which looks it up for every flow (a fifth of a
/// new flow's cost, measured) and forgets all flows when the link is down for a moment. Only while the server has no
/// address the kernel chooses by itself, so that traffic flows as soon as one comes.
fn translation(pool: &[Ipv4Addr], config: &Config, public: &PublicLink) -> RuleStatement {
    let random_ports = config.nat.random_ports;
    match (pool, own_address(config, public)) {
        ([], None) => masquerade(random_ports),
        ([], Some(single)) => snat(address(single), random_ports),
        ([single], _) => snat(address(*single), random_ports),
        (several, _) => snat(address_by_source(several), random_ports),
    }
}
