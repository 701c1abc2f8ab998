//! Facts about Hetzner Cloud that several modules need: reserved addresses, limits, ranges that no gateway routes.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The most routes that one Hetzner Network holds (Hetzner documentation, "Networks", limits).
pub(crate) const MAX_ROUTES: usize = 100;
/// Networks that one server can be attached to (Hetzner API documentation, "Attach a Server to a Network").
pub(crate) const MAX_NETWORKS: usize = 3;

/// The largest packet in bytes that Hetzner's private networks carry (Hetzner documentation, "Networks", FAQ).
pub(crate) const NETWORK_MTU: u32 = 1450;
/// The largest packet in bytes to and from a dedicated server behind a vSwitch (Hetzner documentation, "vSwitch").
pub(crate) const VSWITCH_MTU: u32 = 1400;

/// The gateway of Hetzner's public links. The API refuses routes that contain it.
pub(crate) const PUBLIC_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);

/// Hetzner's resolvers, which DHCP gives to every server (Hetzner documentation, "Recursive Name Servers").
pub(crate) const RESOLVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(185, 12, 64, 1), Ipv4Addr::new(185, 12, 64, 2)];

/// Hetzner's metadata service. It serves the server's user-data, so private hosts must not reach it through the
/// gateway.
pub(crate) const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The link-local network (RFC 3927) that contains the metadata service. It is never forwarded.
pub(crate) const METADATA_NETWORK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16);

/// Ranges that are not routed on the internet: "this network", private (RFC 1918), carrier-grade NAT (RFC 6598),
/// loopback, link-local, IETF protocol assignments, benchmarks (RFC 2544), multicast and reserved (RFC 6890 and its
/// registry). The three documentation ranges are left out: test networks use them as their internet.
const UNROUTABLE: [Ipv4Net; 10] = [
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    METADATA_NETWORK,
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// The ranges that are unroutable through a public link with these addresses. Behind another NAT gateway the link's own
/// address is in one of the ranges, which is then left out, because the way to the internet leads through it. The
/// link-local range always stays: a link may have a link-local address too, and the metadata service is in this range.
pub fn unroutable<'a>(public: impl IntoIterator<Item = &'a Ipv4Addr>) -> Vec<Ipv4Net> {
    let mut ranges = UNROUTABLE.to_vec();
    for address in public {
        ranges.retain(|range| *range == METADATA_NETWORK || !range.contains(address));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_public_address_is_routable_unless_it_is_link_local() {
        let without = |addresses: &[[u8; 4]]| {
            let kept = unroutable(&addresses.iter().copied().map(Ipv4Addr::from).collect::<Vec<_>>());
            UNROUTABLE.into_iter().filter(|range| !kept.contains(range)).collect::<Vec<_>>()
        };
        assert_eq!(without(&[[198, 51, 100, 2], [169, 254, 7, 7]]), []);
        assert_eq!(without(&[[10, 5, 0, 7], [169, 254, 7, 7]]), ["10.0.0.0/8".parse().unwrap()]);
    }
}
