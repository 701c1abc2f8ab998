//! What other components need to know about the tunnel: its interface, and the source addresses of its packets.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::overlap;
use crate::config::{Config, Snat, Wireguard};
use crate::net::{InterfaceName, v4, without_nested};
use crate::outcome::Problem;
use crate::site::Site;

/// Bytes that WireGuard adds to a packet: an IPv6 header (40), a UDP header (8), WireGuard's header (16) and its tag
/// (16) (WireGuard's paper, section 5.4.6). Over IPv4 it is 20 bytes less, but a peer may use either.
const OVERHEAD: u32 = 80;
/// MTU of Hetzner's public links in bytes, used while this server's is not known.
const USUAL_PUBLIC_MTU: u32 = 1500;
/// The packet size in bytes that every host must be able to receive (RFC 791 section 3.1).
const SMALLEST_MTU: u32 = 576;

/// The tunnel on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The name of the tunnel's interface.
    pub interface: InterfaceName,
    /// Largest IP packet inside the tunnel, in bytes.
    pub mtu: u32,
    /// The bastion's own addresses in the tunnel.
    pub addresses: Vec<IpNet>,
    /// The networks of these addresses, where people and devices are.
    pub networks: Vec<IpNet>,
    /// The ranges behind peers (sites): allowed-ips outside `networks`.
    pub remote_networks: Vec<IpNet>,
    /// Whether peers reach the internet through the bastion.
    pub full_tunnel: bool,
    /// Whether `remote_networks` are routed into the tunnel, and the cloud's networks have return routes.
    pub routes: bool,
    /// By private link: the sources that are masqueraded there, because its hosts could not answer them.
    pub masqueraded: BTreeMap<InterfaceName, Vec<Ipv4Net>>,
    /// Parts of the configuration that this server cannot carry out as written.
    #[serde(skip)]
    pub problems: Vec<Problem>,
}

/// For each private link, the ranges for which its cloud network has a route to this server, besides `0.0.0.0/0`: hosts
/// there can answer sources in these ranges.
pub type SeenReturnRoutes = BTreeMap<InterfaceName, Vec<Ipv4Net>>;

