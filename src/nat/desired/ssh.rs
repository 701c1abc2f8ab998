//! Log-ins to the bastion: who may try, and how often.

use ipnet::IpNet;

use super::super::element::{Element, FieldValue, ranges_by_family};
use super::super::model::{Chain, Meter, Rule, Set, fields};
use super::super::statement::{
    RuleStatement, accept, add_with_timeout, eq, field, goto, limit_over, set, update, update_with,
};
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, Section, Slot};
use super::{LimitedSource, Scope, limited_sources};
use crate::config::Config;

/// SSH from `firewall.ssh_from`, with a limit of attempts and a ban of sources beyond it.
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
    let meters = ["ssh_tries4", "ssh_tries6"].map(|name| Meter { name, limit: firewall.ssh_attempts });
    let chains = ban_chains(config).into_iter().chain([logins_chain(config)]);
    let rule = |LimitedSource { protocol, ending, .. }| {
        let from = eq(field(protocol, "saddr"), set(format!("ssh_from{ending}")));
        (Slot::InputSsh, vec![from, is_to_ssh(), goto("ssh_logins")])
    };
    let rules = (!firewall.ssh_only_by_tunnel).then(|| limited_sources().map(rule));
    Feature {
        sets,
        meters: meters.into(),
        chains: chains.map(|chain| (Section::Input, chain)).collect(),
        rules: rules.into_iter().flatten().collect(),
        ..Feature::default()
    }
}

/// Matches TCP packets to a port of sshd.
pub(super) fn is_to_ssh() -> RuleStatement {
    eq(field("tcp", "dport"), set("ssh_ports"))
}

/// A new connection from an allowed source. Sources with too many attempts are banned. Established connections do not
/// come here.
fn logins_chain(config: &Config) -> Chain {
    let mut rules: Vec<Rule> = Vec::new();
    if let Some(attempts) = config.firewall.ssh_attempts {
        // Named sources are trusted: a sender who forges their address must not get them banned.
        for (LimitedSource { protocol, ending, .. }, trusted) in limited_sources().into_iter().zip(trusted(config)) {
            if !trusted.is_empty() {
                rules.push(vec![eq(field(protocol, "saddr"), set(format!("ssh_trusted{ending}"))), accept()]);
            }
        }
        for LimitedSource { ending, key, .. } in limited_sources() {
            rules.push(vec![eq(key, set(format!("banned{ending}"))), drop_as(DropReason::Banned)]);
        }
        for LimitedSource { ending, key, .. } in limited_sources() {
            let limit = exceeds(attempts);
            let counted = update_with(&format!("ssh_tries{ending}"), &key, &limit);
            rules.push(vec![counted, goto(format!("ssh_ban{ending}"))]);
        }
        // A source that has an element among those that are counted is within its limit. `ssh_counted` tells which have
        // one: looking into `ssh_tries` would count as an attempt. Sources for which there was no room share one limit.
        for LimitedSource { ending, key, .. } in limited_sources() {
            rules.push(vec![update(&format!("ssh_counted{ending}"), &key), accept()]);
        }
        rules.push(vec![exceeds(attempts), drop_as(DropReason::Banned)]);
    }
    rules.push(vec![accept()]);
    Chain::regular("ssh_logins", rules)
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
