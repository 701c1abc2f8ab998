//! The probes of private links: their packets leave by the link to the network's gateway, and come back because the
//! network's route sends everything for the internet to this server.
//!
//! Two kinds of packets go that way. One is counted as soon as it is back: it proves link, gateway and route. The other
//! one continues like a private host's packet, to a resolver and back: it proves the whole path.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::Config;
use crate::net::{InterfaceName, overlap};
use crate::site::Site;

/// The destinations of probes, one for each link. For measurements between networks, and not routed on the internet
/// (RFC 2544, RFC 6890), so a probe that gets lost harms nobody.
pub(crate) const DESTINATIONS: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 239, 0), 24);
/// The sources under which probes of the whole path come back, one for each link.
const SOURCES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 238, 0), 24);
/// The nflog group that the rules log probes to which came back. The next one after that of dropped packets.
pub(crate) const RETURNED_GROUP: u16 = 5179;
/// The destination port of probes that end when they are back: the discard protocol's (RFC 863).
pub(crate) const RETURN_PORT: u16 = 9;
/// The destination port of probes that continue to the first target; the next targets have the next ports.
const FIRST_TARGET_PORT: u16 = 53_001;
/// How many targets probes of the whole path have.
const MAX_TARGETS: usize = 16;

/// What the probes of one private link send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkProbe {
    /// The link.
    pub interface: InterfaceName,
    /// The network behind it.
    pub network: Ipv4Net,
    /// The link's MTU in bytes.
    pub mtu: u32,
    /// The network's gateway: Hetzner's is the first address of the range.
    pub gateway: Ipv4Addr,
    /// The destination of the probes. It has a route by the gateway.
    pub destination: Ipv4Addr,
    /// The source under which probes of the whole path come back. Hetzner's gateway accepts sources outside of the
    /// network from the server that `0.0.0.0/0` leads to, and from no other one.
    pub source: Ipv4Addr,
    /// The source of probes that end when they are back: this server's own public address, for the same reason.
    pub own: Ipv4Addr,
    /// Whether this server keeps the route that brings them back. Where somebody else does, nobody can say that they
    /// should come back.
    pub keeps_route: bool,
}

/// The probes of this server's private links. None for a link whose network is no Hetzner Network, for one to which no
/// route for the whole internet is wanted, and none while there is no public address.
pub(crate) fn link_probes(config: &Config, site: &Site) -> Vec<LinkProbe> {
    let Some(own) = site.own_address().filter(|_| config.health.enabled) else { return Vec::new() };
    let in_use = |range: &Ipv4Net| site.private.iter().any(|link| overlap(link.network, *range));
    if [DESTINATIONS, SOURCES].iter().any(in_use) {
        return Vec::new();
    }
    let is_wanted = |address: Ipv4Addr| config.hcloud.destinations.iter().any(|wanted| wanted.contains(&address));
    let numbered = site.private.iter().zip(DESTINATIONS.hosts().zip(SOURCES.hosts()));
    numbered
        .filter(|(link, (destination, source))| {
            link.network_id.is_some() && [*destination, *source, own].into_iter().all(is_wanted)
        })
        .map(|(link, (destination, source))| LinkProbe {
            interface: link.interface.clone(),
            network: link.network,
            mtu: link.mtu,
            gateway: link.gateway.unwrap_or(Ipv4Addr::from_bits(link.network.network().to_bits() + 1)),
            destination,
            source,
            own,
            keeps_route: config.hcloud.enabled,
        })
        .collect()
}

/// The destination ports of probes of the whole path, and where each of them leads.
pub(crate) fn target_ports(config: &Config) -> impl Iterator<Item = (u16, std::net::SocketAddrV4)> + '_ {
    (FIRST_TARGET_PORT..).zip(config.health.targets.iter().copied().take(MAX_TARGETS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::net::NetworkId;
    use crate::site::{PrivateLink, PublicLink};

    fn site() -> Site {
        let link = |number: u8, network_id| {
            let [address, network] = ["0.2", "0.0/16"].map(|rest| format!("10.{number}.{rest}"));
            PrivateLink { network_id, ..PrivateLink::example(&format!("eth{number}"), &address, &network) }
        };
        Site {
            public: Some(PublicLink::example("eth0", &["198.51.100.2"])),
            private: vec![link(1, Some(NetworkId(7))), link(2, None), link(3, Some(NetworkId(9)))],
            ..Site::default()
        }
    }

    fn probes(text: &str, site: &Site) -> Vec<LinkProbe> {
        link_probes(&parse(text, &Environment::default()).unwrap(), site)
    }

    #[test]
    fn each_link_of_a_hetzner_network_has_a_probe_of_its_own() {
        let [first, third] = probes("", &site()).try_into().unwrap();
        assert_eq!((first.gateway, third.gateway), ([10, 1, 0, 1].into(), [10, 3, 0, 1].into()));
        assert_eq!((first.destination, third.destination), ([198, 19, 239, 1].into(), [198, 19, 239, 3].into()));
        assert_eq!((first.source, third.source), ([198, 19, 238, 1].into(), [198, 19, 238, 3].into()));
        assert!(first.keeps_route);
    }

    #[test]
    fn without_a_wanted_route_or_a_public_address_there_are_no_probes() {
        assert_eq!(probes("hcloud.destinations = [\"10.8.0.0/24\"]", &site()), []);
        assert_eq!(probes("health.enabled = false", &site()), []);
        assert_eq!(probes("", &Site { public: None, ..site() }), []);
        let mut overlapping = site();
        overlapping.private[1].network = "198.19.0.0/16".parse().unwrap();
        assert_eq!(probes("", &overlapping), []);
    }

    #[test]
    fn where_others_keep_the_route_nothing_is_expected() {
        let kept: Vec<bool> = probes("hcloud.enabled = false", &site()).iter().map(|probe| probe.keeps_route).collect();
        assert_eq!(kept, [false, false]);
    }
}