/// The tunnel that the configuration wants. `None` if it wants none, or if the interface name is that of another link
/// of this server (see `interface_taken`): rules for the tunnel would then apply to that link.
pub fn tunnel(config: &Config, site: &Site, seen_return_routes: &SeenReturnRoutes) -> Option<Tunnel> {
    let wanted = config.wireguard.as_ref().filter(|wanted| interface_taken(wanted, site).is_none())?;
    let public_mtu = site.public.as_ref().map_or(USUAL_PUBLIC_MTU, |link| link.mtu);
    let mut problems = Vec::new();
    let mut addresses = wanted.addresses.clone();
    addresses.retain(|address| {
        let problem = overlap::of_address(*address, site);
        problems.extend(problem.clone());
        problem.is_none()
    });
    let mut networks: Vec<IpNet> = Vec::new();
    for network in addresses.iter().map(IpNet::trunc) {
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    let mut remote_networks: Vec<IpNet> = Vec::new();
    for (peer, range) in wanted.remote_networks() {
        match overlap::of_range(range, peer, site) {
            Some(problem) => problems.push(problem),
            None => remote_networks.push(range),
        }
    }
    let remote_networks = without_nested(remote_networks);
    // What somebody else routes is answered as somebody else routes it; for the tunnel's own networks nobody does.
    let translated = routed(&networks, if wanted.routes { &remote_networks } else { &[] });
    let masqueraded = masqueraded(wanted.snat, &translated, site, seen_return_routes);
    Some(Tunnel {
        interface: wanted.interface.clone(),
        mtu: wanted.mtu.unwrap_or_else(|| public_mtu.saturating_sub(OVERHEAD).max(SMALLEST_MTU)),
        addresses,
        networks,
        remote_networks,
        full_tunnel: wanted.full_tunnel,
        routes: wanted.routes,
        masqueraded,
        problems,
    })
}

/// The IPv4 ranges whose packets reach private hosts, none inside of another.
fn routed(networks: &[IpNet], remote_networks: &[IpNet]) -> Vec<Ipv4Net> {
    Ipv4Net::aggregate(&v4(networks.iter().chain(remote_networks).copied()))
}

/// The sources that are masqueraded on each private link. Without a return route the answers of private hosts would be
/// lost, and Hetzner's gateway would drop the packets to them already, because their source is not this server's
/// (Hetzner documentation, Networks FAQ, "packets with source IPs not related to the server").
fn masqueraded(
    snat: Snat,
    routed: &[Ipv4Net],
    site: &Site,
    seen_return_routes: &SeenReturnRoutes,
) -> BTreeMap<InterfaceName, Vec<Ipv4Net>> {
    let mut masqueraded = BTreeMap::new();
    for link in &site.private {
        let routed_here = seen_return_routes.get(&link.interface).map_or(&[][..], Vec::as_slice);
        let has_return_route = |range: &Ipv4Net| routed_here.iter().any(|routed| routed.contains(range));
        let of_link: Vec<Ipv4Net> = match snat {
            Snat::Never => Vec::new(),
            Snat::Always => routed.to_vec(),
            // Guests of a bridge of this server answer to it anyway.
            Snat::Auto if link.is_local => Vec::new(),
            Snat::Auto => routed.iter().copied().filter(|range| !has_return_route(range)).collect(),
        };
        if !of_link.is_empty() {
            masqueraded.insert(link.interface.clone(), of_link);
        }
    }
    masqueraded
}

/// A problem if the tunnel's interface name is that of the public link or of a private link.
pub(crate) fn interface_taken(wanted: &Wireguard, site: &Site) -> Option<Problem> {
    let name = &wanted.interface;
    let is_public = site.public.as_ref().is_some_and(|link| link.interface == *name);
    let is_private = site.private.iter().any(|link| link.interface == *name);
    let kind = match (is_public, is_private) {
        (true, _) => "public",
        (_, true) => "private",
        (false, false) => return None,
    };
    let what = format!("{name} is this server's {kind} interface, so there is no tunnel");
    Some(Problem::new("tunnel-interface-taken", what, "give the tunnel another name in wireguard.interface"))
}

impl Tunnel {
    /// Every range that packets from the tunnel may have a source in.
    pub fn sources(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.networks.iter().chain(&self.remote_networks).copied()
    }

    /// The IPv4 ranges whose packets reach private hosts, none inside of another. A private network needs return routes
    /// for them.
    pub fn routed(&self) -> Vec<Ipv4Net> {
        routed(&self.networks, &self.remote_networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::site::{PrivateLink, PublicLink};

    const ADA: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

    fn site() -> Site {
        Site {
            public: Some(PublicLink::example("eth0", &[])),
            private: vec![PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")],
            ..Site::default()
        }
    }

    fn wanted(section: &str, allowed_ips: &str) -> Option<Tunnel> {
        with_return_routes(section, allowed_ips, &SeenReturnRoutes::new())
    }

    fn with_return_routes(section: &str, allowed_ips: &str, seen_return_routes: &SeenReturnRoutes) -> Option<Tunnel> {
        let peer = format!("[[wireguard.peer]]\npublic_key = \"{ADA}\"\nallowed_ips = {allowed_ips}");
        tunnel(
            &parse(&format!("[wireguard]\n{section}\n{peer}"), &Environment::default()).unwrap(),
            &site(),
            seen_return_routes,
        )
    }

    #[test]
    fn the_mtu_is_the_public_links_less_80_unless_it_is_written() {
        assert_eq!(wanted("", "[]").unwrap().mtu, 1420);
        assert_eq!(wanted("mtu = 1380", "[]").unwrap().mtu, 1380);
    }

    #[test]
    fn without_a_section_or_with_another_links_name_there_is_no_tunnel() {
        assert_eq!(tunnel(&parse("", &Environment::default()).unwrap(), &site(), &SeenReturnRoutes::new()), None);
        for (name, kind) in [("eth0", "public"), ("eth1", "private")] {
            let text = format!("wireguard.interface = \"{name}\"");
            let config = parse(&text, &Environment::default()).unwrap();
            assert_eq!(tunnel(&config, &site(), &SeenReturnRoutes::new()), None);
            let taken = interface_taken(config.wireguard.as_ref().unwrap(), &site()).unwrap();
            assert_eq!(taken.what, format!("{name} is this server's {kind} interface, so there is no tunnel"));
        }
    }

    #[test]
    fn a_range_that_overlaps_what_this_server_has_is_left_out_and_reported_and_the_rest_stands() {
        let mut site = site();
        site.public.as_mut().unwrap().addresses = vec!["198.51.100.2".parse().unwrap()];
        site.private[0].network_id = Some(crate::net::NetworkId(1));
        let tunnel = |addresses: &str, allowed_ips: &str, rest: &str| {
            let peer = format!(
                "[[wireguard.peer]]\npublic_key = \"{ADA}\"\nname = \"ada\"\nallowed_ips = {allowed_ips}\n{rest}"
            );
            let config =
                parse(&format!("[wireguard]\naddresses = {addresses}\n{peer}"), &Environment::default()).unwrap();
            tunnel(&config, &site, &SeenReturnRoutes::new()).unwrap()
        };
        let messages =
            |tunnel: &Tunnel| tunnel.problems.iter().map(|problem| problem.what.clone()).collect::<Vec<String>>();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let own = r#"["10.100.0.1/24"]"#;
        for (range, expected) in [
            ("10.0.0.0/15", "10.0.0.0/15 of ada's allowed_ips contains the private network 10.0.0.0/16 on eth1"),
            ("10.0.0.0/16", "10.0.0.0/16 of ada's allowed_ips contains the private network 10.0.0.0/16 on eth1"),
            ("10.0.9.0/24", "10.0.9.0/24 of ada's allowed_ips is inside the private network 10.0.0.0/16 on eth1"),
            ("10.0.1.5/32", "10.0.1.5/32 of ada's allowed_ips is inside the private network 10.0.0.0/16 on eth1"),
            ("10.0.0.2/32", "10.0.0.2/32 of ada's allowed_ips contains 10.0.0.2, this server's own address on eth1"),
            ("10.0.0.1/32", "10.0.0.1/32 of ada's allowed_ips contains 10.0.0.1, the gateway of 10.0.0.0/16"),
            (
                "198.51.100.0/24",
                "198.51.100.0/24 of ada's allowed_ips contains 198.51.100.2, this server's own address on eth0",
            ),
        ] {
            let tunnel = tunnel(own, &format!(r#"["10.100.0.2", "{range}", "192.168.1.0/24", "::/0"]"#), "");
            assert_eq!(messages(&tunnel), [expected], "{range}");
            assert_eq!(tunnel.networks, [net("10.100.0.0/24")]);
            assert_eq!(tunnel.remote_networks, [net("192.168.1.0/24")]);
        }
        // A person says that the hosts are behind the peer: then a part of a network may be, and never our own
        // addresses.
        let opted_in = |range: &str| tunnel(own, &format!(r#"["{range}"]"#), "in_private_network = true");
        assert_eq!(
            (opted_in("10.0.9.0/24").remote_networks, opted_in("10.0.9.0/24").problems),
            (vec![net("10.0.9.0/24")], vec![])
        );
        for range in ["10.0.0.0/16", "10.0.0.0/24", "10.0.0.1/32", "10.0.0.2/32"] {
            assert_eq!((opted_in(range).remote_networks, opted_in(range).problems.len()), (vec![], 1), "{range}");
        }
        let inside = tunnel(r#"["10.0.1.40/24", "10.100.0.1/24"]"#, "[]", "");
        assert_eq!(
            messages(&inside),
            ["10.0.1.0/24 of wireguard.addresses is inside the private network 10.0.0.0/16 on eth1"]
        );
        assert_eq!((inside.addresses, inside.networks), (vec![net("10.100.0.1/24")], vec![net("10.100.0.0/24")]));
    }

    #[test]
    fn snat_auto_masquerades_only_ranges_without_a_return_route() {
        let ranges = |texts: &[&str]| -> Vec<Ipv4Net> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let masqueraded = |snat: &str, seen_return_routes: &[&str]| -> Vec<Ipv4Net> {
            let section = format!("addresses = [\"10.100.0.1/24\"]\nsnat = {snat}");
            let seen_return_routes = [("eth1".parse().unwrap(), ranges(seen_return_routes))].into();
            let tunnel =
                with_return_routes(&section, "[\"10.100.0.2\", \"192.168.178.0/24\"]", &seen_return_routes).unwrap();
            tunnel.masqueraded.get(&"eth1".parse().unwrap()).cloned().unwrap_or_default()
        };
        let all = ranges(&["10.100.0.0/24", "192.168.178.0/24"]);
        let standing = ["10.100.0.0/24", "192.168.178.0/24"];
        assert_eq!(masqueraded("\"auto\"", &[]), all);
        assert_eq!(masqueraded("\"auto\"", &["10.100.0.0/16"]), ranges(&["192.168.178.0/24"]));
        assert_eq!(masqueraded("\"auto\"", &standing), []);
        assert_eq!(masqueraded("true", &standing), all);
        assert_eq!(masqueraded("false", &[]), []);
    }

    #[test]
    fn without_routes_only_the_tunnels_own_networks_are_masqueraded() {
        let section = "addresses = [\"10.100.0.1/24\"]\nroutes = false";
        let tunnel = wanted(section, "[\"10.100.0.2\", \"192.168.0.0/16\"]").unwrap();
        let own: Vec<Ipv4Net> = vec!["10.100.0.0/24".parse().unwrap()];
        assert_eq!(tunnel.masqueraded, [("eth1".parse().unwrap(), own)].into());
        assert_eq!(tunnel.remote_networks, ["192.168.0.0/16".parse::<IpNet>().unwrap()], "they may still come in");
    }
}
