//! The chain `postrouting`: the addresses under which packets leave.
//!
//! It decides about every flow between our links, also about those that keep their source: what it left undecided, the
//! nat chains of other programs could translate.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use nftables::types::NfHook;

use super::super::model::{Chain, Rule};
use super::super::statement::{
    RuleStatement, address, address_by_source, anonymous_set, eq, field, iifname, interface, l4proto, masquerade,
    oifname, prefix, set, snat, text, with_source_ports,
};
use super::egress_address::{HostsWithAddresses, egress_pool, hosts_with_addresses, own_address, own_pool, slots};
use super::feature::{Feature, Slot};
use super::probes::{ProbedHosts, further_sources};
use super::published::{is_translated, publishes};
use super::{Scope, all_links, nat};
use crate::config::Config;
use crate::inputs::{source_ports_beside, untracked_port};
use crate::net::InterfaceName;
use crate::site::{PrivateLink, PublicLink, Site};

/// The chain, made of the features' rules.
pub(super) fn chain(features: &mut Feature, config: &Config) -> Chain {
    let slots = [
        Slot::SourceNatStatic,
        Slot::SourceNatEgress,
        Slot::SourceNatForward,
        Slot::SourceNatHairpin,
        Slot::SourceNatLocal,
        Slot::SourceNatTunnel,
        Slot::SourceNatProbes,
        Slot::SourceNatKeep,
        Slot::SourceNatMissing,
    ];
    let beside = untracked_port(config).map(source_ports_beside);
    let rules = |slot: Slot| {
        // Static addresses are not the tunnel's, and what keeps its source keeps its port.
        let beside = beside.as_ref().filter(|_| !matches!(slot, Slot::SourceNatStatic | Slot::SourceNatKeep));
        let rules = features.take_rules(slot).into_iter();
        rules.flat_map(|rule| [beside.and_then(|ports| beside_tunnel(&rule, ports)), Some(rule)]).flatten().collect()
    };
    let rules = slots.into_iter().flat_map::<Vec<Rule>, _>(rules).collect();
    Chain::base("postrouting", nat(NfHook::Postrouting), rules)
}

/// The same translation for UDP, whose flows do not get the tunnel's port: answers to them would be taken for the
/// tunnel's packets, which are not tracked. `None` if the rule translates nothing.
fn beside_tunnel(rule: &Rule, ports: &RangeInclusive<u16>) -> Option<Rule> {
    let (last, matches) = rule.split_last()?;
    let translation = with_source_ports(last, ports)?;
    Some([matches, &[eq(l4proto(), text("udp")), translation]].concat())
}

/// The public addresses of private hosts, and of peers that may reach the internet.
pub(super) fn egress_nat(Scope { config, site, tunnel, probes, .. }: Scope<'_>) -> Vec<Rule> {
    let Some(public) = &site.public else { return Vec::new() };
    let mut rules = Vec::new();
    let out = |from: RuleStatement, pool: &[Ipv4Addr]| {
        vec![eq(oifname(), interface(&public.interface)), from, translation(pool, config, public)]
    };
    for HostsWithAddresses { ranges, addresses } in hosts_with_addresses(config, site) {
        let is_theirs = |hosts: ProbedHosts| ranges.iter().any(|(range, _)| hosts == ProbedHosts::Part(*range));
        let further = further_sources(probes, |path| is_theirs(path.hosts)).into_iter().map(address);
        let sources = ranges.iter().map(|(range, _)| prefix((*range).into())).chain(further);
        let from = eq(field("ip", "saddr"), anonymous_set(sources));
        rules.push(out(from, &slots(addresses, config, public)));
    }
    let of_network = |of: &dyn Fn(Ipv4Net) -> bool| {
        further_sources(probes, |path| path.hosts == ProbedHosts::Network && of(path.network))
    };
    let shared = slots(&config.nat.egress_addresses, config, public);
    for link in &site.private {
        if let Some(addresses) = own_pool(link, config) {
            let (pool, further) = (slots(addresses, config, public), of_network(&|network| network == link.network));
            rules.push(out(source(link), &pool));
            rules.extend(one_of(&further).map(|probes| out(probes, &pool)));
        }
    }
    let has_own_pool = |network: Ipv4Net| {
        let link = site.private.iter().find(|link| link.network == network);
        link.is_some_and(|link| own_pool(link, config).is_some())
    };
    let further = of_network(&|network| !has_own_pool(network));
    match site.private.as_slice() {
        [] => {}
        [link] if link.behind.is_empty() => rules.push(out(source(link), &shared)),
        _ => rules.push(out(eq(field("ip", "saddr"), set("private_networks")), &shared)),
    }
    // Rules of their own: the packets of hosts are not to pay for a look-up of more sources.
    rules.extend(one_of(&further).map(|probes| out(probes, &shared)));
    if tunnel.is_some_and(|tunnel| tunnel.full_tunnel) {
        rules.push(out(eq(field("ip", "saddr"), set("tunnel_sources4")), &shared));
    }
    rules
}

/// Matches packets from the network of a link and from what is behind it.
fn source(link: &PrivateLink) -> RuleStatement {
    let ranges = Ipv4Net::aggregate(&link.ranges().collect());
    let sources = match ranges.as_slice() {
        // One comparison is cheaper than a look-up.
        [single] => prefix((*single).into()),
        several => anonymous_set(several.iter().map(|range| prefix((*range).into()))),
    };
    eq(field("ip", "saddr"), sources)
}

/// Matches packets with one of these sources; `None` without any.
fn one_of(sources: &[Ipv4Addr]) -> Option<RuleStatement> {
    let sources = match sources {
        [] => return None,
        [single] => address(*single),
        several => anonymous_set(several.iter().copied().map(address)),
    };
    Some(eq(field("ip", "saddr"), sources))
}

/// The translation of what a private network sends to the internet.
pub(super) fn egress_translation(link: &PrivateLink, config: &Config, public: &PublicLink) -> RuleStatement {
    translation(&egress_pool(link, config, public), config, public)
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
