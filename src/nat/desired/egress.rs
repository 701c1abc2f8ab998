//! From private networks to the internet.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfHook};

use super::super::element::ranges;
use super::super::model::{Chain, Meter, Name, Rule, Set, fields};
use super::super::statement::{
    accept, address, anonymous_set, any_of, counter, ct_status, eq, field, flows_over, goto, interface, limit_over, ne,
    number, oifname, prefix, reset, set, text, update_with,
};
use super::access_list::AccessList;
use super::drops::{DropReason, drop_as};
use super::early::unroutable;
use super::feature::{Feature, ForwardPath, Section, Slot};
use super::postrouting::egress_nat;
use super::probes::interface_of;
use super::{FILTER, Scope, answer_unknown_flows, filter, untranslated};
use crate::config::{Config, EgressLists, NetworkPolicy};
use crate::hetzner::{METADATA_NETWORK, PUBLIC_GATEWAY};
use crate::site::{PrivateLink, PublicLink, Site};

/// First packets of flows that were let out to the internet.
const EGRESS_FLOWS: &str = "egress_flows";
/// TCP packets of unknown flows from inside that were answered by a reset.
const RESET_FLOWS: &str = "reset_flows";
/// SMTP (RFC 5321).
const SMTP: u16 = 25;

/// What may leave, how much of it, and under which address.
pub(super) fn feature(scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    let meters = vec![
        Meter { name: "flows", limit: config.egress.max_flows },
        Meter { name: "new_flows", limit: config.egress.new_flows_per_second },
    ];
    let mut sets = Vec::new();
    if config.egress.guard {
        sets.push(Set::ranges("unroutable", [fields::V4], ranges(unroutable(site.public.as_ref()))));
    }
    let mut chains = vec![unknown_flow_chain(), let_out_chain(config)];
    for (ending, lists) in lists_in_use(config, site) {
        let deny = AccessList::of_few_destinations(&format!("deny{ending}"), &lists.deny);
        let allow = lists.allow.as_ref().map(|lines| AccessList::of_destinations(&format!("allow{ending}"), lines));
        chains.push(egress_chain(config, &ending, lists, &deny, allow.as_ref()));
        sets.extend(deny.into_sets());
        sets.extend(allow.into_iter().flat_map(AccessList::into_sets));
    }
    let mut chains: Vec<_> = chains.into_iter().map(|chain| (Section::Egress, chain)).collect();
    chains.push((Section::Output, output_chain(scope)));
    Feature {
        counters: vec![EGRESS_FLOWS, RESET_FLOWS],
        sets,
        meters,
        chains,
        rules: egress_nat(scope).into_iter().map(|rule| (Slot::SourceNatEgress, rule)).collect(),
        paths: paths(config, site).map(|path| (Section::Egress, path)).collect(),
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
    config: &Config,
    ending: &str,
    lists: &EgressLists,
    deny: &AccessList,
    allow: Option<&AccessList>,
) -> Chain {
    let mut rules = vec![guard(config), answer_unknown_flows()];
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
/// service, which holds its user-data.
fn guard(config: &Config) -> Rule {
    let range = if config.egress.guard { set("unroutable") } else { prefix(METADATA_NETWORK.into()) };
    vec![eq(field("ip", "daddr"), range), drop_as(DropReason::Unroutable)]
}

/// The guard of the bastion's own packets, as far as they go to hosts. Its neighbours and groups on the link are
/// exempt, and so is the cloud's gateway, which assigns addresses too.
fn output_chain(scope: Scope<'_>) -> Chain {
    let groups = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3);
    let neighbours = [prefix(METADATA_NETWORK.into()), address(PUBLIC_GATEWAY), prefix(groups.into())];
    let rule = |public: &PublicLink| {
        vec![
            eq(oifname(), interface(&public.interface)),
            eq(field("ip", "daddr"), set("unroutable")),
            ne(field("ip", "daddr"), anonymous_set(neighbours)),
            drop_as(DropReason::Unroutable),
        ]
    };
    let public = scope.site.public.as_ref().filter(|_| scope.config.egress.guard);
    let rules = public.map(rule).into_iter().chain(untranslated::output_rule(scope));
    Chain::base("output", filter(NfHook::Output, FILTER, NfChainPolicy::Accept), rules.collect())
}

/// The sender gets a reset, so that applications fail at once instead of waiting for minutes (AWS's and Azure's
/// gateways do the same). Packets that connection tracking calls invalid are not answered: they may belong to a living
/// flow.
fn unknown_flow_chain() -> Chain {
    Chain::regular("unknown_flow", vec![vec![counter(RESET_FLOWS), reset()]])
}

/// The last check of a flow that the lists let out: whether its source has too many.
fn let_out_chain(config: &Config) -> Chain {
    let source = || field("ip", "saddr");
    let mut rules = Vec::new();
    if config.egress.new_flows_per_second.or(config.egress.max_flows).is_some() {
        // A flow stays new until it is answered, and some never are: syslog, voice. Its first packet was counted
        // already.
        rules.push(vec![any_of(ct_status(), text("confirmed")), accept()]);
    }
    if let Some(rate) = config.egress.new_flows_per_second {
        let limit = limit_over(rate, "second", rate.saturating_mul(2));
        rules.push(vec![update_with("new_flows", &source(), &limit), drop_as(DropReason::NewFlows)]);
    }
    if let Some(count) = config.egress.max_flows {
        rules.push(vec![flows_over("flows", &source(), count), drop_as(DropReason::Flows)]);
    }
    rules.push(vec![counter(EGRESS_FLOWS), accept()]);
    Chain::regular("let_out", rules)
}
