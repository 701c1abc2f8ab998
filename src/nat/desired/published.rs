//! What leads from public addresses to private hosts: port forwards and static addresses.
//!
//! Who may use a forward is decided where it is translated: what no map contains is not translated, and what was not
//! translated by our maps is not let in ([`super::translated`]). So a few rules in `forward` suffice, whatever the
//! number of forwards.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::types::NfHook;

use super::super::disjoint::Range;
use super::super::element::{Element, FieldValue};
use super::super::model::{Chain, Rule, Set, fields};
use super::super::statement::{
    RuleStatement, accept, address, anonymous_set, any_of, concat, ct_status, dnat, eq, field, interface, jump,
    l4proto, lookup, ne, number, oifname, set, snat, text,
};
use super::access_list::AccessList;
use super::drops::{DropReason, drop_as};
use super::egress_address::usable_statics;
use super::feature::{Feature, ForwardPath, Section, Slot};
use super::probes::{ProbedHosts, ProbedPath};
use super::{Scope, answer_unknown_flows, comes_from_inside, drop_excess_syns, nat};
use crate::config::{Acl, Config, Forward, IpProtocol, Ports, StaticNat, Transport};
use crate::inputs::is_reserved;
use crate::site::{PublicLink, Site};

/// First packets of flows to private hosts by a forward or a static address.
pub(super) const PUBLISHED_FLOWS: &str = "published_flows";
/// The set of the public addresses that lead to private hosts, if there is more than one.
const PUBLISHED_ADDRESSES: &str = "published_addresses";

/// The map of forwarded protocols without ports: public address, source and protocol, to the private host.
const FORWARD_PROTOCOLS: &str = "forward_protocols";

/// Whether the configuration has forwards or static addresses.
pub(super) fn publishes(config: &Config) -> bool {
    !config.nat.forwards.is_empty() || !config.nat.statics.is_empty()
}

/// Port forwards and static addresses: their translation, and who may come in.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    let statics: Vec<&StaticNat> = usable_statics(config, site).collect();
    let addresses = published_addresses(config, site, &statics);
    let open = open_statics(&statics);
    let mut feature = Feature { counters: vec![PUBLISHED_FLOWS], ..Feature::default() };
    feature.chains.extend(prerouting_chain(config, site, &addresses, &open).map(|chain| (Section::Prerouting, chain)));
    if publishes(config) {
        feature.chains.push((Section::Published, published_chain(config)));
        feature.paths.extend(paths(site).map(|path| (Section::Published, path)));
    }
    if !statics.is_empty() {
        feature.rules.extend(static_input_rules(scope).into_iter().map(|rule| (Slot::InputStatic, rule)));
        feature.rules.extend(site.public.as_ref().map(|public| (Slot::SourceNatStatic, static_snat(public))));
    }
    if addresses.len() > 1 {
        let addresses = addresses.into_iter().map(|address| Element::new([FieldValue::address(address)]));
        feature.sets.push(Set::exact(PUBLISHED_ADDRESSES, [fields::V4], addresses.collect()));
    }
    feature.sets.extend(forward_maps(config, site));
    feature.sets.extend(static_sets(&statics, scope.probes));
    feature.sets.extend(open.into_sets());
    feature
}

/// From the public link to each private one.
fn paths(site: &Site) -> impl Iterator<Item = ForwardPath> + '_ {
    site.public.iter().flat_map(|public| {
        site.private.iter().filter(|link| !link.is_local).map(|to| ForwardPath {
            from: public.interface.clone(),
            to: to.interface.clone(),
            chain: "published".into(),
        })
    })
}

/// The forwards that lead to a host of a network of this server.
fn usable_forwards<'a>(config: &'a Config, site: &'a Site) -> impl Iterator<Item = &'a Forward> {
    config.nat.forwards.iter().filter(|forward| site.private.iter().any(|link| link.serves(forward.to)))
}

/// The public addresses of a forward. One that names none gets all addresses of this server that no static entry has.
fn addresses_of(forward: &Forward, config: &Config, public: &PublicLink) -> Vec<Ipv4Addr> {
    if !forward.public.is_empty() {
        return forward.public.clone();
    }
    let first = public.addresses.first();
    let is_shared = |address: &&Ipv4Addr| Some(*address) == first || !config.nat.is_static_address(**address);
    public.addresses.iter().filter(is_shared).copied().collect()
}

/// The public addresses that lead to private hosts, or could; sorted.
fn published_addresses(config: &Config, site: &Site, statics: &[&StaticNat]) -> Vec<Ipv4Addr> {
    let with_public = |forward| Some((forward, site.public.as_ref()?));
    let forwards = usable_forwards(config, site)
        .filter_map(with_public)
        .flat_map(|(forward, public)| addresses_of(forward, config, public));
    let mut published: Vec<Ipv4Addr> = statics.iter().map(|entry| entry.public).chain(forwards).collect();
    published.sort_unstable();
    published.dedup();
    published
}

