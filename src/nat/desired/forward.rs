//! The chain `forward`: which packets pass through the bastion.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfHook};

use super::super::element::ranges;
use super::super::model::{Chain, FLOWTABLE, Rule, Set, fields};
use super::super::statement::{
    RuleStatement, Value, and, anonymous_set, any_of, clamp_mss_to, clamp_mss_to_route, concat, ct_state,
    destination_first_byte, eq, field, flags, goto, iifname, interface, nfproto, number, offload, oifname, prefix, set,
    text, vmap,
};
use super::drops::{DropReason, drop_as};
use super::early::unroutable;
use super::feature::{Feature, ForwardPath, Slot};
use super::probes::further_sources;
use super::{BEFORE_FILTER, Scope, filter, known_flows};
use crate::net::{InterfaceName, v4};
use crate::site::{PrivateLink, Site};

/// Bytes of the headers that the size of a TCP segment does not contain: IPv4's and TCP's, without options.
const TCP_AND_IP_HEADERS: u32 = 40;
/// The set of all ranges inside, if there are several.
pub(super) const INSIDE: &str = "inside";
/// With more paths than this, one look-up of both names is cheaper than comparing them one after the other (measured).
const MANY_PATHS: usize = 4;

/// The chain, made of what the features let pass.
pub(super) fn chain(features: &mut Feature, site: &Site, fastpath: bool) -> Chain {
    // 1500 bytes outside meet 1450 inside: TCP learns the size from the handshake, since ICMP is often lost.
    let mut rules = vec![vec![is_syn_or_answer(), clamp_mss_to_route()]];
    rules.extend(site.private.iter().flat_map(lower_clamps));
    rules.extend(features.take_rules(Slot::ForwardGuard));
    if fastpath {
        rules.push(vec![any_of(ct_state(), text("established")), offload(FLOWTABLE)]);
    }
    rules.extend(known_flows());
    rules.extend(features.take_rules(Slot::ForwardUntranslated));
    let paths: Vec<ForwardPath> = std::mem::take(&mut features.paths).into_iter().map(|(_, path)| path).collect();
    if !paths.is_empty() {
        // IPv6 is not forwarded at all: Hetzner's networks are IPv4 only.
        rules.push(vec![eq(nfproto(), text("ipv6")), drop_as(DropReason::Forward)]);
    }
    rules.extend(path_rules(paths));
    // Explicit beside the policy: a new chain's policy takes effect only at the end of its transaction (kernel commit
    // 66293c46c931), and the counter needs a rule.
    rules.push(vec![drop_as(DropReason::Forward)]);
    Chain::base("forward", filter(NfHook::Forward, BEFORE_FILTER, NfChainPolicy::Drop), rules)
}

/// A link with a larger MTU than its network's: there the route's MTU is wrong, in both directions.
fn lower_clamps(link: &PrivateLink) -> Vec<Rule> {
    let Some(limit) = link.lower_limit() else { return Vec::new() };
    let rule = |side: Value| {
        vec![eq(side, interface(&link.interface)), is_syn_or_answer(), clamp_mss_to(limit - TCP_AND_IP_HEADERS)]
    };
    vec![rule(iifname()), rule(oifname())]
}

fn path_rules(paths: Vec<ForwardPath>) -> Vec<Rule> {
    let groups = by_destination(&paths);
    let rule = |from: Value, ForwardPath { to, chain, .. }: &ForwardPath| {
        vec![eq(iifname(), from), eq(oifname(), interface(to)), goto(chain.clone())]
    };
    let compared: usize = groups.iter().map(|(from, _)| from.len()).sum();
    if compared <= MANY_PATHS {
        let each = |(from, path): (Vec<&InterfaceName>, &ForwardPath)| {
            from.into_iter().map(|from| rule(interface(from), path)).collect::<Vec<_>>()
        };
        return groups.into_iter().flat_map(each).collect();
    }
    if groups.len() <= MANY_PATHS {
        let one = |(from, path): (Vec<&InterfaceName>, &ForwardPath)| {
            let from = match from.as_slice() {
                [single] => interface(single),
                several => anonymous_set(several.iter().map(|name| interface(name))),
            };
            rule(from, path)
        };
        return groups.into_iter().map(one).collect();
    }
    let entry = |ForwardPath { from, to, chain }| (concat([interface(&from), interface(&to)]), chain);
    vec![vec![vmap(concat([iifname(), oifname()]), paths.into_iter().map(entry))]]
}

