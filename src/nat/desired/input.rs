//! The chain `input`: what reaches the bastion itself.

use nftables::types::{NfChainPolicy, NfHook};

use super::super::model::{Chain, Rule};
use super::super::statement::{accept, anonymous_set, eq, field, iifname, jump, l4proto, limit_over, ne, number, text};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Slot};
use super::{
    ERRORS, FILTER, Scope, answer_unknown_flows, comes_from_inside, comes_in_by, filter, inside_links, known_flows,
    ssh, untracked,
};
use crate::config::Config;

/// The chain of the limits that stand before packets of known flows pass.
const LIMITS: &str = "input_limits";
/// The protocols of pings.
const PINGS: [&str; 2] = ["icmp", "icmpv6"];
/// RFC 4890 section 4.4.1: what a host must accept to work at all, from every link.
const ERRORS_V6: [&str; 7] = [
    "destination-unreachable",
    "packet-too-big",
    "time-exceeded",
    "parameter-problem",
    "mld-listener-query",
    "nd-neighbor-solicit",
    "nd-neighbor-advert",
];

/// The chain, with the rules of the features in their places.
pub(super) fn chain(features: &mut Feature, scope: Scope<'_>) -> Chain {
    let firewall = &scope.config.firewall;
    let mut rules: Vec<Rule> = Vec::new();
    if limits_chain(scope.config).is_some() {
        // Packets of a tunnel are most of what comes in. They are UDP, which no limit concerns, and pay for one
        // comparison.
        rules.push(vec![ne(l4proto(), text("udp")), jump(LIMITS)]);
    }
    let [known, invalid] = known_flows();
    rules.push(known);
    rules.extend(untracked::tunnel_errors(scope));
    rules.push(invalid);
    rules.extend(untracked::accept_untracked(scope));
    rules.push(vec![eq(iifname(), text("lo")), accept()]);
    for slot in [Slot::InputTunnel, Slot::InputStatic, Slot::InputSsh] {
        rules.extend(features.take_rules(slot));
    }
    rules.push(vec![eq(field("icmp", "type"), anonymous_set(ERRORS.map(text))), accept()]);
    rules.push(vec![eq(field("icmpv6", "type"), anonymous_set(ERRORS_V6.map(text))), accept()]);
    rules.extend(PINGS.map(|protocol| vec![eq(field(protocol, "type"), text("echo-request")), accept()]));
    rules.push(router_advertisements(scope));
    if let Some(port) = firewall.wireguard_port {
        rules.push(vec![eq(field("udp", "dport"), number(port)), accept()]);
    }
    rules.extend(features.take_rules(Slot::InputServices));
    rules.extend(features.take_rules(Slot::InputLocal));
    // A private host reached another one by its public address, and the flow was forgotten or the forward is gone.
    rules.extend(comes_from_inside(scope).map(|inside| [vec![inside], answer_unknown_flows()].concat()));
    rules.push(vec![drop_as(DropReason::Input)]);
    Chain::base("input", filter(NfHook::Input, FILTER, NfChainPolicy::Drop), rules)
}

/// Only a neighbour on the public link makes itself this server's IPv6 router; while that link is not known, one on a
/// link that is not known to be private.
fn router_advertisements(scope: Scope<'_>) -> Rule {
    let from = match &scope.site.public {
        Some(public) => Some(comes_in_by(&public.interface)),
        None => inside_links(scope).map(|links| ne(iifname(), links)),
    };
    from.into_iter().chain([eq(field("icmpv6", "type"), text("nd-router-advert")), accept()]).collect()
}

/// The limits that count packets of known flows too, before those pass; `None` if there are none.
pub(super) fn limits_chain(config: &Config) -> Option<Chain> {
    let mut rules = too_many_pings(config.firewall.pings_per_second);
    rules.extend(ssh::count_handshakes(config));
    (!rules.is_empty()).then(|| Chain::regular(LIMITS, rules))
}

/// Drops pings beyond the limit. All pings of one program are one flow, so they are counted before packets of known
/// flows pass.
fn too_many_pings(pings_per_second: Option<u32>) -> Vec<Rule> {
    let Some(rate) = pings_per_second else { return Vec::new() };
    let rule = |protocol| {
        let limit = limit_over(rate, "second", rate.saturating_mul(2));
        vec![eq(field(protocol, "type"), text("echo-request")), limit, drop_as(DropReason::Pings)]
    };
    PINGS.map(rule).into()
}
