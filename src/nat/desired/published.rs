//! What leads from public addresses to private hosts, and from one private network to another.
//!
//! Who may use a forward is decided where it is translated, before it is: what no map holds is not translated, and what was not
//! translated is not let in. So one rule in `forward` suffices, whatever the number of forwards.

use std::net::Ipv4Addr;

use nftables::types::NfHook;

use super::super::disjoint::Range;
use super::super::element::{Element, FieldValue};
use super::super::model::{Chain, Set, fields};
use super::super::statement::{
    RuleStatement, Value, accept, address, anonymous_set, any_of, concat, counter, ct_status, dnat, eq, field, iifname,
    interface, l4proto, limit_over, lookup, masquerade, ne, oifname, set, snat, text, update_with,
};
use super::access::List;
use super::drops::{Reason, drop_as};
use super::egress::unknown_flows;
use super::input::from_inside;
use super::{PUBLISHED_FLOWS, TENANT_FLOWS, Way, nat};
use crate::config::{Acl, Config, Forward, Ports, StaticNat};
use crate::inputs::{Tunnel, is_reserved};
use crate::site::{PublicLink, Site};

/// nft's `dstnat`.
const DSTNAT: i32 = -100;

/// The set of [`Lists::published`], where they are several.
const PUBLISHED_ADDRESSES: &str = "published_addresses";

/// Whether anything leads from outside to private hosts.
pub(super) fn any(config: &Config) -> bool {
    !config.nat.forwards.is_empty() || !config.nat.statics.is_empty()
}

/// The forwards that lead to a host of a network that is served.
fn forwards<'a>(config: &'a Config, site: &'a Site) -> impl Iterator<Item = &'a Forward> {
    config.nat.forwards.iter().filter(|forward| site.private.iter().any(|link| link.network.contains(&forward.to)))
}

/// The static entries that can be: with a host of a network that is served, and not with this server's own first address, which
/// would lock the operator out.
pub(super) fn statics<'a>(config: &'a Config, site: &'a Site) -> impl Iterator<Item = &'a StaticNat> {
    let own = site.own_address();
    let is_served = |entry: &&StaticNat| site.private.iter().any(|link| link.network.contains(&entry.private));
    config.nat.statics.iter().filter(is_served).filter(move |entry| Some(entry.public) != own)
}

/// The public addresses of a forward: if it names none, those that are no host's own.
fn addresses(forward: &Forward, config: &Config, public: &PublicLink) -> Vec<Ipv4Addr> {
    if !forward.public.is_empty() {
        return forward.public.clone();
    }
    let first = public.addresses.first();
    let is_shared = |address: &&Ipv4Addr| Some(*address) == first || !config.nat.is_static_address(**address);
    public.addresses.iter().filter(is_shared).copied().collect()
}

/// What more than one part of the rules needs: going through ten thousand forwards or lines is not to be done twice.
pub(super) struct Lists {
    /// The public addresses that lead to private hosts, or could.
    published: Vec<Ipv4Addr>,
    open: List,
    tenants: List,
}

impl Lists {
    pub(super) fn of(config: &Config, site: &Site) -> Self {
        Self {
            published: published_addresses(config, site),
            open: open(config, site),
            tenants: List::of_pairs("tenants", &config.tenants),
        }
    }
}

fn published_addresses(config: &Config, site: &Site) -> Vec<Ipv4Addr> {
    let of_forward = |(forward, public)| addresses(forward, config, public);
    let forwards =
        forwards(config, site).filter_map(|forward| Some((forward, site.public.as_ref()?))).flat_map(of_forward);
    let mut published: Vec<Ipv4Addr> = statics(config, site).map(|entry| entry.public).chain(forwards).collect();
    published.sort_unstable();
    published.dedup();
    published
}

