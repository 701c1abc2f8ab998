//! The ranges of networks and of their subnets. From the Hetzner API documentation of networks and their actions.

use ipnet::Ipv4Net;

use super::refusal::Refusal;
use super::resources::{Network, Subnet};
use super::routes::{is_overlapping, is_private};

/// Subnets per network (Hetzner documentation, networks FAQ).
pub(crate) const MAX_SUBNETS: usize = 50;

/// The prefix length of the smallest network.
const LONGEST_NETWORK_PREFIX: u8 = 24;

/// The prefix length of the smallest subnet.
const LONGEST_SUBNET_PREFIX: u8 = 30;

/// Checks the range of a network.
pub(crate) fn check_range(range: Ipv4Net) -> Result<(), Refusal> {
    check_shape(range, LONGEST_NETWORK_PREFIX)
}

/// Checks a new range of a network: it must have the same start and be larger.
pub(crate) fn check_extension(network: &Network, range: Ipv4Net) -> Result<(), Refusal> {
    check_range(range)?;
    let extended = range.network() == network.ip_range.network() && range.prefix_len() < network.ip_range.prefix_len();
    if extended { Ok(()) } else { Err(Refusal::RangeNotExtended(range)) }
}

/// Checks whether a network accepts one more subnet.
pub(crate) fn check(network: &Network, subnet: &Subnet) -> Result<(), Refusal> {
    check_shape(subnet.ip_range, LONGEST_SUBNET_PREFIX)?;
    if !network.ip_range.contains(&subnet.ip_range) {
        return Err(Refusal::SubnetOutside { subnet: subnet.ip_range, range: network.ip_range });
    }
    if used_ranges(network).any(|net| is_overlapping(net, subnet.ip_range)) {
        return Err(Refusal::SubnetOverlaps(subnet.ip_range));
    }
    if network.subnets.iter().any(|other| other.network_zone != subnet.network_zone) {
        return Err(Refusal::SubnetZone);
    }
    if network.subnets.len() >= MAX_SUBNETS {
        return Err(Refusal::TooManySubnets);
    }
    Ok(())
}

/// The range of a subnet without a given one: the first /24 that no subnet or route uses.
pub(crate) fn first_free(network: &Network) -> Result<Ipv4Net, Refusal> {
    let mut candidates = network.ip_range.subnets(LONGEST_NETWORK_PREFIX).into_iter().flatten();
    candidates
        .find(|candidate| !used_ranges(network).any(|net| is_overlapping(net, *candidate)))
        .ok_or(Refusal::NoSubnetAvailable)
}

fn used_ranges(network: &Network) -> impl Iterator<Item = Ipv4Net> {
    let routes = network.routes.iter().map(|route| route.destination);
    network.subnets.iter().map(|subnet| subnet.ip_range).chain(routes)
}

fn check_shape(range: Ipv4Net, largest_prefix: u8) -> Result<(), Refusal> {
    if range != range.trunc() {
        return Err(Refusal::RangeHostBits(range));
    }
    if !is_private(range) {
        return Err(Refusal::RangeNotPrivate(range));
    }
    if range.prefix_len() > largest_prefix {
        return Err(Refusal::RangeTooSmall { range, largest_prefix });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::model::resources::SubnetKind;
    use crate::cloud::model::samples::{network, route};

    fn net(written: &str) -> Ipv4Net {
        written.parse().unwrap()
    }

    fn subnet(range: &str) -> Subnet {
        Subnet { kind: SubnetKind::Cloud, ip_range: net(range), network_zone: "eu-central".into() }
    }

    #[test]
    fn a_network_is_private_and_at_least_a_24() {
        let too_small = Refusal::RangeTooSmall { range: net("10.0.0.0/25"), largest_prefix: 24 };
        let cases = [
            ("10.0.0.0/8", Ok(())),
            ("192.168.7.0/24", Ok(())),
            ("10.0.0.0/25", Err(too_small)),
            ("10.0.0.1/16", Err(Refusal::RangeHostBits(net("10.0.0.1/16")))),
            ("100.64.0.0/16", Err(Refusal::RangeNotPrivate(net("100.64.0.0/16")))),
            ("0.0.0.0/0", Err(Refusal::RangeNotPrivate(net("0.0.0.0/0")))),
        ];
        for (range, verdict) in cases {
            assert_eq!(check_range(net(range)), verdict, "{range}");
        }
    }

    #[test]
    fn the_range_of_a_network_can_only_be_extended_at_its_end() {
        let network = network("10.2.0.0/16", &[]);
        assert_eq!(check_extension(&network, net("10.2.0.0/15")), Ok(()));
        for range in ["10.2.0.0/16", "10.2.0.0/17", "10.0.0.0/14", "10.3.0.0/16"] {
            assert_eq!(check_extension(&network, net(range)), Err(Refusal::RangeNotExtended(net(range))), "{range}");
        }
    }

    #[test]
    fn a_subnet_is_inside_its_network_and_overlaps_with_nothing_but_the_default_route() {
        let mut network = network("10.0.0.0/16", &["10.0.1.0/24"]);
        network.routes = vec![route("10.0.8.0/24 via 10.0.1.2"), route("0.0.0.0/0 via 10.0.1.2")];
        let outside = Refusal::SubnetOutside { subnet: net("10.1.0.0/24"), range: net("10.0.0.0/16") };
        let too_small = Refusal::RangeTooSmall { range: net("10.0.2.0/31"), largest_prefix: 30 };
        let cases = [
            ("10.0.2.0/24", Ok(())),
            ("10.0.2.0/30", Ok(())),
            ("10.0.2.0/31", Err(too_small)),
            ("10.1.0.0/24", Err(outside)),
            ("10.0.1.128/25", Err(Refusal::SubnetOverlaps(net("10.0.1.128/25")))),
            ("10.0.0.0/16", Err(Refusal::SubnetOverlaps(net("10.0.0.0/16")))),
            ("10.0.8.0/25", Err(Refusal::SubnetOverlaps(net("10.0.8.0/25")))),
        ];
        for (range, verdict) in cases {
            assert_eq!(check(&network, &subnet(range)), verdict, "{range}");
        }
    }

    #[test]
    fn all_subnets_are_in_one_zone() {
        let network = network("10.0.0.0/16", &["10.0.1.0/24"]);
        let other_zone = Subnet { network_zone: "us-east".into(), ..subnet("10.0.2.0/24") };
        assert_eq!(check(&network, &other_zone), Err(Refusal::SubnetZone));
    }

    #[test]
    fn a_network_accepts_fifty_subnets() {
        let mut network = network("10.0.0.0/8", &[]);
        for number in 0..50 {
            let next = subnet(&format!("10.0.{number}.0/24"));
            assert_eq!(check(&network, &next), Ok(()));
            network.subnets.push(next);
        }
        assert_eq!(check(&network, &subnet("10.0.50.0/24")), Err(Refusal::TooManySubnets));
    }

    #[test]
    fn a_subnet_without_a_range_gets_the_first_free_24() {
        let mut network = network("10.0.0.0/22", &["10.0.0.128/25"]);
        network.routes = vec![route("10.0.1.0/26 via 10.0.0.130"), route("0.0.0.0/0 via 10.0.0.130")];
        assert_eq!(first_free(&network), Ok(net("10.0.2.0/24")));
        network.subnets.push(subnet("10.0.2.0/23"));
        assert_eq!(first_free(&network), Err(Refusal::NoSubnetAvailable));
    }
}
