//! The chain `input`: what reaches the bastion itself.

use ipnet::{IpNet, Ipv6Net};
use nftables::types::{NfChainPolicy, NfHook};

use super::super::model::{Chain, Rule};
use super::super::statement::{
    accept, anonymous_set, eq, field, iifname, jump, l4proto, limit_over, ne, nfproto, number, prefix, text,
};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Slot};
use super::{FILTER, Scope, answer_unknown_flows, comes_from_inside, filter, known_flows, ssh};
use crate::config::Config;

/// The chain of the limits that stand before packets of known flows pass.
const LIMITS: &str = "input_limits";
/// The protocols of pings.
const PINGS: [&str; 2] = ["icmp", "icmpv6"];
/// Errors about flows.
const ERRORS: [&str; 3] = ["destination-unreachable", "time-exceeded", "parameter-problem"];
/// RFC 4890 section 4.4.1: what a host must accept to work at all.
const ERRORS_V6: [&str; 8] = [
    "destination-unreachable",
    "packet-too-big",
    "time-exceeded",
    "parameter-problem",
    "mld-listener-query",
    "nd-router-advert",
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
    rules.extend(known_flows());
    rules.extend([
        vec![eq(iifname(), text("lo")), accept()],
        // Answers to our own DHCP requests come from addresses that no flow knows.
        vec![
            eq(nfproto(), text("ipv4")),
            eq(field("udp", "sport"), number(67)),
            eq(field("udp", "dport"), number(68)),
            accept(),
        ],
    ]);
    for slot in [Slot::InputTunnel, Slot::InputStatic, Slot::InputSsh] {
        rules.extend(features.take_rules(slot));
    }
    rules.push(vec![eq(field("icmp", "type"), anonymous_set(ERRORS.map(text))), accept()]);
    rules.push(vec![eq(field("icmpv6", "type"), anonymous_set(ERRORS_V6.map(text))), accept()]);
    rules.extend(PINGS.map(|protocol| vec![eq(field(protocol, "type"), text("echo-request")), accept()]));
    // DHCPv6.
    rules.push(vec![
        eq(field("ip6", "saddr"), prefix(link_local_v6())),
        eq(field("udp", "sport"), number(547)),
        eq(field("udp", "dport"), number(546)),
        accept(),
    ]);
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

fn link_local_v6() -> IpNet {
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}
