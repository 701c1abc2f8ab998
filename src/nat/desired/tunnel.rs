//! The tunnel's part of the rules: what peers may reach, and who may reach them.
//!
//! The data plane accepts a packet only from the peer whose allowed-ips contain its source. The rules check sources
//! once more, against all ranges of the tunnel together: they also hold for a tunnel that another program sets up on
//! that interface.

use ipnet::Ipv4Net;
use nftables::types::{NfChainPolicy, NfHook};

use super::super::element::{Element, FieldValue, ranges, ranges6};
use super::super::model::{Chain, Rule, Set, TUNNEL_ARRIVED, TUNNEL_PASSED, fields};
use super::super::statement::{
    accept, concat, counter, eq, field, goto, interface, masquerade, number, oifname, prefix, set,
};
use super::access::{ALLOWED, PeerLists};
use super::admission::admit_inside;
use super::drops::{DropReason, drop_as};
use super::feature::{Feature, ForwardPath, Section, Slot};
use super::ssh::is_to_ssh;
use super::{Scope, answer_unknown_flows, comes_in_by, filter};
use crate::config::Config;
use crate::hetzner::METADATA_NETWORK;
use crate::inputs::{Access, Tunnel, access};
use crate::net::{InterfaceName, v4, v6};
use crate::site::{PublicLink, Site};

/// Before the chains of other programs for packets to this server, whose first usual priority is -300 (`raw`), and
/// after them: the last usual one is 100 (`srcnat`).
const FIRST: i32 = -400;
const LAST: i32 = 300;
/// First packets of flows between the tunnel and the private networks.
const TUNNEL_FLOWS: &str = "tunnel_flows";
/// The chain that lets them pass.
const LET_THROUGH: &str = "tunnel_let_through";

/// What no list is about.
const UNLISTED: &str = "peer_unlisted";
/// Flows from one peer to another that the lists of the first one allow.
const BETWEEN_PEERS: &str = "peer_to_peer";

/// Peers reach private networks, and the internet if they may; private networks reach the ranges behind peers.
pub(super) fn feature(tunnel: &Tunnel, scope: Scope<'_>) -> Feature {
    let Scope { config, site, .. } = scope;
    // Peers log in whatever `firewall.ssh_from` says: their keys have proven who they are.
    let access = access(config, site, tunnel);
    let public = site.public.as_ref();
    let lists = access.as_ref().map(|access| PeerLists::new(access, public.map(|public| &public.interface)));
    let refused = lists.iter().flat_map(|lists| lists.rules_for_ssh(&tunnel.interface));
    let mut rules: Vec<(Slot, Rule)> = refused.map(|rule| (Slot::InputTunnel, rule)).collect();
    rules.push((Slot::InputTunnel, vec![comes_in_by(&tunnel.interface), is_to_ssh(), accept()]));
    if !tunnel.masqueraded.is_empty() {
        rules.push((Slot::SourceNatTunnel, masquerade_rule(config.nat.random_ports)));
    }
    let mut chains = vec![let_through_chain(scope)];
    chains.extend(lists.iter().flat_map(|lists| lists_chains(lists, tunnel, public)));
    chains.push(from_tunnel_chain(tunnel, public, lists.as_ref()));
    chains.push(to_tunnel_chain(lists.as_ref()));
    let mut paths = public.map(|public| paths(tunnel, public, site)).unwrap_or_default();
    if public.is_some() && access.as_ref().is_some_and(Access::has_reach) {
        let (from, to) = (tunnel.interface.clone(), tunnel.interface.clone());
        paths.push(ForwardPath { from, to, chain: "from_tunnel".into() });
    }
    let mut sets = sets(tunnel, site);
    sets.extend(lists.into_iter().flat_map(PeerLists::sets));
    Feature {
        counters: vec![TUNNEL_ARRIVED, TUNNEL_FLOWS, TUNNEL_PASSED],
        sets,
        chains: chains.into_iter().map(|chain| (Section::Tunnel, chain)).chain(port_chains(config)).collect(),
        rules,
        paths: paths.into_iter().map(|path| (Section::Tunnel, path)).collect(),
        ..Feature::default()
    }
}

fn sets(tunnel: &Tunnel, site: &Site) -> Vec<Set> {
    use fields::{INTERFACE, V4, V6};
    let behind = |link: &InterfaceName, range: Ipv4Net| {
        Element::new([FieldValue::Interface(link.clone()), FieldValue::network(range)])
    };
    let masqueraded =
        tunnel.masqueraded.iter().flat_map(|(link, sources)| sources.iter().map(move |source| behind(link, *source)));
    let behind_links = site.private.iter().flat_map(|link| link.ranges().map(|range| behind(&link.interface, range)));
    vec![
        Set::ranges("behind_links", [INTERFACE, V4], behind_links.collect()),
        Set::ranges("tunnel_masqueraded", [INTERFACE, V4], masqueraded.collect()),
        Set::ranges("tunnel_networks4", [V4], ranges(v4(tunnel.networks.iter().copied()))),
        Set::ranges("tunnel_networks6", [V6], ranges6(v6(tunnel.networks.iter().copied()))),
        Set::ranges("tunnel_sites4", [V4], ranges(v4(tunnel.remote_networks.iter().copied()))),
        Set::ranges("tunnel_sources4", [V4], ranges(v4(tunnel.sources()))),
        Set::ranges("tunnel_sources6", [V6], ranges6(v6(tunnel.sources()))),
    ]
}

