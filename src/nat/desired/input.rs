//! What reaches the bastion itself.

use ipnet::{IpNet, Ipv6Net};
use nftables::types::{NfChainPolicy, NfHook};

use super::super::element::{Element, FieldValue, ranges_by_family};
use super::super::model::{Chain, Set, fields};
use super::super::statement::{
    RuleStatement, Value, accept, add_with_timeout, and, anonymous_set, concat, eq, field, goto, iifname, interface,
    l4proto, limit_over, nfproto, number, prefix, set, text, update, update_with,
};
use super::drops::{Reason, drop_as};
use super::egress::unknown_flows;
use super::published::{not_for_the_bastion, syns};
use super::{FILTER, filter, known_flows};
use crate::config::{Config, Ports, Transport};
use crate::inputs::Tunnel;
use crate::site::Site;

/// One customer's share of IPv6 (RFC 6177): an attacker has all of it.
const PREFIX_OF_ONE: &str = "ffff:ffff:ffff:ffff::";

/// The protocols of pings.
const PINGS: [&str; 2] = ["icmp", "icmpv6"];

/// The source of a packet, as limits tell sources apart.
struct Source {
    protocol: &'static str,
    ending: &'static str,
    key: Value,
}

fn sources() -> [Source; 2] {
    let v6 = and(field("ip6", "saddr"), text(PREFIX_OF_ONE));
    [
        Source { protocol: "ip", ending: "4", key: field("ip", "saddr") },
        Source { protocol: "ip6", ending: "6", key: v6 },
    ]
}

pub(super) fn sets(config: &Config, site: &Site) -> Vec<Set> {
    let (ssh_from4, ssh_from6) = ranges_by_family(&config.firewall.ssh_from);
    let ports = site.ssh_ports(&config.firewall).into_iter().map(|port| Element::new([FieldValue::port(port)]));
    let mut sets = vec![
        Set::ranges("ssh_from4", [fields::V4], ssh_from4),
        Set::ranges("ssh_from6", [fields::V6], ssh_from6),
        Set::ranges("ssh_ports", [fields::PORT], ports.collect()),
    ];
    let [trusted4, trusted6] = trusted(config);
    let trusted = [("ssh_trusted4", fields::V4, trusted4), ("ssh_trusted6", fields::V6, trusted6)];
    sets.extend(
        trusted
            .into_iter()
            .filter(|(.., elements)| !elements.is_empty() && config.firewall.ssh_attempts.is_some())
            .map(|(name, kind, elements)| Set::ranges(name, [kind], elements)),
    );
    if !config.firewall.services.is_empty() {
        sets.extend(services(config));
    }
    sets
}

fn services(config: &Config) -> [Set; 2] {
    use fields::{PORT, PROTOCOL, V4, V6};
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for transport in [Transport::Tcp, Transport::Udp] {
        for (ports, sources) in open_ports(config, transport) {
            let (from4, from6) = ranges_by_family(&sources);
            let entry = |source: Element| {
                let key =
                    [FieldValue::ports(ports)].into_iter().chain(source.key).chain([FieldValue::transport(transport)]);
                Element { key: key.collect(), data: Vec::new() }
            };
            v4.extend(from4.into_iter().map(entry));
            v6.extend(from6.into_iter().map(entry));
        }
    }
    [Set::ranges("services4", [PORT, V4, PROTOCOL], v4), Set::ranges("services6", [PORT, V6, PROTOCOL], v6)]
}

