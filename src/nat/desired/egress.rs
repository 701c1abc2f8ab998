//! From private networks to the internet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfHook};

use super::super::element::ranges;
use super::super::model::{Chain, Name, Set, fields};
use super::super::statement::{
    RuleStatement, accept, address, and, anonymous_set, any_of, counter, ct_status, destinations_first_byte, eq, field,
    flags, flows_over, goto, interface, limit_over, ne, number, oifname, prefix, reset, set, text, update_with,
};
use super::access::List;
use super::drops::{Reason, drop_as};
use super::early::unroutable;
use super::{EGRESS_FLOWS, FILTER, RESET_FLOWS, filter};
use crate::config::{Config, EgressLists};
use crate::hetzner::{METADATA_NETWORK, PUBLIC_GATEWAY};
use crate::inputs::Tunnel;
use crate::net::v4;
use crate::site::{PrivateLink, PublicLink, Site};

/// SMTP (RFC 5321).
const SMTP: u16 = 25;

/// The chain for flows of one private link.
pub(super) fn chain_of(config: &Config, link: &PrivateLink) -> Name {
    match config.networks.iter().find(|policy| policy.range == link.network) {
        Some(policy) => format!("egress_{}", named(policy.range)).into(),
        None => "egress".into(),
    }
}

/// A network as a part of a name: `10_2_0_0_16`.
fn named(network: Ipv4Net) -> String {
    network.to_string().replace(['.', '/'], "_")
}

/// The lists that hold for some link here, each with the ending of its names.
fn lists<'a>(config: &'a Config, site: &Site) -> Vec<(String, &'a EgressLists)> {
    let served = |range: Ipv4Net| site.private.iter().any(|link| link.network == range);
    let own = config.networks.iter().filter(|policy| served(policy.range));
    let own: Vec<_> = own.map(|policy| (format!("_{}", named(policy.range)), &policy.lists)).collect();
    let shared = site.private.iter().any(|link| config.networks.iter().all(|policy| policy.range != link.network));
    // Peers of the tunnel have the shared lists too.
    let shared = shared || config.wireguard.is_some() || own.is_empty();
    shared.then(|| (String::new(), &config.egress.lists)).into_iter().chain(own).collect()
}

fn allow(ending: &str, lists: &EgressLists) -> Option<List> {
    lists.allow.as_ref().map(|lines| List::of_destinations(&format!("allow{ending}"), lines))
}

fn deny(ending: &str, lists: &EgressLists) -> List {
    List::of_few_destinations(&format!("deny{ending}"), &lists.deny)
}

/// The sets and the chains that look into them, together: cutting ten thousand lines is not to be done twice.
pub(super) fn sets_and_chains(config: &Config, site: &Site) -> (Vec<Set>, Vec<Chain>) {
    let mut sets = Vec::new();
    if config.egress.guard {
        sets.push(Set::ranges("unroutable", [fields::V4], ranges(unroutable(site.public.as_ref()))));
    }
    let mut chains = vec![unknown_flow(), let_out(config)];
    for (ending, lists) in lists(config, site) {
        let (deny, allow) = (deny(&ending, lists), allow(&ending, lists));
        let mut rules = vec![guard(config), unknown_flows()];
        rules.extend(deny.rules(|| vec![drop_as(Reason::Egress)]));
        if !lists.smtp {
            rules.push(vec![eq(field("tcp", "dport"), number(SMTP)), drop_as(Reason::Egress)]);
        }
        match &allow {
            None => rules.push(vec![goto("let_out")]),
            Some(list) => {
                rules.extend(list.rules(|| vec![goto("let_out")]));
                rules.push(vec![drop_as(Reason::Egress)]);
            }
        }
        chains.push(Chain::regular(format!("egress{ending}"), rules));
        sets.extend(deny.sets());
        sets.extend(allow.into_iter().flat_map(List::sets));
    }
    (sets, chains)
}

/// What nobody has on the internet stays here, and at least the bastion's own metadata service, with its user-data.
fn guard(config: &Config) -> Vec<RuleStatement> {
    let range = if config.egress.guard { set("unroutable") } else { prefix(METADATA_NETWORK.into()) };
    vec![eq(field("ip", "daddr"), range), drop_as(Reason::Unroutable)]
}

/// The ranges of private networks and of the tunnel, but for those that the public link is in.
pub(super) fn inside(site: &Site, tunnel: Option<&Tunnel>) -> Vec<Ipv4Net> {
    let unroutable = unroutable(site.public.as_ref());
    let tunnel = tunnel.into_iter().flat_map(|tunnel| v4(tunnel.sources()));
    let all = site.private.iter().map(|link| link.network).chain(tunnel);
    Ipv4Net::aggregate(&all.filter(|range| unroutable.iter().any(|block| block.contains(range))).collect())
}

