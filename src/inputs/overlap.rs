//! Ranges of the tunnel that this server already has something in. Routed into the tunnel, they would cut off what is
//! there, so they are left out and reported.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::config::Peer;
use crate::net;
use crate::outcome::Problem;
use crate::site::{PrivateLink, Site};

/// Why an address of the tunnel's interface cannot be set: the kernel would route its network into the tunnel.
pub(super) fn of_address(address: IpNet, site: &Site) -> Option<Problem> {
    let network = address.trunc();
    let reason = own_address(network, site).or_else(|| of_networks(network, site, false))?;
    Some(Problem::new(
        "tunnel-address-overlap",
        format!("{network} of wireguard.addresses {reason}"),
        format!("{} is not set; choose a network for the tunnel that nothing else uses", address.addr()),
    ))
}

/// Why a range behind a peer cannot be routed to it.
pub(super) fn of_range(range: IpNet, peer: &Peer, site: &Site) -> Option<Problem> {
    let reason = of_networks(range, site, peer.in_private_network);
    let whole = reason.as_ref().filter(|reason| reason.starts_with("contains the private network")).cloned();
    let reason = whole.or_else(|| own_address(range, site)).or_else(|| gateway(range, site)).or(reason)?;
    let advice = if reason.starts_with("is inside") {
        "nothing is routed to it through the tunnel and nothing is let in from it; write another range, or set the \
         peer's in_private_network = true if these hosts are behind it"
    } else {
        "nothing is routed to it through the tunnel and nothing is let in from it; write ranges without that"
    };
    Some(Problem::new("tunnel-range-overlap", format!("{range} of {}'s allowed_ips {reason}", peer.label()), advice))
}

/// An own address in the range.
fn own_address(range: IpNet, site: &Site) -> Option<String> {
    let public = site.public.iter().flat_map(|link| link.addresses.iter().map(|own| (*own, &link.interface)));
    let of_link = |link: &PrivateLink| std::iter::once(link.address).chain(link.aliases.clone()).collect::<Vec<_>>();
    let private = site.private.iter().flat_map(|link| of_link(link).into_iter().map(|own| (own, &link.interface)));
    let (own, interface) = public.chain(private).find(|(own, _)| contains(range, *own))?;
    Some(format!("contains {own}, this server's own address on {interface}"))
}

/// The gateway of a Hetzner Network in the range: it has the network's first address.
fn gateway(range: IpNet, site: &Site) -> Option<String> {
    let networks = site.private.iter().filter(|link| link.network_id.is_some()).map(|link| link.network);
    let mut gateways = networks.filter_map(|network| Some((network.hosts().next()?, network)));
    let (gateway, network) = gateways.find(|(gateway, _)| contains(range, *gateway))?;
    Some(format!("contains {gateway}, the gateway of {network}"))
}

/// A private network that the range overlaps. A part of one is no overlap if a person said so.
fn of_networks(range: IpNet, site: &Site, may_be_part: bool) -> Option<String> {
    let IpNet::V4(range) = range else { return None };
    let overlapping = site.private.iter().find(|link| net::overlap(link.network, range));
    let link = overlapping.filter(|link| !may_be_part || range.contains(&link.network))?;
    let verb = if range.contains(&link.network) { "contains" } else { "is inside" };
    Some(format!("{verb} the private network {} on {}", link.network, link.interface))
}

fn contains(range: IpNet, address: Ipv4Addr) -> bool {
    range.contains(&IpAddr::V4(address))
}
