//! Ranges behind private networks: pods, and clients of VPN servers. Pure.
//!
//! A Hetzner Network may have routes to other servers than this one. Its gateway then delivers packets from their
//! destinations here, and takes packets to them from here (Hetzner documentation, Networks FAQ, "packets with source
//! IPs not related to the server"). The configuration may name such ranges as well (`also`). Those that contradict what
//! this server is are left out: a cloud's route must not take an address away from anything else.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::model::{PrivateLink, Site};
use crate::config::Config;
use crate::hetzner::{MAX_ROUTES, PUBLIC_GATEWAY};
use crate::net::{InterfaceName, is_private, overlap, v4};
use crate::outcome::Problem;

/// A route of a Hetzner Network to another server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OtherRoute {
    /// The range that the network sends there.
    pub destination: Ipv4Net,
    /// The private address of the server.
    pub gateway: Ipv4Addr,
}

/// For each private link, the routes of its network to other servers, as the cloud was last seen to have them.
pub type SeenOtherRoutes = BTreeMap<InterfaceName, Vec<OtherRoute>>;

/// Why a range is not served.
enum Obstacle {
    /// It is served by another part of this server: what, and where.
    Overlaps(String),
    /// The cloud sends it elsewhere although it is the tunnel's, or the configuration wants it here. The component that
    /// manages these routes reports it.
    Known,
}

/// Adds to each private link the ranges behind its network, from the configuration first. Ranges that cannot be served
/// become conflicts, those of the cloud hints.
pub fn add_ranges_behind(site: &mut Site, config: &Config, seen: &SeenOtherRoutes) {
    for index in 0..site.private.len() {
        for (key, range) in configured(config, &site.private[index]) {
            if site.private[index].ranges().any(|served| served.contains(&range)) {
                continue;
            }
            if let Some(obstacle) = obstacle(site, index, config, range) {
                let why = match obstacle {
                    Obstacle::Overlaps(what) => format!("it overlaps {what}"),
                    Obstacle::Known => "it overlaps the tunnel, or a destination of hcloud.destinations".to_owned(),
                };
                let advice = "remove it there, or write the part of it that is behind the network";
                site.conflicts.push(Problem::new(
                    "range-behind-taken",
                    format!("{key}: {range} is not served: {why}"),
                    advice,
                ));
            } else {
                add(&mut site.private[index], range);
            }
        }
    }
    for index in 0..site.private.len() {
        let routes = seen.get(&site.private[index].interface).map_or(&[][..], Vec::as_slice);
        for &OtherRoute { destination, gateway } in routes.iter().take(MAX_ROUTES) {
            let link = &site.private[index];
            let is_delivered = link.network.contains(&gateway) && !link.holds(gateway) && !link.is_local;
            // Hetzner accepts private destinations, and everything, which is not behind a network.
            if !is_delivered || !is_private(destination) || link.ranges().any(|range| range.contains(&destination)) {
                continue;
            }
            match obstacle(site, index, config, destination) {
                None => add(&mut site.private[index], destination),
                Some(Obstacle::Known) => {}
                Some(Obstacle::Overlaps(what)) => {
                    let interface = &site.private[index].interface;
                    let text = format!(
                        "the network behind {interface} sends {destination} to {gateway}, and it is not served here: \
                         it overlaps {what}"
                    );
                    let advice = "its hosts cannot use this gateway; give one of the two another range";
                    site.hints.push(Problem::new("range-behind-taken", text, advice));
                }
            }
        }
    }
}

/// Adds a range, which replaces those inside it.
fn add(link: &mut PrivateLink, range: Ipv4Net) {
    link.behind.retain(|narrower| !range.contains(narrower));
    link.behind.push(range);
    link.behind.sort_unstable();
}

/// The ranges that the configuration names for a link, each with its key.
fn configured(config: &Config, link: &PrivateLink) -> Vec<(String, Ipv4Net)> {
    let site = config.site.private.iter().enumerate().filter(|(_, private)| private.interface == link.interface);
    let site = site.flat_map(|(index, private)| {
        private.also.iter().map(move |range| (format!("site.private[{index}].also"), *range))
    });
    let policy = config.policy_of(link.network, &link.interface);
    let networks =
        policy.into_iter().flat_map(|policy| policy.also.iter().map(|range| (format!("{}.also", policy.key), *range)));
    site.chain(networks).collect()
}

