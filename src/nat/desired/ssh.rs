//! Log-ins to the bastion: who may try, and how often.

use ipnet::IpNet;

use super::super::element::{Element, FieldValue, ranges_by_family};
use super::super::model::{Chain, Meter, Rule, Set, fields};
use super::super::statement::{
    RuleStatement, accept, add_with_timeout, and, anonymous_set, any_of, clear_ct_mark, ct_mark_has, ct_state, eq,
    field, flags, goto, iifname, interface, limit_over, set, set_ct_mark, text, update, update_with,
};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Section, Slot};
use super::{HANDSHAKE, LimitedSource, Scope, limited_sources};
use crate::config::Config;

/// How many times as many connection requests as completed connections a source may send: below that, no address is
/// limited because somebody forges it.
const SYNS_PER_ATTEMPT: u32 = 4;
/// How many times as many connections a private host may open: automation opens many, and a host that was taken over
/// still cannot guess without end.
const INSIDE_PER_ATTEMPT: u32 = 10;

/// SSH from `firewall.ssh_from`, with a limit of attempts and a ban of sources beyond it; private hosts have a limit of
/// their own and no ban.
///
/// Only a completed handshake counts as an attempt: anybody can send a connection request with anybody's address. A
/// new connection gets the mark [`HANDSHAKE`], and the first packet of the flow after that, which only a sender that
/// has received our answer can send, is counted and takes the mark away. A reset is no such packet.
pub(super) fn feature(Scope { config, site, .. }: Scope<'_>) -> Feature {
    let firewall = &config.firewall;
    let (ssh_from4, ssh_from6) = ranges_by_family(&firewall.ssh_from);
    let ports = site.ssh_ports(firewall).into_iter().map(|port| Element::new([FieldValue::port(port)]));
    let mut sets = vec![
        Set::ranges("ssh_from4", [fields::V4], ssh_from4),
        Set::ranges("ssh_from6", [fields::V6], ssh_from6),
        Set::ranges("ssh_ports", [fields::PORT], ports.collect()),
    ];
    let [trusted4, trusted6] = trusted(config);
    let trusted = [("ssh_trusted4", fields::V4, trusted4), ("ssh_trusted6", fields::V6, trusted6)];
    let trusted = trusted.into_iter().filter(|(.., elements)| !elements.is_empty() && firewall.ssh_attempts.is_some());
    sets.extend(trusted.map(|(name, kind, elements)| Set::ranges(name, [kind], elements)));
    let times = |factor: u32| firewall.ssh_attempts.map(|attempts| attempts.saturating_mul(factor));
    let meters = METERS.map(|(name, factor)| Meter { name, limit: times(factor) }).into();
    let inside: Vec<_> = site.private.iter().map(|link| interface(&link.interface)).collect();
    let has_inside = firewall.ssh_attempts.is_some() && !inside.is_empty();
    let chains = ban_chains(config).into_iter().chain(opened_chain(config)).chain(inside_chain(config, has_inside));
    let from = |LimitedSource { protocol, ending, .. }: &LimitedSource| {
        eq(field(protocol, "saddr"), set(format!("ssh_from{ending}")))
    };
    let rule = |source: LimitedSource| (Slot::InputSsh, vec![from(&source), is_to_ssh(), goto("ssh_logins")]);
    let inside_rule = |source: LimitedSource| {
        let link = eq(iifname(), anonymous_set(inside.clone()));
        (Slot::InputSsh, vec![link, from(&source), is_to_ssh(), goto("ssh_inside")])
    };
    let mut rules = Vec::new();
    if !firewall.ssh_only_by_tunnel {
        if has_inside {
            rules.extend(limited_sources().map(inside_rule));
        }
        rules.extend(limited_sources().map(rule));
    }
    Feature {
        sets,
        meters,
        chains: chains.chain([logins_chain(config)]).map(|chain| (Section::Input, chain)).collect(),
        rules,
        ..Feature::default()
    }
}

/// The sets that the limits fill, and how many times `ssh_attempts` each allows.
const METERS: [(&str, u32); 6] = [
    ("ssh_tries4", 1),
    ("ssh_tries6", 1),
    ("ssh_syns4", SYNS_PER_ATTEMPT),
    ("ssh_syns6", SYNS_PER_ATTEMPT),
    ("ssh_inside4", INSIDE_PER_ATTEMPT),
    ("ssh_inside6", INSIDE_PER_ATTEMPT),
];

/// Sends the first packet after a connection request to the chain that counts it; `None` without a limit. It stands
/// before packets of known flows pass, for packets that are not UDP.
pub(super) fn count_handshakes(config: &Config) -> Option<Rule> {
    let known = any_of(ct_state(), text("established"));
    config
        .firewall
        .ssh_attempts
        .map(|_| vec![ct_mark_has(HANDSHAKE), known, is_to_ssh(), confirms(), goto("ssh_opened")])
}

