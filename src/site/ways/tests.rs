//! What is made of the kernel's answers. The answers themselves are tested with a real kernel in `tests/netns/site.rs`.

use super::super::metadata::{Metadata, PrivateNetwork};
use super::super::model::PublicLink;
use super::super::observe::{DefaultRoute, Link};
use super::*;
use crate::config::{Environment, parse};
use crate::net::NetworkId;

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const TUN0: u32 = 4;
const MAIN: u32 = 254;

fn link(index: u32, name: &str, address: &str) -> Link {
    Link {
        index,
        name: name.parse().unwrap(),
        mac: None,
        mtu: 1500,
        up: true,
        addresses: vec![address.parse().unwrap()],
        has_lease: false,
    }
}

fn route(destination: &str, gateway: Option<&str>, interface: u32) -> Route {
    Route {
        kind: RouteKind::Unicast,
        destination: destination.parse().unwrap(),
        gateway: gateway.map(|text| text.parse().unwrap()),
        interface: Some(interface),
        further: Vec::new(),
        metric: 0,
        table: MAIN,
        protocol: 3,
    }
}

/// A usual bastion, with these routes besides the default one.
fn kernel(routes: &[Route]) -> Kernel {
    let links = vec![
        link(ETH0, "eth0", "198.51.100.2/32"),
        link(ETH1, "eth1", "10.0.0.2/32"),
        link(TUN0, "tun0", "10.66.0.2/24"),
    ];
    let default = route("0.0.0.0/0", Some("172.31.1.1"), ETH0);
    let routes = [default].into_iter().chain(routes.iter().cloned()).collect();
    Kernel { links, default_routes: vec![DefaultRoute { interface: ETH0, metric: 0 }], routes, ..Kernel::default() }
}

/// The routes of Hetzner's DHCP on the private link.
fn of_dhcp() -> [Route; 2] {
    [route("10.0.0.1/32", None, ETH1), route("10.0.0.0/16", Some("10.0.0.1"), ETH1)]
}

fn site() -> Site {
    Site {
        public: Some(PublicLink::example("eth0", &["198.51.100.2"])),
        private: vec![PrivateLink {
            network_id: Some(NetworkId(7)),
            ..PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")
        }],
        ..Site::default()
    }
}

fn config() -> Config {
    let forward = "[[nat.forward]]\nport = 443\nto = \"10.0.7.7\"";
    parse(forward, &Environment::default()).unwrap()
}

/// The problems, each with its advice, and the misrouted links, where `kernel` answers by its routes: the narrowest one
/// with the lowest metric, of the table with the highest number, as if rules selected the tables in that order.
fn judged(kernel: &Kernel, forwards: bool) -> (Vec<String>, Vec<String>) {
    let mut site = site();
    let ways: Vec<Way> = questions(&config(), kernel, &site, |_| forwards)
        .into_iter()
        .map(|question| {
            let covers = |route: &&Route| route.destination.contains(&question.to);
            let best = kernel
                .routes
                .iter()
                .filter(covers)
                .max_by_key(|route| (route.table, route.destination.prefix_len(), std::cmp::Reverse(route.metric)));
            let answer = match best {
                Some(Route { kind: RouteKind::Unicast, interface: Some(interface), .. }) => Answer::Leaves(*interface),
                _ => Answer::Nowhere,
            };
            Way { question, answer, route: best.cloned().filter(|_| answer != Answer::Leaves(question.interface)) }
        })
        .collect();
    judge(&ways, kernel, &MetadataView::default(), &mut site);
    let problems = site.problems.iter().map(ToString::to_string).collect();
    (problems, site.misrouted.iter().map(ToString::to_string).collect())
}

#[test]
fn a_usual_bastion_has_no_problem() {
    for forwards in [false, true] {
        assert_eq!(judged(&kernel(&of_dhcp()), forwards), (vec![], vec![]));
    }
    // A route of a part that leads to the same link, and this daemon's own one, are as intended.
    let [host, network] = of_dhcp();
    let ours = Route { protocol: crate::net::ROUTE_PROTOCOL, ..route("10.0.7.0/24", None, TUN0) };
    let more = [host, network, route("10.0.5.0/24", Some("10.0.0.1"), ETH1), ours];
    assert_eq!(judged(&kernel(&more), true), (vec![], vec![]));
}

#[test]
fn a_network_without_its_route_is_named_with_the_command_that_puts_it_back() {
    let [host, _] = of_dhcp();
    let what = "10.0.0.0/16 (network 7) is not routed out of eth1: packets to 10.0.0.3 leave by eth0 (default via \
                172.31.1.1 dev eth0): its route is gone, put it back: ip route replace 10.0.0.0/16 via 10.0.0.1 dev eth1";
    for (routes, suffix) in [(vec![host], ""), (vec![], " onlink")] {
        let (problems, misrouted) = judged(&kernel(&routes), true);
        let expected = format!("{what}{suffix}; until then no new traffic of the network is attracted");
        assert_eq!((problems, misrouted), (vec![expected], vec!["eth1".to_owned()]));
    }
}