/// What else on this server has addresses of a range that is to be behind the link with this index.
fn obstacle(site: &Site, index: usize, config: &Config, range: Ipv4Net) -> Option<Obstacle> {
    if range.contains(&PUBLIC_GATEWAY) {
        return Some(Obstacle::Overlaps(format!("{PUBLIC_GATEWAY}, the gateway of Hetzner's public links")));
    }
    let public = site.public.iter().flat_map(|link| link.addresses.iter().map(move |address| (address, link)));
    for (address, link) in public {
        if range.contains(address) {
            return Some(Obstacle::Overlaps(format!("{address}, an address of {}", link.interface)));
        }
    }
    for (other, link) in site.private.iter().enumerate() {
        let is_replaced = |inside: &Ipv4Net| other == index && *inside != link.network && range.contains(inside);
        if let Some(other) = link.ranges().find(|other| overlap(*other, range) && !is_replaced(other)) {
            return Some(Obstacle::Overlaps(format!("{other} on {}", link.interface)));
        }
    }
    let tunnel = config
        .wireguard
        .iter()
        .flat_map(|tunnel| tunnel.networks().chain(tunnel.remote_networks().map(|(_, range)| range)));
    let destinations = config.hcloud.destinations.iter().filter(|_| config.hcloud.enabled);
    let mut wanted = v4(tunnel).into_iter().chain(destinations.copied().filter(|range| range.prefix_len() > 0));
    if let Some(wanted) = wanted.find(|wanted| overlap(*wanted, range)) {
        let is_inside = wanted.contains(&range);
        return Some(if is_inside { Obstacle::Known } else { Obstacle::Overlaps(format!("{wanted} of the tunnel")) });
    }
    let other = site.elsewhere.iter().find(|other| overlap(**other, range));
    other.map(|other| Obstacle::Overlaps(format!("{other}, to which another interface of this server leads")))
}

