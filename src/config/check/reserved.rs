//! Address blocks that no host of a private network and no peer can use.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::hetzner::{METADATA_ADDRESS, PUBLIC_GATEWAY, RESOLVERS};
use crate::net::overlap;

/// "This network", loopback, link-local (with the metadata service), multicast (RFC 6890).
const RESERVED_BLOCKS: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
];

/// Class E and the broadcast address (RFC 1112 section 4, RFC 919 section 7). Not in [`RESERVED_BLOCKS`]: some private
/// networks use class E.
const CLASS_E: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4);

/// The reserved block that `network` overlaps. `0.0.0.0/0` overlaps all of them.
pub(super) fn reserved_block(network: Ipv4Net) -> Option<Ipv4Net> {
    RESERVED_BLOCKS.into_iter().find(|&block| overlap(block, network))
}

/// The reserved block that contains `address`, class E included.
pub(super) fn reserved_block_of_host(address: Ipv4Addr) -> Option<Ipv4Net> {
    reserved_block(address.into()).or_else(|| CLASS_E.contains(&address).then_some(CLASS_E))
}

/// An address that every Hetzner server needs, if `range` contains one: then it would lead into the tunnel. Everything
/// (`0.0.0.0/0`) gets no route, so it does no harm.
pub(super) fn needed_address(range: IpNet) -> Option<String> {
    let needed = [
        (PUBLIC_GATEWAY, "the gateway of Hetzner's public links"),
        (METADATA_ADDRESS, "Hetzner's metadata service"),
        (RESOLVERS[0], "a resolver of Hetzner's"),
        (RESOLVERS[1], "a resolver of Hetzner's"),
    ];
    let (address, what) = needed.into_iter().find(|(address, _)| range.contains(&IpAddr::V4(*address)))?;
    (range.prefix_len() > 0).then(|| format!("{address}, {what}"))
}

/// The reserved block that a peer's `allowed_ip` overlaps. `0.0.0.0/0` is allowed there: it means "everything".
pub(super) fn reserved_block_of_peer(allowed_ip: IpNet) -> Option<IpNet> {
    match allowed_ip {
        IpNet::V4(net) if net.prefix_len() > 0 => reserved_block(net).map(IpNet::V4),
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}