pub(super) fn sets(config: &Config, site: &Site, lists: Lists) -> Vec<Set> {
    let mut sets = vec![];
    if lists.published.len() > 1 {
        let addresses = lists.published.into_iter().map(|address| Element::new([FieldValue::address(address)]));
        sets.push(Set::exact(PUBLISHED_ADDRESSES, [fields::V4], addresses.collect()));
    }
    let (mut exact, mut from, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
    if let Some(public) = &site.public {
        for forward in forwards(config, site) {
            let mut addresses = addresses(forward, config, public);
            addresses.retain(|address| !is_reserved(forward, *address, config, site));
            elements(forward, &addresses, &mut exact, &mut from, &mut ranges);
        }
    }
    sets.push(Set::map("forwards", exact));
    sets.push(Set::map("forwards_from", from));
    sets.push(Set::map("forward_ranges", ranges));
    let pair = |entry: &StaticNat| (FieldValue::address(entry.public), FieldValue::address(entry.private));
    let pairs: Vec<_> = statics(config, site).map(pair).collect();
    sets.push(Set::map(
        "static_in",
        pairs.iter().cloned().map(|(out, into)| Element::mapping([out], [into])).collect(),
    ));
    sets.push(Set::map("static_out", pairs.into_iter().map(|(out, into)| Element::mapping([into], [out])).collect()));
    if statics(config, site).next().is_some() {
        let public = statics(config, site).map(|entry| Element::new([FieldValue::address(entry.public)]));
        sets.push(Set::exact("static_public", [fields::V4], public.collect()));
    }
    sets.extend(lists.open.sets());
    sets.extend(lists.tenants.sets());
    sets
}

fn elements(
    forward: &Forward,
    public: &[Ipv4Addr],
    exact: &mut Vec<Element>,
    from: &mut Vec<Element>,
    ranges: &mut Vec<Element>,
) {
    let Ports { first, last } = forward.ports;
    let target = || [FieldValue::address(forward.to), FieldValue::port(forward.to_port.unwrap_or(first))];
    let anybody = [ipnet::Ipv4Net::default()];
    let sources = if forward.from.is_empty() { anybody.to_vec() } else { ipnet::Ipv4Net::aggregate(&forward.from) };
    for address in public.iter().copied().map(FieldValue::address) {
        for transport in forward.transports.each().iter().copied().map(FieldValue::transport) {
            if forward.ports.is_single() && forward.from.is_empty() {
                let key = [address.clone(), transport, FieldValue::port(first)];
                exact.push(Element::mapping(key, target()));
                continue;
            }
            for source in &sources {
                let key = [
                    FieldValue::Ports(first, last),
                    address.clone(),
                    FieldValue::addresses(Range::of(*source)),
                    transport.clone(),
                ];
                if forward.ports.is_single() {
                    from.push(Element::mapping(key, target()));
                } else {
                    ranges.push(Element::mapping(key, [FieldValue::address(forward.to)]));
                }
            }
        }
    }
}

/// What may come in to hosts with a public address of their own.
fn open(config: &Config, site: &Site) -> List {
    let at = |entry: &StaticNat, line: &Acl| Acl { to: vec![entry.public.into()], ..line.clone() };
    let lines: Vec<Acl> =
        statics(config, site).flat_map(|entry| entry.open.iter().map(move |line| at(entry, line))).collect();
    List::of_pairs("static_open", &lines)
}

/// Where a packet's destination is changed: the first one of a flow, whichever interface it comes by, so that private hosts
/// and peers reach a forward by its public address as well.
pub(super) fn prerouting(config: &Config, site: &Site, lists: &Lists) -> Option<Chain> {
    let mut rules = Vec::new();
    let destination = || field("ip", "daddr");
    let port = || field("th", "dport");
    let by_source = || concat([port(), destination(), field("ip", "saddr"), l4proto()]);
    // nft wants to hear of the transport protocol before it puts a port into a translation.
    let transport = || eq(l4proto(), anonymous_set(["tcp", "udp"].map(text)));
    let (mut exact, mut restricted, mut ranges) = (false, false, false);
    for forward in forwards(config, site) {
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
        rules.push(vec![transport(), dnat(lookup(by_source(), "forwards_from"))]);
    }
    if ranges {
        rules.push(vec![transport(), dnat(lookup(by_source(), "forward_ranges"))]);
    }
    rules.extend(lists.open.rules(|| vec![dnat(lookup(destination(), "static_in"))]));
    if rules.is_empty() {
        return None;
    }
    rules.splice(0..0, elsewhere(&lists.published));
    Some(Chain { name: "prerouting".into(), base: Some(nat(NfHook::Prerouting, DSTNAT)), rules })
}

/// Flows to an address at which nothing is published, which are nearly all, are spared the look-ups.
fn elsewhere(published: &[Ipv4Addr]) -> Option<Vec<RuleStatement>> {
    let addresses = match published {
        // None is here yet.
        [] => return None,
        [single] => address(*single),
        _ => set(PUBLISHED_ADDRESSES),
    };
    Some(vec![ne(field("ip", "daddr"), addresses), accept()])
}

/// What was translated on its way in.
fn translated() -> RuleStatement {
    any_of(ct_status(), text("dnat"))
}

/// The ways to private hosts: from outside, and from one private network to itself and to others.
pub(super) fn ways(config: &Config, site: &Site, public: &PublicLink) -> Vec<Way> {
    let mut ways: Vec<Way> = Vec::new();
    for to in &site.private {
        if any(config) {
            ways.push((public.interface.clone(), to.interface.clone(), "published".into()));
        }
        for from in &site.private {
            let is_way = if from.interface == to.interface { any(config) } else { site.private.len() > 1 };
            if is_way {
                ways.push((from.interface.clone(), to.interface.clone(), "lateral".into()));
            }
        }
    }
    ways
}

pub(super) fn chains(config: &Config, site: &Site, lists: &Lists) -> Vec<Chain> {
    let mut chains = Vec::new();
    let let_in = || vec![translated(), counter(PUBLISHED_FLOWS), accept()];
    if any(config) {
        let mut rules = Vec::new();
        rules.extend(config.firewall.syns_per_second.map(|rate| syns(rate, "syns4", &field("ip", "saddr"))));
        rules.extend([let_in(), vec![drop_as(Reason::Forward)]]);
        chains.push(Chain::regular("published", rules));
    }
    if any(config) || site.private.len() > 1 {
        let mut rules = vec![];
        rules.extend(any(config).then(let_in));
        rules.extend(lists.tenants.rules(|| vec![counter(TENANT_FLOWS), accept()]));
        rules.push(unknown_flows());
        rules.push(vec![drop_as(Reason::Tenant)]);
        chains.push(Chain::regular("lateral", rules));
    }
    chains
}

/// New TCP flows of one source beyond the limit are dropped, with whichever packet they begin: connection tracking takes one in the
/// middle for a new flow as well.
pub(super) fn syns(rate: u32, meter: &str, source: &Value) -> Vec<RuleStatement> {
    let limit = limit_over(rate, "second", rate.saturating_mul(2));
    vec![eq(l4proto(), text("tcp")), update_with(meter, source, &limit), drop_as(Reason::Syns)]
}

/// Answers to a private host that used the public address of another one must come back here: the two would talk directly.
pub(super) fn hairpin(config: &Config, site: &Site) -> Option<Vec<RuleStatement>> {
    let links = || anonymous_set(site.private.iter().map(|link| interface(&link.interface)));
    let inside = || [eq(iifname(), links()), eq(oifname(), links())];
    let wanted = any(config) && !site.private.is_empty();
    wanted.then(|| inside().into_iter().chain([translated(), masquerade(false)]).collect())
}

/// What is for a host with a public address of its own and was not let in to it is not for the bastion either.
pub(super) fn not_for_the_bastion(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Vec<Vec<RuleStatement>> {
    if statics(config, site).next().is_none() {
        return Vec::new();
    }
    let theirs = || eq(field("ip", "daddr"), set("static_public"));
    let unknown = from_inside(site, tunnel).map(|inside| [vec![inside, theirs()], unknown_flows()].concat());
    unknown.into_iter().chain([vec![theirs(), drop_as(Reason::Input)]]).collect()
}

/// Hosts with a public address of their own go out under it.
pub(super) fn outgoing(config: &Config, site: &Site, public: &PublicLink) -> Option<Vec<RuleStatement>> {
    let out = eq(oifname(), interface(&public.interface));
    let to = lookup(field("ip", "saddr"), "static_out");
    statics(config, site).next().map(|_| vec![out, snat(to, false)])
}