/// Whether a host with this address can be behind an interface of this server, apart from the internet's.
pub(crate) fn is_reachable_inside(site: &Site, tunnel: &[IpNet], range: Ipv4Net) -> bool {
    let private = site.private.iter().flat_map(PrivateLink::ranges);
    let elsewhere = site.elsewhere.iter().copied();
    private.chain(elsewhere).chain(v4(tunnel.iter().copied())).any(|inside| overlap(inside, range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::site::PublicLink;

    fn link(interface: &str, address: &str, network: &str) -> PrivateLink {
        PrivateLink {
            aliases: ["10.0.0.3".parse().unwrap()].into(),
            ..PrivateLink::example(interface, address, network)
        }
    }

    /// What is served behind `eth1`, the conflicts and the hints.
    fn behind(config: &str, routes: &[(&str, &str)]) -> (Vec<String>, Vec<String>, Vec<String>) {
        let public = vec!["198.51.100.2".parse().unwrap(), "10.77.0.9".parse().unwrap()];
        let mut site = Site {
            public: Some(PublicLink { interface: "eth0".parse().unwrap(), mtu: 1500, addresses: public }),
            private: vec![link("eth1", "10.0.0.2", "10.0.0.0/16"), link("eth2", "10.2.0.2", "10.2.0.0/16")],
            elsewhere: vec!["172.17.0.0/16".parse().unwrap()],
            ..Site::default()
        };
        let route = |&(destination, gateway): &(&str, &str)| OtherRoute {
            destination: destination.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
        };
        let seen = [("eth1".parse().unwrap(), routes.iter().map(route).collect())].into();
        add_ranges_behind(&mut site, &parse(config, &Environment::default()).unwrap(), &seen);
        assert_eq!(site.private[1].behind, []);
        let texts = |problems: Vec<Problem>| problems.into_iter().map(|problem| problem.what).collect();
        let served = site.private[0].behind.iter().map(ToString::to_string).collect();
        (served, texts(site.conflicts), texts(site.hints))
    }

    fn served(config: &str, routes: &[(&str, &str)]) -> Vec<String> {
        let (served, conflicts, hints) = behind(config, routes);
        assert_eq!((conflicts, hints), (Vec::new(), Vec::new()));
        served
    }

    #[test]
    fn a_route_to_another_server_of_the_network_is_served() {
        assert_eq!(
            served("", &[("10.8.0.0/24", "10.0.0.4"), ("192.168.9.0/24", "10.0.1.5")]),
            ["10.8.0.0/24", "192.168.9.0/24"]
        );
        // Routes to this server and its alias address, to a router outside the network, everything, what is no private
        // range, and a part of the network itself.
        let others = [
            ("10.8.0.0/24", "10.0.0.2"),
            ("10.9.0.0/24", "10.0.0.3"),
            ("10.10.0.0/24", "10.2.0.4"),
            ("0.0.0.0/0", "10.0.0.4"),
            ("203.0.113.0/24", "10.0.0.4"),
            ("100.64.0.0/10", "10.0.0.4"),
            ("10.0.200.0/24", "10.0.0.4"),
        ];
        assert_eq!(served("", &others), Vec::<String>::new());
    }

    #[test]
    fn what_is_something_elses_is_not_served_and_reported() {
        let routes = [
            ("10.2.128.0/17", "10.0.0.4"),
            ("10.77.0.0/16", "10.0.0.4"),
            ("10.0.0.0/8", "10.0.0.4"),
            ("172.17.0.0/24", "10.0.0.4"),
            ("172.16.0.0/12", "10.0.0.4"),
            ("10.8.0.0/24", "10.0.0.4"),
        ];
        let (served, conflicts, hints) = behind("", &routes);
        assert_eq!((served, conflicts), (vec!["10.8.0.0/24".to_owned()], Vec::new()));
        let reasons: Vec<&str> = hints.iter().filter_map(|hint| hint.split("it overlaps ").nth(1)).collect();
        assert_eq!(
            reasons,
            [
                "10.2.0.0/16 on eth2",
                "10.77.0.9, an address of eth0",
                "10.77.0.9, an address of eth0",
                "172.17.0.0/16, to which another interface of this server leads",
                "172.31.1.1, the gateway of Hetzner's public links",
            ]
        );
    }

    #[test]
    fn what_the_tunnel_or_the_configuration_wants_here_is_not_behind_the_network() {
        let config = "hcloud.destinations = [\"0.0.0.0/0\", \"10.50.0.0/16\"]\n\
                      [wireguard]\naddresses = [\"10.100.0.1/24\"]\n[[wireguard.peer]]\n\
                      public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"192.168.178.0/24\"]\n";
        let routes = [("10.100.0.0/24", "10.0.0.4"), ("10.50.0.0/16", "10.0.0.4"), ("192.168.178.0/24", "10.0.0.4")];
        assert_eq!(served(config, &routes), Vec::<String>::new());
        let (_, _, hints) = behind(config, &[("192.168.0.0/16", "10.0.0.4")]);
        assert_eq!(hints.len(), 1, "{hints:?}");
    }

    #[test]
    fn a_range_by_hand_need_not_be_private_and_a_wider_route_of_the_cloud_replaces_it() {
        let config = "[[network]]\nrange = \"10.0.0.0/16\"\nalso = [\"100.64.7.0/24\", \"10.8.0.0/24\"]";
        assert_eq!(served(config, &[]), ["10.8.0.0/24", "100.64.7.0/24"]);
        assert_eq!(served(config, &[("10.8.0.0/16", "10.0.0.4")]), ["10.8.0.0/16", "100.64.7.0/24"]);
        let (served, conflicts, _) = behind("[[network]]\nrange = \"10.0.0.0/16\"\nalso = [\"10.2.7.0/24\"]", &[]);
        assert_eq!(served, Vec::<String>::new());
        assert_eq!(conflicts, ["network[0].also: 10.2.7.0/24 is not served: it overlaps 10.2.0.0/16 on eth2"]);
    }
}
