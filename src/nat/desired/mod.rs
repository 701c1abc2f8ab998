//! The table for this server: configuration, site and tunnel in, chains and sets out. Pure.
//!
//! Some forty rules, whatever the configuration holds: everything that grows is an element of a set or a map. What belongs to
//! an established flow is decided by the first rules of a chain.

mod access;
mod drops;
mod early;
mod egress;
mod input;
mod published;
mod translate;
mod tunnel;

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use super::element::ranges;
use super::model::{BaseChain, Chain, FLOWTABLE, Meter, Name, Ruleset, Set, fields};
use super::statement::{
    RuleStatement, Value, accept, and, any_of, clamp_mss_to_route, concat, ct_state, eq, field, flags, goto, iifname,
    interface, nfproto, offload, oifname, text, vmap,
};
use crate::config::Config;
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::site::Site;
use drops::{Reason, drop_as};

pub(super) use tunnel::describe as describe_tunnel;

/// nft's `raw`: before connection tracking.
const RAW: i32 = -300;
/// nft's `filter`.
const FILTER: i32 = 0;
/// nft's `filter - 5`: before the chains that Docker, ufw and iptables register at 0, whatever was loaded last.
const BEFORE_FILTER: i32 = -5;

/// First packets of flows that were let out to the internet.
const EGRESS_FLOWS: &str = "egress_flows";
/// First packets of flows to private hosts by a forward or a static address.
const PUBLISHED_FLOWS: &str = "published_flows";
/// First packets of flows from one private network to another.
const TENANT_FLOWS: &str = "tenant_flows";
/// TCP packets of unknown flows from inside that were answered by a reset.
const RESET_FLOWS: &str = "reset_flows";

/// From an interface, to an interface, by a chain.
type Way = (InterfaceName, InterfaceName, Name);
/// Beyond so many ways one look-up of both names is cheaper than comparing them one after the other (measured).
const MANY_WAYS: usize = 4;

/// The rules for this server. While its public link is unknown nothing is let through, but what is established and what
/// concerns the bastion itself. `fastpath`: whether established flows take the kernel's flowtable.
pub(super) fn desired(config: &Config, site: &Site, tunnel: Option<&Tunnel>, fastpath: bool) -> Ruleset {
    let mut counters = vec![EGRESS_FLOWS, PUBLISHED_FLOWS, RESET_FLOWS, TENANT_FLOWS];
    counters.extend(Reason::ALL.map(Reason::counter));
    let mut sets =
        vec![Set::ranges("private_networks", [fields::V4], ranges(site.private.iter().map(|link| link.network)))];
    let lists = published::Lists::of(config, site);
    let (prerouting, inwards) = (published::prerouting(config, site, &lists), published::chains(config, site, &lists));
    let (egress_sets, egress_chains) = egress::sets_and_chains(config, site);
    sets.extend(early::sets(config, site, tunnel));
    sets.extend(published::sets(config, site, lists));
    sets.extend(egress_sets);
    let inside = egress::inside(site, tunnel);
    sets.extend(egress::inside_set(&inside));
    sets.extend(input::sets(config, site));
    let fastpath = if fastpath { links(site) } else { Vec::new() };
    let mut chains: Vec<Chain> = drops::chains(config.firewall.log_drops).collect();
    chains.extend(early::chains(config, site, tunnel));
    chains.extend(prerouting);
    chains.extend(egress_chains);
    chains.extend(inwards);
    if let Some(tunnel) = tunnel {
        counters.push(tunnel::FLOWS);
        sets.extend(tunnel::sets(tunnel, site));
        chains.extend([tunnel::inwards(tunnel, site.public.as_ref()), tunnel::outwards()]);
    }
    chains.push(forward(config, site, tunnel, &inside, !fastpath.is_empty()));
    chains.extend(input::chains(config, site, tunnel));
    chains.extend(egress::own_guard(config, site.public.as_ref()));
    chains.push(translate::postrouting(config, site, tunnel));
    counters.sort_unstable();
    Ruleset { counters, sets, meters: meters(config), fastpath, chains }
}