/// The set that [`keep_inside`] looks into.
pub(super) fn inside_set(inside: &[Ipv4Net]) -> Option<Set> {
    (inside.len() > 1).then(|| Set::ranges("inside", [fields::V4], ranges(inside.iter().copied())))
}

/// What is for a private network or the tunnel never leaves by the public link. Before what is known passes: where one of them is gone
/// for a moment, the default route is what is left for its flows.
///
/// So every packet of every flow meets it, and a look-up of ranges alone would cost a tenth of a packet (measured). The first byte of
/// most destinations rules them out: the kernel keeps a set of bytes as a bitmap.
pub(super) fn keep_inside(inside: &[Ipv4Net], site: &Site) -> Option<Vec<RuleStatement>> {
    let out = eq(oifname(), interface(&site.public.as_ref()?.interface));
    let destination = || field("ip", "daddr");
    let mut rule = vec![out];
    match inside {
        [] => return None,
        [single] => rule.push(eq(destination(), prefix((*single).into()))),
        several => {
            let bytes: BTreeSet<u8> = several.iter().copied().flat_map(first_bytes).collect();
            let bytes = bytes.into_iter().map(|byte| number(byte.into()));
            rule.extend([eq(destinations_first_byte(), anonymous_set(bytes)), eq(destination(), set("inside"))]);
        }
    }
    rule.push(drop_as(Reason::Forward));
    Some(rule)
}

/// What addresses of a range begin with.
fn first_bytes(range: Ipv4Net) -> impl Iterator<Item = u8> {
    range.network().octets()[0]..=range.broadcast().octets()[0]
}

/// The guard of the bastion's own packets, as far as they are for hosts: its neighbours and groups on the link are its own
/// business, and so is the cloud's gateway, which gives addresses too.
pub(super) fn own_guard(config: &Config, public: Option<&PublicLink>) -> Option<Chain> {
    let groups = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3);
    let neighbours = [prefix(METADATA_NETWORK.into()), address(PUBLIC_GATEWAY), prefix(groups.into())];
    let rule = |public: &PublicLink| {
        vec![
            eq(oifname(), interface(&public.interface)),
            eq(field("ip", "daddr"), set("unroutable")),
            ne(field("ip", "daddr"), anonymous_set(neighbours)),
            drop_as(Reason::Unroutable),
        ]
    };
    let base = filter(NfHook::Output, FILTER, NfChainPolicy::Accept);
    config.egress.guard.then(|| Chain {
        name: "output".into(),
        base: Some(base),
        rules: public.map(rule).into_iter().collect(),
    })
}

/// A TCP packet that neither belongs to a flow nor opens one: the flow died here, over a reboot or by its time-out.
pub(super) fn unknown_flows() -> Vec<RuleStatement> {
    let flags = and(field("tcp", "flags"), flags(["fin", "syn", "rst", "ack"]));
    vec![ne(flags, text("syn")), goto("unknown_flow")]
}

/// Whoever sent it is told, so that applications fail at once instead of waiting for minutes (as AWS's and Azure's gateways
/// do). Packets that connection tracking calls invalid are not answered: they may be about a flow that lives.
fn unknown_flow() -> Chain {
    Chain::regular("unknown_flow", vec![vec![counter(RESET_FLOWS), reset()]])
}

/// The last look at a flow that may go: whether its source has not too many.
fn let_out(config: &Config) -> Chain {
    let source = || field("ip", "saddr");
    let mut rules = Vec::new();
    if config.egress.new_flows_per_second.or(config.egress.max_flows).is_some() {
        // A flow stays new until it is answered, and some never are: a log's, a telephone's. It was counted with its first packet.
        rules.push(vec![any_of(ct_status(), text("confirmed")), accept()]);
    }
    if let Some(rate) = config.egress.new_flows_per_second {
        let limit = limit_over(rate, "second", rate.saturating_mul(2));
        rules.push(vec![update_with("new_flows", &source(), &limit), drop_as(Reason::NewFlows)]);
    }
    if let Some(count) = config.egress.max_flows {
        rules.push(vec![flows_over("flows", &source(), count), drop_as(Reason::Flows)]);
    }
    rules.push(vec![counter(EGRESS_FLOWS), accept()]);
    Chain::regular("let_out", rules)
}

/// The public link's side of [`chain_of`]: which way leads where.
pub(super) fn ways<'a>(
    config: &'a Config,
    site: &'a Site,
    public: &'a PublicLink,
) -> impl Iterator<Item = super::Way> + 'a {
    site.private.iter().map(move |link| (link.interface.clone(), public.interface.clone(), chain_of(config, link)))
}
