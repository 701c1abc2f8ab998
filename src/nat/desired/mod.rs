//! The table for this server: configuration, site and tunnel in, chains and sets out. Pure.
//!
//! Each feature is one value; [`desired`] composes them. There are some forty rules, whatever the configuration holds:
//! everything that grows is an element of a set or a map. The first rules of a chain decide about packets of
//! established flows.

mod access;
mod access_list;
mod admission;
mod drops;
mod early;
mod egress;
mod egress_address;
mod feature;
mod forward;
mod input;
mod lateral;
mod link_probes;
mod local;
mod own_packets;
mod postrouting;
mod probes;
mod published;
mod published_source;
mod services;
mod ssh;
mod translated;
mod tunnel;
mod untracked;
mod untranslated;

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use super::element::ranges;
use super::model::{BaseChain, Chain, Rule, Ruleset, Set, fields};
use super::statement::{
    RuleStatement, Value, accept, and, anonymous_set, any_of, ct_state, destination_type, eq, field, flags, goto,
    iifname, interface, l4proto, limit_over, ne, text, update_with,
};
use crate::config::Config;
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::site::{PrivateLink, Site};
use drops::{DropReason, drop_as};
use feature::{Feature, Section};

pub(crate) use probes::{ProbedHosts, ProbedPath, is_probe_interface, probed_paths};
pub(super) use tunnel::describe as describe_tunnel;

/// nft's `raw`: before connection tracking.
const RAW: i32 = -300;
/// nft's `filter`.
const FILTER: i32 = 0;
/// nft's `filter - 5`: before the chains that Docker, ufw and iptables register at 0, whatever was loaded last.
const BEFORE_FILTER: i32 = -5;

/// Before every other program's: of all nat chains at a hook the first one that translates a flow decides, and the
/// kernel takes none at -200 (connection tracking) or below. The hooks themselves stay where they are (-100 and 100).
pub(super) const BEFORE_OTHER_NAT: i32 = -199;

/// After every other program's, and before connection tracking confirms the flow (the largest priority).
const LAST: i32 = i32::MAX - 1;

/// The types of ICMP that report an error about a flow.
const ERRORS: [&str; 3] = ["destination-unreachable", "time-exceeded", "parameter-problem"];

/// What the rules depend on besides the configuration, the site and the tunnel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Machine {
    /// Whether established flows take the kernel's flowtable.
    pub fastpath: bool,
    /// Whether another program's rules write addresses into packets, past connection tracking.
    pub foreign_rewrites: bool,
    /// The id of the user that the daemon runs as.
    pub daemon: u32,
}

impl Machine {
    /// This process' own user, without a fast path and rules of other programs.
    pub(super) fn of_this_process() -> Self {
        Self { fastpath: false, foreign_rewrites: false, daemon: nix::unistd::geteuid().as_raw() }
    }
}

/// What the rules depend on.
#[derive(Clone, Copy)]
struct Scope<'a> {
    config: &'a Config,
    site: &'a Site,
    tunnel: Option<&'a Tunnel>,
    /// What probes send, which the same rules let pass and translate.
    probes: &'a [ProbedPath],
    machine: Machine,
}

/// The rules for this server. While its public link is unknown, only packets of established flows are forwarded, and
/// the bastion itself is reachable.
pub(super) fn desired(config: &Config, site: &Site, tunnel: Option<&Tunnel>, machine: Machine) -> Ruleset {
    let probes = probed_paths(config, site);
    let scope = Scope { config, site, tunnel, probes: &probes, machine };
    // Not bridges: they come and go with their programs, and a flowtable holds on to its devices.
    let fastpath = if machine.fastpath { site.network_links().cloned().collect() } else { Vec::new() };
    let features = [
        drops::feature(config.firewall.log_drops),
        related_or_invalid(),
        private_networks(site),
        admission::feature(scope),
        early::feature(scope),
        published::feature(scope),
        translated::feature(scope),
        published_source::feature(scope),
        untranslated::feature(scope),
        lateral::feature(scope),
        egress::feature(scope),
        own_packets::feature(scope),
        forward::inside_guard(scope),
        ssh::feature(scope),
        services::feature(scope),
        postrouting::hairpin(scope),
        postrouting::local_guests(site),
        local::feature(scope),
        link_probes::feature(scope),
        postrouting::keep_sources(scope),
        tunnel.map(|tunnel| tunnel::feature(tunnel, scope)).unwrap_or_default(),
        untracked::feature(scope),
    ];
    let mut all = Feature::merged(features);
    let shared = [
        (Section::Forward, forward::chain(&mut all, site, !fastpath.is_empty())),
        (Section::Input, input::chain(&mut all, scope)),
        (Section::Postrouting, postrouting::chain(&mut all, config)),
    ];
    all.chains.extend(input::limits_chain(config).map(|chain| (Section::Input, chain)));
    all.chains.extend(shared);
    all.counters.sort_unstable();
    all.meters.sort_by_key(|meter| meter.name);
    Ruleset {
        counters: std::mem::take(&mut all.counters),
        sets: std::mem::take(&mut all.sets),
        meters: std::mem::take(&mut all.meters),
        fastpath,
        chains: all.into_chains(),
    }
}

