//! The rules, as nouns, and what they shall be.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nftables::schema::{SetFlag, SetType, SetTypeValue};
use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use super::nft::{
    Phrase, Value, accept, and, anonymous_set, clamp_mss_to_route, concat, counter, ct_state, drop, field, flags, goto,
    iifname, interface, is, is_not, masquerade, nfproto, number, oifname, prefix, ranges, set, text, vmap,
};
use super::tunnel;
use crate::config::Config;
use crate::site::{PublicLink, Site};
use crate::wireguard::model::Tunnel;

/// The one table that is ours, in family `inet`.
pub const TABLE: &str = "bastiond";

/// All that shall be in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Named counters; they keep their values.
    pub counters: Vec<&'static str>,
    /// Named sets.
    pub sets: Vec<Set>,
    /// Chains with their rules. A chain stands before those that go to it.
    pub chains: Vec<Chain>,
}

/// A named set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub key: SetTypeValue<'static>,
    /// Its flags.
    pub flag: SetFlag,
    /// Its elements, without overlaps.
    pub elements: Vec<Value>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where the kernel calls it; none for a chain that others go to.
    pub base: Option<Base>,
    /// Its rules, each a list of statements.
    pub rules: Vec<Vec<Phrase>>,
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: NfChainType,
    /// Where in the packet's way.
    pub hook: NfHook,
    /// The lower, the earlier.
    pub priority: i32,
    /// What happens to a packet that no rule decided.
    pub policy: NfChainPolicy,
}

/// nft's `mangle`.
const MANGLE: i32 = -150;
/// nft's `filter`.
const FILTER: i32 = 0;
/// nft's `filter - 5`: before the chains that Docker, ufw and iptables register at 0, whatever was loaded last.
const BEFORE_FILTER: i32 = -5;
/// nft's `srcnat`.
const SRCNAT: i32 = 100;

const DROPPED_INVALID: &str = "dropped_invalid";
pub(super) const DROPPED_FORWARD: &str = "dropped_forward";
const DROPPED_INPUT: &str = "dropped_input";
pub(super) const DROPPED_SPOOFED: &str = "dropped_spoofed";
pub(super) const EGRESS_FLOWS: &str = "egress_flows";

/// The rules for this server. While its public link is unknown nothing is let through, but what is established and what
/// concerns the bastion itself.
pub fn desired(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Ruleset {
    let public = site.public.as_ref();
    let mut rules = Ruleset {
        counters: vec![DROPPED_FORWARD, DROPPED_INPUT, DROPPED_INVALID, DROPPED_SPOOFED, EGRESS_FLOWS],
        sets: sets(config, site),
        chains: vec![invalid(), egress()],
    };
    if let Some(tunnel) = tunnel {
        rules.counters.push(tunnel::FLOWS);
        rules.sets.extend(tunnel::sets(tunnel));
        rules.chains.extend([tunnel::inwards(tunnel, public), tunnel::outwards()]);
    }
    rules.chains.extend([
        forward(public, site, tunnel),
        clamp(),
        input(config, public, site, tunnel),
        postrouting(config, public, tunnel),
    ]);
    rules
}

fn sets(config: &Config, site: &Site) -> Vec<Set> {
    let sources = site.private.iter().map(|link| concat([interface(&link.interface), prefix(link.network.into())]));
    let (mut v4, mut v6): (Vec<Ipv4Net>, Vec<Ipv6Net>) = Default::default();
    for source in &config.firewall.ssh_from {
        match source {
            IpNet::V4(range) => v4.push(*range),
            IpNet::V6(range) => v6.push(*range),
        }
    }
    let v6 = Ipv6Net::aggregate(&v6).into_iter().map(|range| prefix(range.into()));
    let ports = ssh_ports(config, site).into_iter().map(number);
    vec![
        of_ranges("private_networks", SetType::Ipv4Addr, ranges(site.private.iter().map(|link| link.network))),
        of_interfaces_and_ranges("private_sources", sources.collect()),
        of_ranges("ssh_from4", SetType::Ipv4Addr, ranges(v4)),
        of_ranges("ssh_from6", SetType::Ipv6Addr, v6.collect()),
        of_ranges("ssh_ports", SetType::InetService, ports.collect()),
    ]
}

/// A set of ranges of one kind.
pub(super) fn of_ranges(name: &'static str, kind: SetType, elements: Vec<Value>) -> Set {
    Set { name, key: SetTypeValue::Single(kind), flag: SetFlag::Interval, elements }
}

/// A set of interfaces, each with a range that belongs to it.
pub(super) fn of_interfaces_and_ranges(name: &'static str, elements: Vec<Value>) -> Set {
    let key = SetTypeValue::Concatenated(vec![SetType::Ifname, SetType::Ipv4Addr].into());
    Set { name, key, flag: SetFlag::Interval, elements }
}

/// The configured ports, or those that sshd names and 22.
fn ssh_ports(config: &Config, site: &Site) -> BTreeSet<u16> {
    match &config.firewall.ssh_ports {
        Some(ports) => ports.clone(),
        None => site.sshd_ports.iter().copied().chain([22]).collect(),
    }
}

/// Where a packet goes that belongs to no flow.
fn invalid() -> Chain {
    Chain { name: "invalid", base: None, rules: vec![vec![counter(DROPPED_INVALID), drop()]] }
}

/// The first packet of a flow from a private network to the internet.
fn egress() -> Chain {
    Chain {
        name: "egress",
        base: None,
        rules: vec![
            vec![
                is_not(concat([iifname(), field("ip", "saddr")]), set("private_sources")),
                counter(DROPPED_SPOOFED),
                drop(),
            ],
            to_link_local(),
            vec![counter(EGRESS_FLOWS), accept()],
        ],
    }
}

/// The bastion's own metadata service, with its user-data, lives there.
pub(super) fn to_link_local() -> Vec<Phrase> {
    let link_local = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);
    vec![is(field("ip", "daddr"), prefix(link_local.into())), counter(DROPPED_FORWARD), drop()]
}