/// Matches packets that confirm the handshake. The host whose address was forged answers our answer too, with a reset.
fn confirms() -> RuleStatement {
    eq(and(field("tcp", "flags"), flags(["rst", "ack"])), text("ack"))
}

/// Matches TCP packets to a port of sshd.
pub(super) fn is_to_ssh() -> RuleStatement {
    eq(field("tcp", "dport"), set("ssh_ports"))
}

/// A request for a new connection from an allowed source. Packets of established connections do not come here.
fn logins_chain(config: &Config) -> Chain {
    let mut rules: Vec<Rule> = Vec::new();
    if let Some(attempts) = config.firewall.ssh_attempts {
        // Named sources are trusted, and not counted.
        for (LimitedSource { protocol, ending, .. }, trusted) in limited_sources().into_iter().zip(trusted(config)) {
            if !trusted.is_empty() {
                rules.push(vec![eq(field(protocol, "saddr"), set(format!("ssh_trusted{ending}"))), accept()]);
            }
        }
        rules.extend(drop_banned());
        rules.extend(limit_requests("ssh_syns", attempts.saturating_mul(SYNS_PER_ATTEMPT)));
        rules.push(vec![set_ct_mark(HANDSHAKE)]);
    }
    rules.push(vec![accept()]);
    Chain::regular("ssh_logins", rules)
}

/// A request for a new connection from a private host.
fn inside_chain(config: &Config, has_inside: bool) -> Option<Chain> {
    let attempts = config.firewall.ssh_attempts.filter(|_| has_inside)?;
    let mut rules = limit_requests("ssh_inside", attempts.saturating_mul(INSIDE_PER_ATTEMPT));
    rules.push(vec![accept()]);
    Some(Chain::regular("ssh_inside", rules))
}

/// The last packet of a handshake. Sources with too many of them are banned. What is dropped keeps its mark: it comes
/// here again with its next packet.
fn opened_chain(config: &Config) -> Option<Chain> {
    let attempts = config.firewall.ssh_attempts?;
    let mut rules = drop_banned();
    for LimitedSource { ending, key, .. } in limited_sources() {
        let counted = update_with(&format!("ssh_tries{ending}"), &key, &exceeds(attempts));
        rules.push(vec![counted, goto(format!("ssh_ban{ending}"))]);
    }
    // A source that has an element among those that are counted is within its limit. `ssh_counted` tells which have
    // one: looking into `ssh_tries` would count as an attempt. Sources for which there was no room share one limit.
    for LimitedSource { ending, key, .. } in limited_sources() {
        rules.push(vec![update(&format!("ssh_counted{ending}"), &key), clear_ct_mark(HANDSHAKE), accept()]);
    }
    rules.push(vec![exceeds(attempts), drop_as(DropReason::Banned)]);
    rules.push(vec![clear_ct_mark(HANDSHAKE), accept()]);
    Some(Chain::regular("ssh_opened", rules))
}

fn drop_banned() -> Vec<Rule> {
    let drop =
        |LimitedSource { ending, key, .. }| vec![eq(key, set(format!("banned{ending}"))), drop_as(DropReason::Banned)];
    limited_sources().map(drop).into()
}

/// Drops requests beyond so many a minute from one source.
fn limit_requests(meter: &str, rate: u32) -> Vec<Rule> {
    let limit = limit_over(rate, "minute", rate.saturating_mul(2));
    let rule = |LimitedSource { ending, key, .. }| {
        vec![update_with(&format!("{meter}{ending}"), &key, &limit), drop_as(DropReason::Ssh)]
    };
    limited_sources().map(rule).into()
}

/// Matches more than so many attempts a minute.
fn exceeds(attempts: u32) -> RuleStatement {
    limit_over(attempts, "minute", attempts.saturating_mul(2))
}

/// The chains that ban a source. Two rules each: without room for another ban, the packet is dropped all the same.
fn ban_chains(config: &Config) -> Vec<Chain> {
    let seconds = config.firewall.ssh_ban.as_secs().max(1);
    let chain = |LimitedSource { ending, key, .. }| {
        let ban = add_with_timeout(&format!("banned{ending}"), &key, seconds);
        Chain::regular(format!("ssh_ban{ending}"), vec![vec![ban], vec![drop_as(DropReason::Banned)]])
    };
    if config.firewall.ssh_attempts.is_none() {
        return Vec::new();
    }
    limited_sources().map(chain).into()
}

/// The sources that `firewall.ssh_from` names, without "everyone": of IPv4, and of IPv6.
fn trusted(config: &Config) -> [Vec<Element>; 2] {
    let named: Vec<IpNet> = config.firewall.ssh_from.iter().copied().filter(|source| source.prefix_len() > 0).collect();
    ranges_by_family(&named).into()
}