/// The set of all private networks, which several features look into.
fn private_networks(site: &Site) -> Feature {
    let networks = ranges(site.private.iter().flat_map(PrivateLink::ranges));
    Feature { sets: vec![Set::ranges("private_networks", [fields::V4], networks)], ..Feature::default() }
}

/// The public link, the private ones, and the tunnel's interface.
fn all_links(scope: Scope<'_>) -> Vec<&InterfaceName> {
    let tunnel = scope.tunnel.map(|tunnel| &tunnel.interface);
    let public = scope.site.public.iter().map(|link| &link.interface);
    public.chain(scope.site.private.iter().map(|link| &link.interface)).chain(tunnel).collect()
}

/// The bit of a flow's mark that says that its handshake is not completed, as far as the rules know. It is set on new
/// SSH connections to the bastion only, and taken away by the handshake's last packet; all other bits stay as they are.
const HANDSHAKE: u32 = 0x2000_0000;

/// The chain for packets that belong to no flow, or are about one.
const RELATED_OR_INVALID: &str = "related_or_invalid";

/// Packets of known flows pass, whatever the configuration holds. Two rules, not a map of verdicts: that costs more
/// (measured).
fn known_flows() -> [Rule; 2] {
    let others = Value::List(["related", "invalid"].map(text).into());
    [
        vec![any_of(ct_state(), text("established")), accept()],
        vec![any_of(ct_state(), others), goto(RELATED_OR_INVALID)],
    ]
}

/// Packets about known flows pass, except for redirects: they would lead a flow of this server, or of a host behind it,
/// to the router that their sender names.
fn related_or_invalid() -> Feature {
    let redirect = |protocol, kind| vec![eq(field(protocol, "type"), text(kind)), drop_as(DropReason::Invalid)];
    let rules = vec![
        vec![any_of(ct_state(), text("invalid")), drop_as(DropReason::Invalid)],
        redirect("icmp", "redirect"),
        redirect("icmpv6", "nd-redirect"),
        vec![accept()],
    ];
    Feature { chains: vec![(Section::Related, Chain::regular(RELATED_OR_INVALID, rules))], ..Feature::default() }
}

/// Matches packets that come in by `name`.
fn comes_in_by(name: &InterfaceName) -> RuleStatement {
    eq(iifname(), interface(name))
}

/// Matches packets from private hosts and peers; `None` if there is neither a private link nor a tunnel.
fn comes_from_inside(scope: Scope<'_>) -> Option<RuleStatement> {
    inside_links(scope).map(|links| eq(iifname(), links))
}

/// The private links and the tunnel's interface, as a set; `None` if there is neither.
fn inside_links(scope: Scope<'_>) -> Option<Value> {
    let tunnel = scope.tunnel.map(|tunnel| &tunnel.interface);
    let links: Vec<_> = scope.site.private.iter().map(|link| &link.interface).chain(tunnel).map(interface).collect();
    (!links.is_empty()).then(|| anonymous_set(links))
}

/// Drops packets that open TCP flows of one source beyond the limit, whatever packet a flow begins with: connection
/// tracking takes one from the middle for a new flow as well.
fn drop_excess_syns(rate: u32, meter: &str, source: &Value) -> Rule {
    let limit = limit_over(rate, "second", rate.saturating_mul(2));
    vec![eq(l4proto(), text("tcp")), update_with(meter, source, &limit), drop_as(DropReason::Syns)]
}

/// The source address of a packet, as limits tell sources apart.
struct LimitedSource {
    protocol: &'static str,
    /// What the names of its sets end with.
    ending: &'static str,
    key: Value,
}

/// One customer's share of IPv6 (RFC 6177): an attacker has all of it.
const PREFIX_OF_ONE: &str = "ffff:ffff:ffff:ffff::";

/// For IPv4 and IPv6.
fn limited_sources() -> [LimitedSource; 2] {
    let v6 = and(field("ip6", "saddr"), text(PREFIX_OF_ONE));
    [
        LimitedSource { protocol: "ip", ending: "4", key: field("ip", "saddr") },
        LimitedSource { protocol: "ip6", ending: "6", key: v6 },
    ]
}

/// Matches packets to this server itself, by broadcast too.
fn is_for_us() -> RuleStatement {
    eq(destination_type(), anonymous_set(["local", "broadcast"].map(text)))
}

fn link_local_v6() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}

fn filter(hook: NfHook, priority: i32, policy: NfChainPolicy) -> BaseChain {
    BaseChain { kind: NfChainType::Filter, hook, priority, policy }
}

fn nat(hook: NfHook) -> BaseChain {
    BaseChain { kind: NfChainType::NAT, hook, priority: BEFORE_OTHER_NAT, policy: NfChainPolicy::Accept }
}

/// For a TCP packet that neither belongs to a flow nor opens one: the flow was forgotten here, by a reboot or a
/// time-out.
fn answer_unknown_flows() -> Rule {
    let flags = and(field("tcp", "flags"), flags(["fin", "syn", "rst", "ack"]));
    vec![ne(flags, text("syn")), goto("unknown_flow")]
}