/// The forwards with the public addresses at which they lead to their hosts.
pub(super) fn forwards_at<'a>(config: &'a Config, site: &'a Site) -> Vec<(&'a Forward, Vec<Ipv4Addr>)> {
    let Some(public) = &site.public else { return Vec::new() };
    let with_addresses = |forward: &'a Forward| {
        let mut addresses = addresses_of(forward, config, public);
        addresses.retain(|address| !is_reserved(forward, *address, config, site));
        (forward, addresses)
    };
    usable_forwards(config, site).map(with_addresses).collect()
}

/// The sources that may use a forward, without overlaps.
pub(super) fn sources_of(forward: &Forward) -> Vec<Ipv4Net> {
    if forward.from.is_empty() { vec![Ipv4Net::default()] } else { Ipv4Net::aggregate(&forward.from) }
}

/// The maps from what is forwarded to private hosts: single ports for everyone, single ports for some sources, port
/// ranges, and protocols without ports, if there are any.
fn forward_maps(config: &Config, site: &Site) -> impl Iterator<Item = Set> + use<> {
    let mut maps = ForwardMaps::default();
    for (forward, addresses) in forwards_at(config, site) {
        maps.add(forward, &addresses);
    }
    let of_ports = [
        Set::map("forwards", maps.forwards),
        Set::map("forwards_from", maps.forwards_from),
        Set::map("forward_ranges", maps.forward_ranges),
    ];
    let key = [fields::V4, fields::V4, fields::PROTOCOL];
    of_ports.into_iter().chain(Set::address_map(FORWARD_PROTOCOLS, key, maps.forward_protocols))
}

#[derive(Default)]
struct ForwardMaps {
    forwards: Vec<Element>,
    forwards_from: Vec<Element>,
    forward_ranges: Vec<Element>,
    forward_protocols: Vec<Element>,
}

impl ForwardMaps {
    fn add(&mut self, forward: &Forward, public: &[Ipv4Addr]) {
        let Ports { first, last } = forward.ports;
        let target = || [FieldValue::address(forward.to), FieldValue::port(forward.to_port.unwrap_or(first))];
        let sources = sources_of(forward);
        for address in public.iter().copied().map(FieldValue::address) {
            if let Some(protocol) = forward.transports.without_ports() {
                let key = |source: &Ipv4Net| {
                    let source = FieldValue::addresses(Range::from_network(*source));
                    [address.clone(), source, FieldValue::protocol(protocol.number())]
                };
                let host = || [FieldValue::address(forward.to)];
                self.forward_protocols.extend(sources.iter().map(|source| Element::mapping(key(source), host())));
            }
            for transport in forward.transports.each().iter().map(|transport| transport.number()) {
                let transport = FieldValue::protocol(transport);
                if forward.ports.is_single() && forward.from.is_empty() {
                    let key = [address.clone(), transport, FieldValue::port(first)];
                    self.forwards.push(Element::mapping(key, target()));
                    continue;
                }
                for source in &sources {
                    let source = FieldValue::addresses(Range::from_network(*source));
                    let key = [FieldValue::Ports(first, last), address.clone(), source, transport.clone()];
                    if forward.ports.is_single() {
                        self.forwards_from.push(Element::mapping(key, target()));
                    } else {
                        self.forward_ranges.push(Element::mapping(key, [FieldValue::address(forward.to)]));
                    }
                }
            }
        }
    }
}

/// The maps between static addresses and private hosts, both ways, and the set of these addresses. The probe of an
/// address leaves by the same map as its host.
fn static_sets(statics: &[&StaticNat], probes: &[ProbedPath]) -> Vec<Set> {
    let public = |entry: &&StaticNat| [FieldValue::address(entry.public)];
    let private = |entry: &&StaticNat| [FieldValue::address(entry.private)];
    let elements = |element: &dyn Fn(&&StaticNat) -> Element| statics.iter().map(element).collect();
    let probe = |path: &ProbedPath| match path {
        ProbedPath { hosts: ProbedHosts::Static(_), source, egress: Some(egress), .. } => {
            Some(Element::mapping([FieldValue::address(*source)], [FieldValue::address(*egress)]))
        }
        _ => None,
    };
    let mut out: Vec<Element> = elements(&|entry| Element::mapping(private(entry), public(entry)));
    out.extend(probes.iter().filter_map(probe));
    let mut sets = vec![
        Set::map("static_in", elements(&|entry| Element::mapping(public(entry), private(entry)))),
        Set::map("static_out", out),
    ];
    if !statics.is_empty() {
        sets.push(Set::exact("static_public", [fields::V4], elements(&|entry| Element::new(public(entry)))));
    }
    sets
}

/// What may come in to hosts with a public address of their own.
pub(super) fn open_statics(statics: &[&StaticNat]) -> AccessList {
    let at = |entry: &StaticNat, line: &Acl| Acl { to: vec![entry.public.into()], ..line.clone() };
    let lines: Vec<Acl> = statics.iter().flat_map(|entry| entry.open.iter().map(move |line| at(entry, line))).collect();
    AccessList::of_pairs("static_open", &lines)
}

