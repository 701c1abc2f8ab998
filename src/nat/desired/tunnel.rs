//! The tunnel's part of the rules: what peers may reach, and who may reach them.
//!
//! The data plane lets a packet in only from the peer whose allowed-ips hold its source. The rules check sources once more,
//! against all ranges of the tunnel together: they also hold for a tunnel that somebody else configures on that interface.

use ipnet::Ipv4Net;

use super::super::element::{Element, FieldValue, ranges, ranges6};
use super::super::model::{Chain, Set, fields};
use super::super::statement::{
    RuleStatement, accept, concat, counter, eq, field, goto, interface, masquerade, oifname, prefix, set,
};
use super::Way;
use super::drops::{Reason, drop_as};
use super::egress::unknown_flows;
use super::input::by;
use crate::hetzner::METADATA_NETWORK;
use crate::inputs::Tunnel;
use crate::net::{v4, v6};
use crate::site::{PublicLink, Site};

/// Counts flows between the tunnel and the private networks.
pub(super) const FLOWS: &str = "tunnel_flows";

pub(super) fn sets(tunnel: &Tunnel, site: &Site) -> Vec<Set> {
    use fields::{INTERFACE, V4, V6};
    let behind = |link: &crate::net::InterfaceName, range: Ipv4Net| {
        Element::new([FieldValue::Interface(link.clone()), FieldValue::network(range)])
    };
    let masqueraded =
        tunnel.masqueraded.iter().flat_map(|(link, sources)| sources.iter().map(move |source| behind(link, *source)));
    let behind_links = site.private.iter().map(|link| behind(&link.interface, link.network));
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

/// The ways through the bastion by the tunnel. From one peer to another there is none.
pub(super) fn ways(tunnel: &Tunnel, public: &PublicLink, site: &Site) -> Vec<Way> {
    let own = || tunnel.interface.clone();
    let mut ways: Vec<Way> = Vec::new();
    for link in &site.private {
        ways.push((own(), link.interface.clone(), "from_tunnel".into()));
        ways.push((link.interface.clone(), own(), "to_tunnel".into()));
    }
    if tunnel.full_tunnel {
        ways.push((own(), public.interface.clone(), "from_tunnel".into()));
    }
    ways
}

/// The first packet of a flow from a peer: to private networks by their own links, and to the internet, as private hosts, if
/// peers may go there.
pub(super) fn inwards(tunnel: &Tunnel, public: Option<&PublicLink>) -> Chain {
    let metadata = eq(field("ip", "daddr"), prefix(METADATA_NETWORK.into()));
    // Nothing is translated between peers and private hosts as a rule: a flow that was forgotten here goes on.
    let mut rules = vec![
        vec![metadata, drop_as(Reason::Unroutable)],
        vec![eq(concat([oifname(), field("ip", "daddr")]), set("behind_links")), counter(FLOWS), accept()],
    ];
    if let Some(public) = public.filter(|_| tunnel.full_tunnel) {
        rules.push(vec![eq(oifname(), interface(&public.interface)), goto("egress")]);
    }
    rules.push(vec![drop_as(Reason::Forward)]);
    Chain::regular("from_tunnel", rules)
}

/// The first packet of a flow from a private network: to the sites behind peers, not to people's devices.
pub(super) fn outwards() -> Chain {
    let to_site = eq(field("ip", "daddr"), set("tunnel_sites4"));
    Chain::regular(
        "to_tunnel",
        vec![vec![to_site, counter(FLOWS), accept()], unknown_flows(), vec![drop_as(Reason::Forward)]],
    )
}

/// Peers may log in wherever `firewall.ssh_from` says others come from: they have proven who they are.
pub(super) fn logins(tunnel: &Tunnel) -> Vec<RuleStatement> {
    vec![by(&tunnel.interface), eq(field("tcp", "dport"), set("ssh_ports")), accept()]
}

/// What has no way back is masqueraded towards private hosts.
pub(super) fn masqueraded(tunnel: &Tunnel, random_ports: bool) -> Option<Vec<RuleStatement>> {
    let source = eq(concat([oifname(), field("ip", "saddr")]), set("tunnel_masqueraded"));
    (!tunnel.masqueraded.is_empty()).then(|| vec![source, masquerade(random_ports)])
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