/// The links between which packets are forwarded.
fn links(site: &Site) -> Vec<InterfaceName> {
    let public = site.public.iter().map(|link| &link.interface);
    public.chain(site.private.iter().map(|link| &link.interface)).cloned().collect()
}

fn meters(config: &Config) -> Vec<Meter> {
    let (egress, firewall) = (&config.egress, &config.firewall);
    vec![
        Meter { name: "flows", limit: egress.max_flows },
        Meter { name: "new_flows", limit: egress.new_flows_per_second },
        Meter { name: "ssh_tries4", limit: firewall.ssh_attempts },
        Meter { name: "ssh_tries6", limit: firewall.ssh_attempts },
        Meter { name: "syns4", limit: firewall.syns_per_second },
        Meter { name: "syns6", limit: firewall.syns_per_second },
    ]
}

fn forward(config: &Config, site: &Site, tunnel: Option<&Tunnel>, inside: &[Ipv4Net], fastpath: bool) -> Chain {
    // 1500 bytes outside meet 1450 inside: TCP learns it from the handshake, since ICMP is often lost.
    let mut rules = vec![vec![is_syn_or_answer(), clamp_mss_to_route()]];
    rules.extend(egress::keep_inside(inside, site));
    if fastpath {
        rules.push(vec![any_of(ct_state(), text("established")), offload(FLOWTABLE)]);
    }
    rules.extend(known_flows());
    let mut ways: Vec<Way> = Vec::new();
    if let Some(public) = &site.public {
        ways.extend(egress::ways(config, site, public));
        ways.extend(published::ways(config, site, public));
        ways.extend(tunnel.into_iter().flat_map(|tunnel| tunnel::ways(tunnel, public, site)));
    }
    if !ways.is_empty() {
        // IPv6 is not routed at all: Hetzner's networks are IPv4 only.
        rules.push(vec![eq(nfproto(), text("ipv6")), drop_as(Reason::Forward)]);
    }
    if ways.len() <= MANY_WAYS {
        rules.extend(ways.into_iter().map(|(from, to, chain)| {
            vec![eq(iifname(), interface(&from)), eq(oifname(), interface(&to)), goto(chain)]
        }));
    } else {
        let ways = ways.into_iter().map(|(from, to, chain)| (concat([interface(&from), interface(&to)]), chain));
        rules.push(vec![vmap(concat([iifname(), oifname()]), ways)]);
    }
    // Said aloud on top of the policy: a new chain's policy is armed only at the end of its transaction (kernel commit
    // 66293c46c931), and the counter wants a rule.
    rules.push(vec![drop_as(Reason::Forward)]);
    Chain { name: "forward".into(), base: Some(filter(NfHook::Forward, BEFORE_FILTER, NfChainPolicy::Drop)), rules }
}

/// What is known passes, whatever the configuration holds. Two rules, not a map of verdicts: that costs more (measured).
fn known_flows() -> [Vec<RuleStatement>; 2] {
    let known = Value::List(["established", "related"].map(text).into());
    [vec![any_of(ct_state(), known), accept()], vec![any_of(ct_state(), text("invalid")), drop_as(Reason::Invalid)]]
}

/// `SYN` or `SYN+ACK`.
fn is_syn_or_answer() -> RuleStatement {
    eq(and(field("tcp", "flags"), flags(["syn", "rst"])), text("syn"))
}

fn filter(hook: NfHook, priority: i32, policy: NfChainPolicy) -> BaseChain {
    BaseChain { kind: NfChainType::Filter, hook, priority, policy }
}

fn nat(hook: NfHook, priority: i32) -> BaseChain {
    BaseChain { kind: NfChainType::NAT, hook, priority, policy: NfChainPolicy::Accept }
}