/// Translates the destination of a flow's first packet, whichever interface it comes in by, so that private hosts and
/// peers reach a forward by its public address as well. `None` if there is nothing to translate.
fn prerouting_chain(config: &Config, site: &Site, published: &[Ipv4Addr], open: &AccessList) -> Option<Chain> {
    let mut rules = Vec::new();
    let destination = || field("ip", "daddr");
    let port = || field("th", "dport");
    let by_source = || concat([port(), destination(), field("ip", "saddr"), l4proto()]);
    let (mut exact, mut restricted, mut ranges) = (false, false, false);
    let of_ports = |forward: &&Forward| forward.transports.without_ports().is_none();
    for forward in usable_forwards(config, site).filter(of_ports) {
        match (forward.ports.is_single(), forward.from.is_empty()) {
            (true, true) => exact = true,
            (true, false) => restricted = true,
            (false, _) => ranges = true,
        }
    }
    if exact {
        rules.push(vec![dnat(lookup(concat([destination(), l4proto(), port()]), "forwards"))]);
    }
    if restricted {
        rules.push(vec![translates_ports(config), dnat(lookup(by_source(), "forwards_from"))]);
    }
    if ranges {
        rules.push(vec![translates_ports(config), dnat(lookup(by_source(), "forward_ranges"))]);
    }
    let in_map = forwards_at(config, site).into_iter().filter(|(_, addresses)| !addresses.is_empty());
    let without_ports: BTreeSet<IpProtocol> =
        in_map.filter_map(|(forward, _)| forward.transports.without_ports()).collect();
    if !without_ports.is_empty() {
        let key = concat([destination(), field("ip", "saddr"), l4proto()]);
        rules.push(vec![is_one_of(&without_ports), dnat(lookup(key, FORWARD_PROTOCOLS))]);
    }
    rules.extend(open.rules(|| vec![dnat(lookup(destination(), "static_in"))]));
    if rules.is_empty() {
        return None;
    }
    rules.splice(0..0, skip_other_addresses(published));
    Some(Chain::base("prerouting", nat(NfHook::Prerouting), rules))
}

/// Matches the protocols whose ports are translated. nft requires it before a translation of a port.
pub(super) fn translates_ports(config: &Config) -> RuleStatement {
    let is_forwarded =
        |transport: Transport| config.nat.forwards.iter().any(|forward| forward.transports.each().contains(&transport));
    let sctp = is_forwarded(Transport::Sctp).then(|| number(Transport::Sctp.number().into()));
    eq(l4proto(), anonymous_set(["tcp", "udp"].map(text).into_iter().chain(sctp)))
}

/// Matches packets of these protocols. Packets of others are spared the look-up of a forward.
pub(super) fn is_one_of(protocols: &BTreeSet<IpProtocol>) -> RuleStatement {
    let number = |protocol: &IpProtocol| number(protocol.number().into());
    match protocols.iter().collect::<Vec<_>>().as_slice() {
        [single] => eq(l4proto(), number(single)),
        several => eq(l4proto(), anonymous_set(several.iter().map(|protocol| number(protocol)))),
    }
}

/// Flows to addresses at which nothing is published, which are nearly all, are spared the look-ups.
fn skip_other_addresses(published: &[Ipv4Addr]) -> Option<Rule> {
    let addresses = match published {
        // This server does not have one of the addresses yet.
        [] => return None,
        [single] => address(*single),
        _ => set(PUBLISHED_ADDRESSES),
    };
    Some(vec![ne(field("ip", "daddr"), addresses), accept()])
}

/// Matches packets whose destination was translated on their way in.
pub(super) fn is_translated() -> RuleStatement {
    any_of(ct_status(), text("dnat"))
}

/// Flows that our maps have translated pass. Others continue: the rules after this one decide about their real
/// addresses.
pub(super) fn accept_translated() -> Rule {
    vec![is_translated(), jump("translated")]
}

/// New flows from outside to private hosts.
fn published_chain(config: &Config) -> Chain {
    let limit = config.firewall.syns_per_second.map(|rate| drop_excess_syns(rate, "syns4", &field("ip", "saddr")));
    let mut rules: Vec<Rule> = limit.into_iter().collect();
    rules.extend([accept_translated(), vec![drop_as(DropReason::Forward)]]);
    Chain::regular("published", rules)
}

/// Packets to a static address that were not let in to its host are not for the bastion either.
fn static_input_rules(scope: Scope<'_>) -> Vec<Rule> {
    let is_static = || eq(field("ip", "daddr"), set("static_public"));
    let unknown = comes_from_inside(scope).map(|inside| [vec![inside, is_static()], answer_unknown_flows()].concat());
    unknown.into_iter().chain([vec![is_static(), drop_as(DropReason::Input)]]).collect()
}

/// Hosts with a static address leave under it.
fn static_snat(public: &PublicLink) -> Rule {
    let out = eq(oifname(), interface(&public.interface));
    vec![out, snat(lookup(field("ip", "saddr"), "static_out"), false)]
}