/// The paths through the bastion by the tunnel without lists. There is none from one peer to another.
fn paths(tunnel: &Tunnel, public: &PublicLink, site: &Site) -> Vec<ForwardPath> {
    let own = &tunnel.interface;
    let path = |from: &InterfaceName, to: &InterfaceName, chain: &'static str| ForwardPath {
        from: from.clone(),
        to: to.clone(),
        chain: chain.into(),
    };
    let mut paths: Vec<ForwardPath> = Vec::new();
    for link in &site.private {
        paths.push(path(own, &link.interface, "from_tunnel"));
        paths.push(path(&link.interface, own, "to_tunnel"));
    }
    if tunnel.full_tunnel {
        paths.push(path(own, &public.interface, "from_tunnel"));
    }
    paths
}

/// A flow between peers and private networks, if its source has not too many.
fn let_through_chain(scope: Scope<'_>) -> Chain {
    let rules = admit_inside(scope).into_iter().chain([vec![counter(TUNNEL_FLOWS), accept()]]);
    Chain::regular(LET_THROUGH, rules.collect())
}

/// The first packet of a flow from a peer: to private networks by their own links, and to the internet like private
/// hosts, if peers may go there.
fn from_tunnel_chain(tunnel: &Tunnel, public: Option<&PublicLink>, lists: Option<&PeerLists<'_>>) -> Chain {
    let metadata = eq(field("ip", "daddr"), prefix(METADATA_NETWORK.into()));
    let mut rules = vec![vec![metadata, drop_as(DropReason::Unroutable)]];
    match lists {
        None => rules.extend(existing_ways(tunnel, public, None)),
        Some(lists) => {
            rules.extend(lists.rules_from_peers());
            rules.push(vec![goto(UNLISTED)]);
        }
    }
    Chain::regular("from_tunnel", rules)
}

/// Where flows of peers may lead at all. `to_peers`: the chain for flows to other peers; `None`: there is no way to
/// them.
fn existing_ways(tunnel: &Tunnel, public: Option<&PublicLink>, to_peers: Option<&'static str>) -> Vec<Rule> {
    // Flows between peers and private hosts are usually not translated, so one that was forgotten here continues: no
    // reset.
    let mut rules = vec![vec![eq(concat([oifname(), field("ip", "daddr")]), set("behind_links")), goto(LET_THROUGH)]];
    if let Some(public) = public.filter(|_| tunnel.full_tunnel) {
        rules.push(vec![eq(oifname(), interface(&public.interface)), goto("egress")]);
    }
    rules.extend(to_peers.map(|chain| vec![eq(oifname(), interface(&tunnel.interface)), goto(chain)]));
    rules.push(vec![drop_as(DropReason::Forward)]);
    rules
}

/// The chains of the peers' lists, and those that they go to.
fn lists_chains(lists: &PeerLists<'_>, tunnel: &Tunnel, public: Option<&PublicLink>) -> Vec<Chain> {
    let mut between = lists.rules_to_peers();
    // A peer without lists is reached by those whose lists say so.
    between.push(vec![goto(LET_THROUGH)]);
    let mut chains = vec![
        Chain::regular(BETWEEN_PEERS, between),
        Chain::regular(ALLOWED, existing_ways(tunnel, public, Some(BETWEEN_PEERS))),
        Chain::regular(UNLISTED, existing_ways(tunnel, public, None)),
    ];
    chains.extend(lists.chains(LET_THROUGH, UNLISTED));
    chains
}

/// The first packet of a flow from a private network: to the ranges behind peers, not to people's devices.
fn to_tunnel_chain(lists: Option<&PeerLists<'_>>) -> Chain {
    let is_remote = eq(field("ip", "daddr"), set("tunnel_sites4"));
    let mut rules = lists.map(PeerLists::rules_to_peers).unwrap_or_default();
    rules.extend([vec![is_remote, goto(LET_THROUGH)], answer_unknown_flows(), vec![drop_as(DropReason::Forward)]]);
    Chain::regular("to_tunnel", rules)
}

/// Sources that private networks have no return route to are masqueraded towards private hosts.
fn masquerade_rule(random_ports: bool) -> Rule {
    vec![eq(concat([oifname(), field("ip", "saddr")]), set("tunnel_masqueraded")), masquerade(random_ports)]
}

/// Two chains that count packets for the tunnel's port, before and after all others for packets to this server: what
/// comes in and does not get through, some chain has dropped, of whatever program. Forwarded packets do not pass them.
fn port_chains(config: &Config) -> Vec<(Section, Chain)> {
    let Some(wireguard) = &config.wireguard else { return Vec::new() };
    let chain = |name: &'static str, priority: i32, count: &'static str| {
        let rule = vec![eq(field("udp", "dport"), number(wireguard.listen_port)), counter(count)];
        let base = filter(NfHook::Input, priority, NfChainPolicy::Accept);
        (Section::TunnelPort, Chain::base(name, base, vec![rule]))
    };
    vec![chain("tunnel_arrives", FIRST, TUNNEL_ARRIVED), chain("tunnel_passes", LAST, TUNNEL_PASSED)]
}

/// The tunnel's part of the status line.
pub(in super::super) fn describe(tunnel: &Tunnel) -> String {
    let list = |ranges: &[Ipv4Net]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let networks = list(&v4(tunnel.networks.iter().copied()));
    let networks = if networks.is_empty() { "peers".to_owned() } else { networks };
    let masqueraded = tunnel.masqueraded.iter().map(|(link, ranges)| {
        let more = if ranges.len() > 3 { format!(" and {} more", ranges.len() - 3) } else { String::new() };
        format!("; {}{more} masqueraded on {link}", list(&ranges[..ranges.len().min(3)]))
    });
    format!("; {networks} in by {}{}", tunnel.interface, masqueraded.collect::<String>())
}
