//! From private networks to the internet.

use ipnet::Ipv4Net;

use super::super::element::ranges;
use super::super::model::{Chain, Name, Rule, Set, fields};
use super::super::portless::PORTLESS;
use super::super::statement::{
    Value, accept, anonymous_set, concat, counter, eq, field, goto, l4proto, new_counter, number, prefix, reset, set,
    text, update_with,
};
use super::access_list::AccessList;
use super::admission::admit_inside;
use super::drops::{DropReason, drop_as};
use super::early::unroutable;
use super::feature::{Feature, ForwardPath, Section, Slot};
use super::forward::first_byte_is_of;
use super::postrouting::egress_nat;
use super::probes::interface_of;
use super::{Scope, answer_unknown_flows};
use crate::config::{Config, EgressLists, NetworkPolicy};
use crate::hetzner::METADATA_NETWORK;
use crate::site::{PrivateLink, Site};

/// First packets of flows that were let out to the internet.
const EGRESS_FLOWS: &str = "egress_flows";
/// TCP packets of unknown flows from inside that were answered by a reset.
const RESET_FLOWS: &str = "reset_flows";
/// SMTP (RFC 5321).
const SMTP: u16 = 25;

/// What may leave, how much of it, and under which address.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    let mut sets = Vec::new();
    if config.egress.guard {
        sets.push(Set::ranges("unroutable", [fields::V4], ranges(unroutable(site.public.as_ref()))));
    }
    let mut chains = vec![unknown_flow_chain(), let_out_chain(scope)];
    for (ending, lists) in lists_in_use(config, site) {
        let deny = AccessList::of_few_destinations(&format!("deny{ending}"), &lists.deny);
        let allow = lists.allow.as_ref().map(|lines| AccessList::of_destinations(&format!("allow{ending}"), lines));
        chains.push(egress_chain(scope, &ending, lists, &deny, allow.as_ref()));
        sets.extend(deny.into_sets());
        sets.extend(allow.into_iter().flat_map(AccessList::into_sets));
    }
    let chains = chains.into_iter().map(|chain| (Section::Egress, chain)).collect();
    Feature {
        counters: vec![EGRESS_FLOWS, RESET_FLOWS],
        sets,
        chains,
        rules: egress_nat(scope).into_iter().map(|rule| (Slot::SourceNatEgress, rule)).collect(),
        paths: paths(config, site).map(|path| (Section::Egress, path)).collect(),
        ..Feature::default()
    }
}

/// From each private link to the public one, and from the probes that stand in for its hosts.
fn paths<'a>(config: &'a Config, site: &'a Site) -> impl Iterator<Item = ForwardPath> + 'a {
    site.public.iter().flat_map(|public| {
        site.private.iter().flat_map(|link| {
            let probe = config.health.enabled.then(|| interface_of(link));
            [link.interface.clone()].into_iter().chain(probe).map(|from| ForwardPath {
                from,
                to: public.interface.clone(),
                chain: chain_for(config, link),
            })
        })
    })
}

/// The chain for flows of a private link.
fn chain_for(config: &Config, link: &PrivateLink) -> Name {
    match config.policy_of(link.network, &link.interface) {
        Some(_) => format!("egress_{}", name_part(link.network)).into(),
        None => "egress".into(),
    }
}

/// A network as a part of a name: `10_2_0_0_16`.
fn name_part(network: Ipv4Net) -> String {
    network.to_string().replace(['.', '/'], "_")
}

/// The lists that hold for some link of this server, each with what its names end with.
fn lists_in_use<'a>(config: &'a Config, site: &Site) -> Vec<(String, &'a EgressLists)> {
    let link_of = |policy: &NetworkPolicy| {
        site.private.iter().find(|link| policy.network.is(link.network, &link.interface)).map(|link| link.network)
    };
    let own = config.networks.iter().filter_map(|policy| Some((link_of(policy)?, &policy.lists)));
    let own: Vec<_> = own.map(|(network, lists)| (format!("_{}", name_part(network)), lists)).collect();
    let has_shared = site.private.iter().any(|link| config.policy_of(link.network, &link.interface).is_none());
    // Peers of the tunnel have the shared lists too.
    let has_shared = has_shared || config.wireguard.is_some() || own.is_empty();
    has_shared.then(|| (String::new(), &config.egress.lists)).into_iter().chain(own).collect()
}

/// The first packet of a flow of links that have these lists.
fn egress_chain(
    scope: Scope<'_>,
    ending: &str,
    lists: &EgressLists,
    deny: &AccessList,
    allow: Option<&AccessList>,
) -> Chain {
    let mut rules = vec![guard(scope), answer_unknown_flows()];
    rules.extend(deny.rules(|| vec![drop_as(DropReason::Egress)]));
    if !lists.smtp {
        rules.push(vec![eq(field("tcp", "dport"), number(SMTP)), drop_as(DropReason::Egress)]);
    }
    match allow {
        None => rules.push(vec![goto("let_out")]),
        Some(allow) => {
            rules.extend(allow.rules(|| vec![goto("let_out")]));
            rules.push(vec![drop_as(DropReason::Egress)]);
        }
    }
    Chain::regular(format!("egress{ending}"), rules)
}

/// Drops packets to destinations that are not routed on the internet, and always those to the bastion's own metadata
/// service.
fn guard(Scope { config, site, .. }: Scope<'_>) -> Rule {
    if !config.egress.guard {
        return not_to_metadata();
    }
    let ranges = unroutable(site.public.as_ref());
    [vec![first_byte_is_of(&ranges)], drop_unroutable(set("unroutable"))].concat()
}

/// Drops packets to the bastion's own metadata service, which holds its user data.
pub(super) fn not_to_metadata() -> Rule {
    drop_unroutable(prefix(METADATA_NETWORK.into()))
}

fn drop_unroutable(range: Value) -> Rule {
    vec![eq(field("ip", "daddr"), range), drop_as(DropReason::Unroutable)]
}

/// The sender gets a reset, so that applications fail at once instead of waiting for minutes (AWS's and Azure's
/// gateways do the same). Packets that connection tracking calls invalid are not answered: they may belong to a living
/// flow.
fn unknown_flow_chain() -> Chain {
    Chain::regular("unknown_flow", vec![vec![counter(RESET_FLOWS), reset()]])
}

/// A flow that the lists let out, if its source has not too many. Flows of protocols without ports are noted, since the
/// kernel has no place for two of them that differ in the private host only.
fn let_out_chain(scope: Scope<'_>) -> Chain {
    let mut rules: Vec<Rule> = admit_inside(scope).into_iter().collect();
    // One rule for nearly all flows, as before: those of protocols without ports continue. Where the set is full, they
    // pass without a note.
    let with_ports = || anonymous_set(["icmp", "tcp", "udp", "sctp"].map(text));
    let flow = concat([field("ip", "saddr"), l4proto(), field("ip", "daddr")]);
    rules.push(vec![eq(l4proto(), with_ports()), counter(EGRESS_FLOWS), accept()]);
    rules.push(vec![update_with(PORTLESS, &flow, &new_counter())]);
    rules.push(vec![counter(EGRESS_FLOWS), accept()]);
    Chain::regular("let_out", rules)
}