#[test]
fn a_route_that_swallows_a_network_or_a_part_of_it_is_named() {
    let [host, network] = of_dhcp();
    let attracted = "until then no new traffic of the network is attracted";
    for (swallows, text, is_whole) in [
        (route("10.0.5.0/24", None, TUN0), "10.0.5.0/24 dev tun0", false),
        (route("10.0.7.7/32", None, TUN0), "10.0.7.7/32 dev tun0", false),
        (
            Route { kind: RouteKind::Blackhole, interface: None, ..route("10.0.5.0/24", None, 0) },
            "blackhole 10.0.5.0/24",
            false,
        ),
        (
            Route { kind: RouteKind::Throw, interface: None, ..route("10.0.5.0/24", None, 0) },
            "throw 10.0.5.0/24",
            false,
        ),
        (
            Route { kind: RouteKind::Throw, interface: None, metric: 5, ..route("10.0.0.0/17", None, 0) },
            "throw 10.0.0.0/17 metric 5",
            false,
        ),
        (Route { table: 51820, ..route("0.0.0.0/0", None, TUN0) }, "default dev tun0 table 51820", true),
    ] {
        let (problems, misrouted) = judged(&kernel(&[host.clone(), network.clone(), swallows]), false);
        assert!(problems[0].contains(text) && problems[0].contains(attracted), "{problems:?}");
        assert!(problems[0].contains(&format!("ip route del {text}")), "{problems:?}");
        assert_eq!(misrouted, if is_whole { vec!["eth1".to_owned()] } else { vec![] }, "{text}");
    }
    // Both halves together are the whole network.
    let halves = ["10.0.0.0/17", "10.0.128.0/17"].map(|half| route(half, None, TUN0));
    let (problems, misrouted) = judged(&kernel(&[host, network, halves[0].clone(), halves[1].clone()]), false);
    assert_eq!((problems.len(), misrouted), (2, vec!["eth1".to_owned()]));
}

#[test]
fn a_default_route_that_wins_over_the_public_links_is_named() {
    let [host, network] = of_dhcp();
    let winner = route("0.0.0.0/0", Some("10.0.0.1"), ETH1);
    let mut contested = kernel(&[host, network, winner]);
    contested.routes[0].metric = 100;
    let expected = "packets to the internet do not leave by eth0: they leave by eth1 (default via 10.0.0.1 dev eth1): \
                    remove the route that wins: ip route del default via 10.0.0.1 dev eth1";
    for forwards in [false, true] {
        assert_eq!(judged(&contested, forwards), (vec![expected.to_owned()], vec!["eth1".to_owned()]));
    }
    // Two halves of everything, as some VPN clients add them.
    let [host, network] = of_dhcp();
    let halves = ["0.0.0.0/1", "128.0.0.0/1"].map(|half| route(half, Some("10.66.0.1"), TUN0));
    let (problems, misrouted) = judged(&kernel(&[host, network, halves[0].clone(), halves[1].clone()]), true);
    assert_eq!(
        problems,
        ["packets to the internet do not leave by eth0: they leave by tun0 (0.0.0.0/1 via 10.66.0.1 dev \
             tun0): remove \
          the route that wins: ip route del 0.0.0.0/1 via 10.66.0.1 dev tun0; if they are to leave by tun0, set \
          site.public_interface = \"tun0\""]
    );
    assert_eq!(misrouted, ["eth1"]);
}

#[test]
fn single_destinations_may_have_routes_of_their_own() {
    let [host, network] = of_dhcp();
    let office = route("49.12.0.0/16", None, TUN0);
    assert_eq!(judged(&kernel(&[host, network, office]), true), (vec![], vec![]));
}

#[test]
fn the_gateway_is_the_one_that_the_metadata_names() {
    let listed = PrivateNetwork {
        ip: "10.0.0.2".parse().unwrap(),
        alias_ips: vec![],
        mac_address: "86:00:00:00:00:01".parse().unwrap(),
        network_id: NetworkId(7),
        network_name: None,
        network: "10.0.0.0/16".parse().unwrap(),
        gateway: Some("10.0.3.1".parse().unwrap()),
    };
    let metadata = MetadataView {
        latest: Some(Metadata { server_id: None, private_networks: vec![listed], public_ipv4: None }),
        ..MetadataView::default()
    };
    let (site, bare) = (site(), kernel(&[]));
    let command = |metadata: &MetadataView| describe::wanted_route(&site.private[0], ETH1, &bare, metadata);
    assert_eq!(command(&metadata), "10.0.0.0/16 via 10.0.3.1 dev eth1 onlink");
    assert_eq!(command(&MetadataView::default()), "10.0.0.0/16 via 10.0.0.1 dev eth1 onlink");
}
