//! The tunnel's part of the rules: what peers may reach, and who may reach them.
//!
//! The data plane lets a packet in only from the peer whose allowed-ips hold its source. The rules check sources once more,
//! against all ranges of the tunnel together: they also hold for a tunnel that somebody else configures on that interface.

use ipnet::Ipv4Net;
use nftables::schema::SetType;

use super::model::{
    Chain, DROPPED_FORWARD, DROPPED_SPOOFED, EGRESS_FLOWS, Set, of_interfaces_and_ranges, of_ranges, to_link_local,
};
use super::nft::{
    Phrase, Value, accept, concat, counter, drop, field, goto, iifname, interface, is, is_not, masquerade, oifname,
    prefix, ranges, ranges6, set,
};
use crate::site::{PublicLink, Site};
use crate::wireguard::model::{Tunnel, v4, v6};

/// Counts flows between the tunnel and the private networks.
pub(super) const FLOWS: &str = "tunnel_flows";

pub(super) fn sets(tunnel: &Tunnel) -> Vec<Set> {
    let masqueraded = tunnel
        .masqueraded
        .iter()
        .flat_map(|(link, sources)| sources.iter().map(|source| concat([interface(link), prefix((*source).into())])));
    vec![
        of_interfaces_and_ranges("tunnel_masqueraded", masqueraded.collect()),
        of_ranges("tunnel_networks4", SetType::Ipv4Addr, ranges(v4(tunnel.networks.iter().copied()))),
        of_ranges("tunnel_networks6", SetType::Ipv6Addr, ranges6(v6(tunnel.networks.iter().copied()))),
        of_ranges("tunnel_sites4", SetType::Ipv4Addr, ranges(v4(tunnel.sites.iter().copied()))),
        of_ranges("tunnel_sources4", SetType::Ipv4Addr, ranges(v4(tunnel.sources()))),
        of_ranges("tunnel_sources6", SetType::Ipv6Addr, ranges6(v6(tunnel.sources()))),
    ]
}

/// The ways through the bastion by the tunnel. From one peer to another there is none.
pub(super) fn ways(tunnel: &Tunnel, public: Option<&PublicLink>, site: &Site) -> Vec<(Value, Phrase)> {
    let Some(public) = public else { return Vec::new() };
    let own = || interface(&tunnel.interface);
    let mut ways = Vec::new();
    for link in &site.private {
        ways.push((concat([own(), interface(&link.interface)]), goto("from_tunnel")));
        ways.push((concat([interface(&link.interface), own()]), goto("to_tunnel")));
    }
    if tunnel.full_tunnel {
        ways.push((concat([own(), interface(&public.interface)]), goto("from_tunnel")));
    }
    ways
}

/// The first packet of a flow from a peer: to private networks by their own links, and to the internet if peers may go there.
pub(super) fn inwards(tunnel: &Tunnel, public: Option<&PublicLink>) -> Chain {
    let mut rules = vec![
        vec![is_not(field("ip", "saddr"), set("tunnel_sources4")), counter(DROPPED_SPOOFED), drop()],
        to_link_local(),
        // The set says which network is behind which link: as good for destinations as for sources.
        vec![is(concat([oifname(), field("ip", "daddr")]), set("private_sources")), counter(FLOWS), accept()],
    ];
    if let Some(public) = public.filter(|_| tunnel.full_tunnel) {
        rules.push(vec![is(oifname(), interface(&public.interface)), counter(EGRESS_FLOWS), accept()]);
    }
    rules.push(vec![counter(DROPPED_FORWARD), drop()]);
    Chain { name: "from_tunnel", base: None, rules }
}

/// The first packet of a flow from a private network: to the sites behind peers, not to people's devices.
pub(super) fn outwards() -> Chain {
    Chain {
        name: "to_tunnel",
        base: None,
        rules: vec![
            vec![
                is_not(concat([iifname(), field("ip", "saddr")]), set("private_sources")),
                counter(DROPPED_SPOOFED),
                drop(),
            ],
            vec![is(field("ip", "daddr"), set("tunnel_sites4")), counter(FLOWS), accept()],
            vec![counter(DROPPED_FORWARD), drop()],
        ],
    }
}

/// What reaches the bastion itself: a source belongs to the tunnel or to the rest of the world, and peers may log in wherever
/// `firewall.ssh_from` says others come from.
pub(super) fn input(tunnel: &Tunnel) -> Vec<Vec<Phrase>> {
    let inside = || is(iifname(), interface(&tunnel.interface));
    let outside = || is_not(iifname(), interface(&tunnel.interface));
    let spoofed = |place: Phrase, source: Phrase| vec![place, source, counter(DROPPED_SPOOFED), drop()];
    let mut rules = vec![
        spoofed(inside(), is_not(field("ip", "saddr"), set("tunnel_sources4"))),
        spoofed(inside(), is_not(field("ip6", "saddr"), set("tunnel_sources6"))),
    ];
    // Not the sites: the peer's own public address may well lie in one.
    if !v4(tunnel.networks.iter().copied()).is_empty() {
        rules.push(spoofed(outside(), is(field("ip", "saddr"), set("tunnel_networks4"))));
    }
    if !v6(tunnel.networks.iter().copied()).is_empty() {
        rules.push(spoofed(outside(), is(field("ip6", "saddr"), set("tunnel_networks6"))));
    }
    rules.push(vec![inside(), is(field("tcp", "dport"), set("ssh_ports")), accept()]);
    rules
}

pub(super) fn postrouting(tunnel: &Tunnel, public: Option<&PublicLink>, random_ports: bool) -> Vec<Vec<Phrase>> {
    let mut rules = Vec::new();
    if let Some(public) = public.filter(|_| tunnel.full_tunnel) {
        rules.push(vec![
            is(oifname(), interface(&public.interface)),
            is(field("ip", "saddr"), set("tunnel_sources4")),
            masquerade(random_ports),
        ]);
    }
    if !tunnel.masqueraded.is_empty() {
        rules.push(vec![
            is(concat([oifname(), field("ip", "saddr")]), set("tunnel_masqueraded")),
            masquerade(random_ports),
        ]);
    }
    rules
}

/// The tunnel's part of the status line.
pub(super) fn told(tunnel: &Tunnel) -> String {
    let list = |ranges: &[Ipv4Net]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let networks = list(&v4(tunnel.networks.iter().copied()));
    let networks = if networks.is_empty() { "peers".to_owned() } else { networks };
    let masqueraded = tunnel.masqueraded.iter().map(|(link, ranges)| {
        let more = if ranges.len() > 3 { format!(" and {} more", ranges.len() - 3) } else { String::new() };
        format!("; {}{more} masqueraded on {link}", list(&ranges[..ranges.len().min(3)]))
    });
    format!("; {networks} in by {}{}", tunnel.interface, masqueraded.collect::<String>())
}