fn forward(public: Option<&PublicLink>, site: &Site, tunnel: Option<&Tunnel>) -> Chain {
    let ways = site.private.iter().zip(std::iter::repeat(public)).filter_map(|(link, public)| {
        Some((concat([interface(&link.interface), interface(&public?.interface)]), goto("egress")))
    });
    let through_tunnel = tunnel.into_iter().flat_map(|tunnel| tunnel::ways(tunnel, public, site));
    let ways: Vec<_> = ways.chain(through_tunnel).collect();
    let mut rules = vec![known_flows()];
    if !ways.is_empty() {
        // IPv6 is not routed at all: Hetzner's networks are IPv4 only.
        rules.push(vec![is(nfproto(), text("ipv4")), vmap(concat([iifname(), oifname()]), ways)]);
    }
    // Said aloud on top of the policy: a new chain's policy is armed only at the end of its transaction (kernel commit
    // 66293c46c931), and the counter wants a rule.
    rules.push(vec![counter(DROPPED_FORWARD), drop()]);
    Chain { name: "forward", base: Some(filter(NfHook::Forward, BEFORE_FILTER, NfChainPolicy::Drop)), rules }
}

/// What is known passes with one look-up, whatever the configuration holds.
fn known_flows() -> Vec<Phrase> {
    let states = [("established", accept()), ("related", accept()), ("invalid", goto("invalid"))];
    vec![vmap(ct_state(), states.map(|(state, verdict)| (text(state), verdict)))]
}

/// 1500 bytes outside meet 1450 inside: TCP learns it from the handshake, since ICMP is often lost.
fn clamp() -> Chain {
    let is_syn = is(and(field("tcp", "flags"), flags(["syn", "rst"])), text("syn"));
    Chain {
        name: "clamp",
        base: Some(filter(NfHook::Forward, MANGLE, NfChainPolicy::Accept)),
        rules: vec![vec![is_syn, clamp_mss_to_route()]],
    }
}

fn input(config: &Config, public: Option<&PublicLink>, site: &Site, tunnel: Option<&Tunnel>) -> Chain {
    let icmp = ["echo-request", "destination-unreachable", "time-exceeded", "parameter-problem"];
    // RFC 4890 section 4.4.1: what a host must take to work at all, and ping.
    let icmpv6 = [
        "destination-unreachable",
        "packet-too-big",
        "time-exceeded",
        "parameter-problem",
        "echo-request",
        "mld-listener-query",
        "nd-router-advert",
        "nd-neighbor-solicit",
        "nd-neighbor-advert",
    ];
    let mut rules = vec![
        known_flows(),
        vec![is(iifname(), text("lo")), accept()],
        // Answers to our own DHCP requests come from addresses that no flow knows; before the check of sources, since
        // Hetzner's 172.31.1.1 lies inside a range that a private network may have.
        vec![
            is(nfproto(), text("ipv4")),
            is(field("udp", "sport"), number(67)),
            is(field("udp", "dport"), number(68)),
            accept(),
        ],
    ];
    if let Some(public) = public.filter(|_| !site.private.is_empty()) {
        rules.push(vec![
            is(iifname(), interface(&public.interface)),
            is(field("ip", "saddr"), set("private_networks")),
            counter(DROPPED_SPOOFED),
            drop(),
        ]);
    }
    rules.extend(tunnel.into_iter().flat_map(tunnel::input));
    rules.extend([
        vec![is(field("ip", "saddr"), set("ssh_from4")), is(field("tcp", "dport"), set("ssh_ports")), accept()],
        vec![is(field("ip6", "saddr"), set("ssh_from6")), is(field("tcp", "dport"), set("ssh_ports")), accept()],
        vec![is(field("icmp", "type"), anonymous_set(icmp.map(text))), accept()],
        vec![is(field("icmpv6", "type"), anonymous_set(icmpv6.map(text))), accept()],
        vec![
            is(field("ip6", "saddr"), prefix(link_local_v6())),
            is(field("udp", "sport"), number(547)),
            is(field("udp", "dport"), number(546)),
            accept(),
        ],
    ]);
    if let Some(port) = config.firewall.wireguard_port {
        rules.push(vec![is(field("udp", "dport"), number(port)), accept()]);
    }
    rules.push(vec![counter(DROPPED_INPUT), drop()]);
    Chain { name: "input", base: Some(filter(NfHook::Input, FILTER, NfChainPolicy::Drop)), rules }
}

fn postrouting(config: &Config, public: Option<&PublicLink>, tunnel: Option<&Tunnel>) -> Chain {
    let random_ports = config.nat.random_ports;
    let masquerading = |public: &PublicLink| {
        vec![
            is(oifname(), interface(&public.interface)),
            is(field("ip", "saddr"), set("private_networks")),
            masquerade(random_ports),
        ]
    };
    let of_tunnel = tunnel.into_iter().flat_map(|tunnel| tunnel::postrouting(tunnel, public, random_ports));
    Chain {
        name: "postrouting",
        base: Some(Base {
            kind: NfChainType::NAT,
            hook: NfHook::Postrouting,
            priority: SRCNAT,
            policy: NfChainPolicy::Accept,
        }),
        rules: public.into_iter().map(masquerading).chain(of_tunnel).collect(),
    }
}

fn filter(hook: NfHook, priority: i32, policy: NfChainPolicy) -> Base {
    Base { kind: NfChainType::Filter, hook, priority, policy }
}

fn link_local_v6() -> IpNet {
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}