/// Ports without overlaps, each with all who may use them: services may share ports, an interval set's elements may not.
fn open_ports(config: &Config, transport: Transport) -> Vec<(Ports, Vec<IpNet>)> {
    let everybody: [IpNet; 2] = [ipnet::Ipv4Net::default().into(), Ipv6Net::default().into()];
    let services = config.firewall.services.iter().filter(|service| service.transports.each().contains(&transport));
    let mut waiting: Vec<(Ports, &[IpNet])> = Vec::new();
    for service in services {
        let from = if service.from.is_empty() { &everybody[..] } else { &service.from };
        waiting.extend(service.ports.iter().map(|ports| (*ports, from)));
    }
    waiting.sort_by_key(|(ports, _)| *ports);
    let mut waiting = waiting.into_iter().peekable();
    let mut open: Vec<(Ports, Vec<IpNet>)> = Vec::new();
    let mut covering: Vec<(Ports, &[IpNet])> = Vec::new();
    let mut first = 0;
    loop {
        if covering.is_empty() {
            let Some((next, _)) = waiting.peek() else { break };
            first = next.first;
        }
        while let Some(next) = waiting.next_if(|(ports, _)| ports.first == first) {
            covering.push(next);
        }
        // A piece ends before the next service begins, or where the first of those that cover it ends.
        let last = covering.iter().map(|(ports, _)| ports.last).min().unwrap_or(first);
        let last = waiting.peek().map_or(last, |(next, _)| last.min(next.first - 1));
        let sources = IpNet::aggregate(&covering.iter().flat_map(|(_, from)| from.iter().copied()).collect());
        match open.last_mut() {
            Some((before, same)) if before.last.checked_add(1) == Some(first) && *same == sources => before.last = last,
            _ => open.push((Ports { first, last }, sources)),
        }
        covering.retain(|(ports, _)| ports.last > last);
        let Some(next) = last.checked_add(1) else { break };
        first = next;
    }
    open
}