/// The paths that lead to the same interface by the same chain, in their order: the interfaces that they come from, and
/// one of them.
fn by_destination(paths: &[ForwardPath]) -> Vec<(Vec<&InterfaceName>, &ForwardPath)> {
    let mut groups: Vec<(Vec<&InterfaceName>, &ForwardPath)> = Vec::new();
    for path in paths {
        match groups.iter_mut().find(|(_, first)| (&first.to, &first.chain) == (&path.to, &path.chain)) {
            Some((from, _)) => from.push(&path.from),
            None => groups.push((vec![&path.from], path)),
        }
    }
    groups
}

/// Matches `SYN` and `SYN+ACK`.
fn is_syn_or_answer() -> RuleStatement {
    eq(and(field("tcp", "flags"), flags(["syn", "rst"])), text("syn"))
}

/// Packets for a private network or the tunnel never leave by the public link. This is checked before packets of known
/// flows pass: while one of those links is gone for a moment, the default route is what is left for its flows.
///
/// So every packet of every flow meets this rule, and a look-up of ranges alone would cost a tenth of a packet
/// (measured). The first byte of most destinations rules them out. Answers to probes are harmless outside, and one more
/// range would cost every packet that look-up.
pub(super) fn inside_guard(scope: Scope<'_>) -> Feature {
    let inside = inside(scope);
    let several = inside.len() > 1;
    let set = several.then(|| Set::ranges(INSIDE, [fields::V4], ranges(inside)));
    let rule = guard_rule(&networks_inside(scope), scope.site);
    Feature {
        sets: set.into_iter().collect(),
        rules: rule.map(|rule| (Slot::ForwardGuard, rule)).into_iter().collect(),
        ..Feature::default()
    }
}

/// The ranges of private networks, of the tunnel and of further sources of probes, without those that contain the
/// public link's address.
pub(super) fn inside(scope: Scope<'_>) -> Vec<Ipv4Net> {
    let probes = further_sources(scope.probes, |_| true).into_iter().map(Ipv4Net::from);
    Ipv4Net::aggregate(&networks_inside(scope).into_iter().chain(probes).collect())
}

/// The same without the sources of probes.
fn networks_inside(Scope { site, tunnel, .. }: Scope<'_>) -> Vec<Ipv4Net> {
    let unroutable = unroutable(site.public.as_ref());
    let tunnel = tunnel.into_iter().flat_map(|tunnel| v4(tunnel.sources()));
    let unroutable = |range: &Ipv4Net| unroutable.iter().any(|block| block.contains(range));
    let networks = site.private.iter().map(|link| link.network).chain(tunnel).filter(unroutable);
    let behind = site.private.iter().flat_map(|link| link.behind.iter().copied());
    Ipv4Net::aggregate(&networks.chain(behind).collect())
}

fn guard_rule(inside: &[Ipv4Net], site: &Site) -> Option<Rule> {
    let out = eq(oifname(), interface(&site.public.as_ref()?.interface));
    let destination = || field("ip", "daddr");
    let mut rule = vec![out];
    match inside {
        [] => return None,
        [single] => rule.push(eq(destination(), prefix((*single).into()))),
        several => rule.extend([first_byte_is_of(several), eq(destination(), set(INSIDE))]),
    }
    rule.push(drop_as(DropReason::Forward));
    Some(rule)
}

/// Matches IPv4 packets whose destination begins like an address of these ranges. For most packets this spares a
/// look-up of the ranges: the kernel keeps a set of bytes as a bitmap.
pub(super) fn first_byte_is_of(ranges: &[Ipv4Net]) -> RuleStatement {
    let bytes: BTreeSet<u8> = ranges.iter().copied().flat_map(first_bytes).collect();
    eq(destination_first_byte(), anonymous_set(bytes.into_iter().map(|byte| number(byte.into()))))
}

/// The first bytes of a range's addresses.
pub(super) fn first_bytes(range: Ipv4Net) -> impl Iterator<Item = u8> {
    range.network().octets()[0]..=range.broadcast().octets()[0]
}
