//! Which routes a network accepts, by the Hetzner API documentation of `add_route` and by reports about the real API.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::refusal::Refusal;
use super::resources::{Network, Route, SubnetKind};

/// Routes per network (the maintainers of hcloud-cloud-controller-manager in kube-hetzner#1477).
pub(crate) const MAX_ROUTES: usize = 100;

/// The gateway on the public side of every server, which no network may use.
pub(crate) const PUBLIC_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);

/// Checks whether the network accepts one more route.
///
/// A destination need not lie inside the network's range, and a gateway need not be a server's address
/// (terraform-provider-hcloud's acceptance test routes 10.100.1.0/24 in 10.0.0.0/16, by an address of no server).
pub(crate) fn check(network: &Network, route: &Route) -> Result<(), Refusal> {
    check_destination(route.destination)?;
    let taken = network.routes.iter().map(|other| other.destination);
    if taken
        .chain(network.subnets.iter().map(|subnet| subnet.ip_range))
        .any(|net| is_overlapping(net, route.destination))
    {
        return Err(Refusal::DestinationOverlaps(route.destination));
    }
    check_gateway(network, route.gateway)?;
    if network.routes.len() >= MAX_ROUTES {
        return Err(Refusal::TooManyRoutes);
    }
    Ok(())
}

fn check_destination(destination: Ipv4Net) -> Result<(), Refusal> {
    // What the real API does with host bits is unknown, because the official Go client masks them before it sends.
    // Refusing them finds clients that do not.
    if destination != destination.trunc() {
        return Err(Refusal::DestinationHostBits(destination));
    }
    if destination.prefix_len() == 0 {
        return Ok(());
    }
    if !is_private(destination) {
        return Err(Refusal::DestinationNotPrivate(destination));
    }
    if destination.contains(&PUBLIC_GATEWAY) {
        return Err(Refusal::DestinationCoversPublicGateway(destination));
    }
    Ok(())
}

fn check_gateway(network: &Network, gateway: Ipv4Addr) -> Result<(), Refusal> {
    if !network.ip_range.contains(&gateway) {
        return Err(Refusal::GatewayOutside { gateway, range: network.ip_range });
    }
    let behind_vswitch =
        network.subnet_of(gateway).is_some_and(|subnet| matches!(subnet.kind, SubnetKind::Vswitch { .. }));
    if gateway == network.gateway() || gateway == PUBLIC_GATEWAY || behind_vswitch {
        return Err(Refusal::GatewayReserved(gateway));
    }
    Ok(())
}

/// Whether the range is inside one of the three private ranges of RFC 1918.
pub(crate) fn is_private(net: Ipv4Net) -> bool {
    let ranges = [
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    ];
    ranges.iter().any(|range| range.contains(&net))
}

