//! The table for this server: configuration, site and tunnel in, chains and sets out. Pure.
//!
//! Each feature is one value; [`desired`] composes them. There are some forty rules, whatever the configuration holds:
//! everything that grows is an element of a set or a map. The first rules of a chain decide about packets of
//! established flows.

mod access_list;
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
mod postrouting;
mod probes;
mod published;
mod services;
mod ssh;
mod translated;
mod tunnel;
mod untranslated;

use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use super::element::ranges;
use super::model::{BaseChain, Rule, Ruleset, Set, fields};
use super::statement::{
    RuleStatement, Value, accept, and, anonymous_set, any_of, ct_state, eq, field, flags, goto, iifname, interface,
    l4proto, limit_over, ne, text, update_with,
};
use crate::config::Config;
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::site::{PrivateLink, Site};
use drops::{DropReason, drop_as};
use feature::{Feature, Section};

pub(crate) use probes::{ProbedPath, probed_paths};
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

/// What the rules depend on.
#[derive(Clone, Copy)]
struct Scope<'a> {
    config: &'a Config,
    site: &'a Site,
    tunnel: Option<&'a Tunnel>,
}

/// The rules for this server. While its public link is unknown, only packets of established flows are forwarded, and
/// the bastion itself is reachable. `fastpath`: whether established flows take the kernel's flowtable.
pub(super) fn desired(config: &Config, site: &Site, tunnel: Option<&Tunnel>, fastpath: bool) -> Ruleset {
    let scope = Scope { config, site, tunnel };
    let fastpath = if fastpath { links(site) } else { Vec::new() };
    let features = [
        drops::feature(config.firewall.log_drops),
        private_networks(site),
        early::feature(scope),
        published::feature(scope),
        translated::feature(scope),
        untranslated::feature(scope),
        lateral::feature(scope),
        egress::feature(scope),
        forward::inside_guard(scope),
        ssh::feature(scope),
        services::feature(config),
        postrouting::hairpin(scope),
        postrouting::local_guests(site),
        local::feature(scope),
        link_probes::feature(scope),
        postrouting::keep_sources(scope),
        tunnel.map(|tunnel| tunnel::feature(tunnel, scope)).unwrap_or_default(),
    ];
    let mut all = Feature::merged(features);
    let shared = [
        (Section::Forward, forward::chain(&mut all, site, !fastpath.is_empty())),
        (Section::Input, input::chain(&mut all, scope)),
        (Section::Postrouting, postrouting::chain(&mut all)),
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

/// The links between which packets are forwarded.
fn links(site: &Site) -> Vec<InterfaceName> {
    let public = site.public.iter().map(|link| &link.interface);
    // Bridges come and go with their programs, and a flowtable holds on to its devices.
    let private = site.private.iter().filter(|link| !link.is_local).map(|link| &link.interface);
    public.chain(private).cloned().collect()
}

/// The bit of a flow's mark that says that its handshake is not completed, as far as the rules know. It is set on new
/// SSH connections to the bastion only, and taken away by the handshake's last packet; all other bits stay as they are.
const HANDSHAKE: u32 = 0x2000_0000;

/// Packets of known flows pass, whatever the configuration holds. Two rules, not a map of verdicts: that costs more
/// (measured).
fn known_flows() -> [Rule; 2] {
    let known = Value::List(["established", "related"].map(text).into());
    let invalid = any_of(ct_state(), text("invalid"));
    [vec![any_of(ct_state(), known), accept()], vec![invalid, drop_as(DropReason::Invalid)]]
}

/// Matches packets that come in by `name`.
fn comes_in_by(name: &InterfaceName) -> RuleStatement {
    eq(iifname(), interface(name))
}

/// Matches packets from private hosts and peers; `None` if there is neither a private link nor a tunnel.
fn comes_from_inside(scope: Scope<'_>) -> Option<RuleStatement> {
    let tunnel = scope.tunnel.map(|tunnel| &tunnel.interface);
    let links: Vec<_> = scope.site.private.iter().map(|link| &link.interface).chain(tunnel).map(interface).collect();
    (!links.is_empty()).then(|| eq(iifname(), anonymous_set(links)))
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