pub(super) fn chains(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Vec<Chain> {
    let mut chains: Vec<Chain> = bans(config).collect();
    chains.push(ssh(config));
    if !config.firewall.services.is_empty() {
        chains.push(service(config));
    }
    chains.push(input(config, site, tunnel));
    chains
}

/// A new SSH connection from where one may come: not from those who tried too often. Connections that stand are not touched.
fn ssh(config: &Config) -> Chain {
    let mut rules = Vec::new();
    if let Some(attempts) = config.firewall.ssh_attempts {
        // Who is named is trusted: a stranger who forges their address must not have them banned.
        for (Source { protocol, ending, .. }, trusted) in sources().into_iter().zip(trusted(config)) {
            if !trusted.is_empty() {
                rules.push(vec![eq(field(protocol, "saddr"), set(format!("ssh_trusted{ending}"))), accept()]);
            }
        }
        for Source { ending, key, .. } in sources() {
            rules.push(vec![eq(key, set(format!("banned{ending}"))), drop_as(Reason::Banned)]);
        }
        for Source { ending, key, .. } in sources() {
            rules.push(vec![
                update_with(&format!("ssh_tries{ending}"), &key, &over(attempts)),
                goto(format!("ssh_ban{ending}")),
            ]);
        }
        // Who found a place among those that are counted is within the limit; a list of its own says so, since looking into that one
        // counts as well. When all places are taken, those without one share a limit.
        for Source { ending, key, .. } in sources() {
            rules.push(vec![update(&format!("ssh_counted{ending}"), &key), accept()]);
        }
        rules.push(vec![over(attempts), drop_as(Reason::Banned)]);
    }
    rules.push(vec![accept()]);
    Chain::regular("ssh_logins", rules)
}

fn over(attempts: u32) -> RuleStatement {
    limit_over(attempts, "minute", attempts.saturating_mul(2))
}

/// The end of somebody who tried too often. Two rules: where there is no place for another ban, the packet is dropped all the same.
fn bans(config: &Config) -> impl Iterator<Item = Chain> {
    let seconds = config.firewall.ssh_ban.as_secs().max(1);
    let ban = move |Source { ending, key, .. }| {
        let rules =
            vec![vec![add_with_timeout(&format!("banned{ending}"), &key, seconds)], vec![drop_as(Reason::Banned)]];
        Chain::regular(format!("ssh_ban{ending}"), rules)
    };
    config.firewall.ssh_attempts.map(|_| sources().map(ban)).into_iter().flatten()
}

/// Sources of IPv4 and of IPv6 that `firewall.ssh_from` names, beside everybody.
fn trusted(config: &Config) -> [Vec<Element>; 2] {
    let named: Vec<IpNet> = config.firewall.ssh_from.iter().copied().filter(|source| source.prefix_len() > 0).collect();
    ranges_by_family(&named).into()
}

/// A new flow to a service of the bastion.
fn service(config: &Config) -> Chain {
    let mut rules = Vec::new();
    if let Some(rate) = config.firewall.syns_per_second {
        rules.extend(sources().map(|Source { ending, key, .. }| syns(rate, &format!("syns{ending}"), &key)));
    }
    rules.push(vec![accept()]);
    Chain::regular("service", rules)
}

fn input(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Chain {
    let errors = ["destination-unreachable", "time-exceeded", "parameter-problem"];
    // RFC 4890 section 4.4.1: what a host must take to work at all.
    let errors6 = [
        "destination-unreachable",
        "packet-too-big",
        "time-exceeded",
        "parameter-problem",
        "mld-listener-query",
        "nd-router-advert",
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
    ];
    let mut rules = too_many_pings(config);
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
    rules.extend(tunnel.map(super::tunnel::logins));
    rules.extend(not_for_the_bastion(config, site, tunnel));
    if !config.firewall.ssh_only_by_tunnel {
        let to_ssh = || eq(field("tcp", "dport"), set("ssh_ports"));
        rules.push(vec![eq(field("ip", "saddr"), set("ssh_from4")), to_ssh(), goto("ssh_logins")]);
        rules.push(vec![eq(field("ip6", "saddr"), set("ssh_from6")), to_ssh(), goto("ssh_logins")]);
    }
    rules.push(vec![eq(field("icmp", "type"), anonymous_set(errors.map(text))), accept()]);
    rules.push(vec![eq(field("icmpv6", "type"), anonymous_set(errors6.map(text))), accept()]);
    rules.extend(PINGS.map(|protocol| vec![eq(field(protocol, "type"), text("echo-request")), accept()]));
    rules.push(vec![
        eq(field("ip6", "saddr"), prefix(link_local_v6())),
        eq(field("udp", "sport"), number(547)),
        eq(field("udp", "dport"), number(546)),
        accept(),
    ]);
    if let Some(port) = config.firewall.wireguard_port {
        rules.push(vec![eq(field("udp", "dport"), number(port)), accept()]);
    }
    if !config.firewall.services.is_empty() {
        for Source { protocol, ending, .. } in sources() {
            let key = concat([field("th", "dport"), field(protocol, "saddr"), l4proto()]);
            rules.push(vec![eq(key, set(format!("services{ending}"))), goto("service")]);
        }
    }
    // A private host that used another one by its public address, and the flow or the forward is gone.
    rules.extend(from_inside(site, tunnel).map(|inside| [vec![inside], unknown_flows()].concat()));
    rules.push(vec![drop_as(Reason::Input)]);
    Chain { name: "input".into(), base: Some(filter(NfHook::Input, FILTER, NfChainPolicy::Drop)), rules }
}

/// Pings are answered, so many a second. All pings of one program are a flow, so they are counted before known flows pass.
fn too_many_pings(config: &Config) -> Vec<Vec<RuleStatement>> {
    let over = |rate: u32, protocol| {
        let limit = limit_over(rate, "second", rate.saturating_mul(2));
        vec![eq(field(protocol, "type"), text("echo-request")), limit, drop_as(Reason::Pings)]
    };
    config
        .firewall
        .pings_per_second
        .map(|rate| PINGS.map(|protocol| over(rate, protocol)))
        .into_iter()
        .flatten()
        .collect()
}

fn link_local_v6() -> IpNet {
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}

/// What comes from private hosts and peers.
pub(super) fn from_inside(site: &Site, tunnel: Option<&Tunnel>) -> Option<RuleStatement> {
    let tunnel = tunnel.map(|tunnel| &tunnel.interface);
    let links: Vec<_> = site.private.iter().map(|link| &link.interface).chain(tunnel).map(interface).collect();
    (!links.is_empty()).then(|| eq(iifname(), anonymous_set(links)))
}

/// A rule for what comes by `name`.
pub(super) fn by(name: &crate::net::InterfaceName) -> RuleStatement {
    eq(iifname(), interface(name))
}