/// Whether two ranges conflict. A default route conflicts only with another default route: in kube-hetzner's networks
/// it exists together with pod routes.
pub(crate) fn is_overlapping(a: Ipv4Net, b: Ipv4Net) -> bool {
    match (a.prefix_len(), b.prefix_len()) {
        (0, 0) => true,
        (0, _) | (_, 0) => false,
        _ => a.contains(&b) || b.contains(&a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::model::samples::{network, route};

    fn verdict(network: &Network, written: &str) -> Result<(), Refusal> {
        check(network, &route(written))
    }

    #[test]
    fn private_destinations_and_the_default_are_accepted_inside_and_outside_the_range() {
        let network = network("10.0.0.0/16", &["10.0.0.0/24"]);
        for written in [
            "0.0.0.0/0 via 10.0.0.2",
            "10.100.1.0/24 via 10.0.1.1", // outside the range, and by an address in no subnet
            "10.0.128.0/17 via 10.0.0.2", // inside the range, outside the subnets
            "192.168.0.0/16 via 10.0.0.2",
            "172.16.0.0/13 via 10.0.0.2",
            "10.8.0.1/32 via 10.0.0.2",
        ] {
            assert_eq!(verdict(&network, written), Ok(()), "{written}");
        }
    }

    #[test]
    fn destinations_that_are_not_private_or_not_canonical_are_refused() {
        let network = network("10.0.0.0/16", &["10.0.0.0/24"]);
        for written in [
            "100.64.0.0/10 via 10.0.0.2",
            "203.0.113.0/24 via 10.0.0.2",
            "0.0.0.0/1 via 10.0.0.2",
            "10.0.0.0/7 via 10.0.0.2",
        ] {
            let refusal = Refusal::DestinationNotPrivate(route(written).destination);
            assert_eq!(verdict(&network, written), Err(refusal), "{written}");
        }
        let unmasked = route("10.8.0.1/24 via 10.0.0.2");
        assert_eq!(check(&network, &unmasked), Err(Refusal::DestinationHostBits(unmasked.destination)));
    }

    #[test]
    fn nothing_but_the_default_may_cover_the_public_gateway() {
        let network = network("10.0.0.0/16", &[]);
        for written in ["172.16.0.0/12 via 10.0.0.2", "172.31.1.1/32 via 10.0.0.2", "172.31.0.0/16 via 10.0.0.2"] {
            let refusal = Refusal::DestinationCoversPublicGateway(route(written).destination);
            assert_eq!(verdict(&network, written), Err(refusal), "{written}");
        }
        assert_eq!(verdict(&network, "0.0.0.0/0 via 10.0.0.2"), Ok(()));
    }

    #[test]
    fn destinations_overlap_when_they_are_equal_or_one_contains_the_other() {
        let mut network = network("10.0.0.0/16", &["10.0.1.0/24"]);
        network.routes = vec![route("10.8.0.0/24 via 10.0.1.2")];
        for written in [
            "10.8.0.0/24 via 10.0.1.2", // the same route
            "10.8.0.0/24 via 10.0.1.3",
            "10.8.0.0/25 via 10.0.1.3",
            "10.8.0.0/16 via 10.0.1.3",
            "10.0.1.0/24 via 10.0.1.3", // a subnet
            "10.0.1.128/25 via 10.0.1.3",
            "10.0.0.0/16 via 10.0.1.3",
        ] {
            let refusal = Refusal::DestinationOverlaps(route(written).destination);
            assert_eq!(verdict(&network, written), Err(refusal), "{written}");
        }
    }

    #[test]
    fn the_default_overlaps_with_another_default_only() {
        let mut network = network("10.0.0.0/16", &["10.0.1.0/24"]);
        network.routes = vec![route("10.244.0.0/24 via 10.0.1.2")];
        assert_eq!(verdict(&network, "0.0.0.0/0 via 10.0.1.2"), Ok(()));
        network.routes.push(route("0.0.0.0/0 via 10.0.1.2"));
        assert_eq!(verdict(&network, "10.245.0.0/24 via 10.0.1.2"), Ok(()));
        let second = route("0.0.0.0/0 via 10.0.1.3");
        assert_eq!(check(&network, &second), Err(Refusal::DestinationOverlaps(second.destination)));
    }

    #[test]
    fn the_gateway_is_inside_the_range_and_is_not_reserved() {
        let mut network = network("10.0.0.0/16", &["10.0.1.0/24"]);
        let gateway = |address: &str| check(&network, &route(&format!("0.0.0.0/0 via {address}")));
        let outside = |address: &str| {
            Err(Refusal::GatewayOutside { gateway: address.parse().unwrap(), range: "10.0.0.0/16".parse().unwrap() })
        };
        assert_eq!(gateway("10.1.0.2"), outside("10.1.0.2"));
        assert_eq!(gateway("172.31.1.1"), outside("172.31.1.1"));
        assert_eq!(gateway("10.0.0.1"), Err(Refusal::GatewayReserved("10.0.0.1".parse().unwrap())));
        assert_eq!(
            gateway("10.0.1.1"),
            Ok(()),
            "the first address of a subnet is free, because the network's first address is the gateway"
        );

        network.subnets[0].kind = SubnetKind::Vswitch { id: 7 };
        let behind = check(&network, &route("0.0.0.0/0 via 10.0.1.9"));
        assert_eq!(behind, Err(Refusal::GatewayReserved("10.0.1.9".parse().unwrap())));

        network.ip_range = "172.16.0.0/12".parse().unwrap();
        let public = check(&network, &route("0.0.0.0/0 via 172.31.1.1"));
        assert_eq!(public, Err(Refusal::GatewayReserved(PUBLIC_GATEWAY)));
    }

    #[test]
    fn a_network_accepts_a_hundred_routes() {
        let mut network = network("10.0.0.0/16", &[]);
        for number in 0..100 {
            let next = route(&format!("10.9.{number}.0/24 via 10.0.0.2"));
            assert_eq!(check(&network, &next), Ok(()));
            network.routes.push(next);
        }
        assert_eq!(verdict(&network, "10.10.0.0/24 via 10.0.0.2"), Err(Refusal::TooManyRoutes));
    }
}
