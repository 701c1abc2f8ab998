//! Servers of many kinds, each with its expected site. One subject, so one file: the fixtures would otherwise be shared
//! by two.

mod laws;

use super::super::metadata::{Failure, Metadata};
use super::super::observe::DefaultRoute;
use super::*;
use crate::net::{NetworkId, ServerId};

const PRIVATE_MAC: &str = "86:00:00:2a:7d:e0";
const TENANT_MAC: &str = "86:00:00:2a:7d:e1";

/// Each link is written as `eth0 up 96:00:00:00:00:01 1500 203.0.113.10/32`; its position is its index.
fn kernel(links: &[&str], default_routes: &[(u32, u32)]) -> Kernel {
    let link = |(index, line): (usize, &&str)| {
        let mut words = line.split_whitespace();
        let mut next = || words.next().unwrap();
        Link {
            index: u32::try_from(index).unwrap() + 1,
            name: next().parse().unwrap(),
            up: next() == "up",
            mac: next().parse().ok(),
            mtu: next().parse().unwrap(),
            addresses: words.map(|address| address.parse().unwrap()).collect(),
        }
    };
    Kernel {
        bridges: std::collections::BTreeMap::new(),
        links: links.iter().enumerate().map(link).collect(),
        default_routes: default_routes.iter().map(|&(interface, metric)| DefaultRoute { interface, metric }).collect(),
        default_routes_v6: Vec::new(),
        routes: Vec::new(),
    }
}

/// A Hetzner server with a public and a private link, like most bastions.
fn usual() -> Kernel {
    kernel(
        &[
            "lo up - 65536 127.0.0.1/8",
            "eth0 up 96:00:00:00:00:01 1500 203.0.113.10/32",
            "enp7s0 up 86:00:00:2a:7d:e0 1450 10.0.0.2/32",
        ],
        &[(2, 0)],
    )
}

/// The same with a second private link, for a tenant's network.
fn with_tenant() -> Kernel {
    let mut usual = usual();
    usual.links.extend(numbered(4, &["enp8s0 up 86:00:00:2a:7d:e1 1450 10.2.0.2/32"]));
    usual
}

/// Two more uplinks, as links 5 and 6.
fn more_uplinks() -> Vec<Link> {
    numbered(5, &["eth1 up 96:00:00:00:00:02 1500 198.51.100.10/24", "ppp0 up - 1500 192.0.2.10/32"])
}

fn numbered(first: u32, lines: &[&str]) -> Vec<Link> {
    kernel(lines, &[]).links.into_iter().zip(first..).map(|(link, index)| Link { index, ..link }).collect()
}

fn production() -> PrivateNetwork {
    PrivateNetwork {
        ip: Ipv4Addr::new(10, 0, 0, 2),
        alias_ips: Vec::new(),
        mac_address: PRIVATE_MAC.parse().unwrap(),
        network_id: NetworkId(1234),
        network_name: Some("production".to_owned()),
        network: "10.0.0.0/16".parse().unwrap(),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
    }
}

fn tenant() -> PrivateNetwork {
    PrivateNetwork {
        ip: Ipv4Addr::new(10, 2, 0, 2),
        mac_address: TENANT_MAC.parse().unwrap(),
        network_id: NetworkId(1235),
        network_name: None,
        network: "10.2.0.0/16".parse().unwrap(),
        gateway: None,
        ..production()
    }
}

fn metadata(private_networks: Vec<PrivateNetwork>) -> MetadataView {
    let latest = Some(Metadata { server_id: Some(ServerId(4711)), private_networks, public_ipv4: None });
    MetadataView { latest, settled: true, ..MetadataView::default() }
}

fn no_metadata() -> MetadataView {
    let error = Some(Failure { text: "connection refused".to_owned(), is_slow: false });
    MetadataView { error, settled: true, ..MetadataView::default() }
}

/// The configuration of an empty file, with changes.
fn configured(change: impl FnOnce(&mut config::Site)) -> config::Site {
    let mut site = config::parse("", &config::Environment::default()).unwrap().site;
    change(&mut site);
    site
}

fn empty() -> config::Site {
    configured(|_| ())
}

fn configured_link(interface: &str, network: &str) -> config::PrivateLink {
    config::PrivateLink {
        interface: interface.parse().unwrap(),
        network: network.parse().unwrap(),
        address: None,
        network_id: None,
        also: Vec::new(),
    }
}

fn public(interface: &str, addresses: &[&str]) -> PublicLink {
    PublicLink {
        interface: interface.parse().unwrap(),
        mtu: 1500,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    }
}

fn production_link() -> PrivateLink {
    PrivateLink {
        interface: "enp7s0".parse().unwrap(),
        mtu: 1450,
        address: Ipv4Addr::new(10, 0, 0, 2),
        address_present: true,
        aliases: BTreeSet::new(),
        network: "10.0.0.0/16".parse().unwrap(),
        network_id: Some(NetworkId(1234)),
        network_name: Some("production".to_owned()),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        behind: Vec::new(),
        is_local: false,
    }
}

fn tenant_link() -> PrivateLink {
    PrivateLink {
        interface: "enp8s0".parse().unwrap(),
        address: Ipv4Addr::new(10, 2, 0, 2),
        network: "10.2.0.0/16".parse().unwrap(),
        network_id: Some(NetworkId(1235)),
        network_name: None,
        gateway: None,
        behind: Vec::new(),
        is_local: false,
        ..production_link()
    }
}

/// The expected site of [`usual`] without problems.
fn usual_site() -> Site {
    Site {
        server_id: Some(ServerId(4711)),
        state_of: None,
        needs_no_nat: false,
        public: Some(public("eth0", &["203.0.113.10"])),
        private: vec![production_link()],
        broadcasts: BTreeSet::new(),
        sshd_ports: BTreeSet::new(),
        hints: Vec::new(),
        conflicts: Vec::new(),
        elsewhere: Vec::new(),
        problems: Vec::new(),
        misrouted: BTreeSet::new(),
    }
}

fn usual_site_with(change: impl FnOnce(&mut Site)) -> Site {
    let mut site = usual_site();
    change(&mut site);
    site
}

fn site(config: &config::Site, kernel: &Kernel, metadata: &MetadataView) -> Site {
    resolve(config, kernel, metadata, BTreeSet::new(), None)
}

const NO_DEFAULT_ROUTE: (&str, &str) = (
    "there is no IPv4 default route, so the public interface is not known yet",
    "DHCP adds it; if there is none, name the interface in site.public_interface",
);

fn problem((what, advice): (&str, &str)) -> Problem {
    Problem::new("no-default-route", what, advice)
}

#[test]
fn an_empty_configuration_finds_everything_on_a_usual_server() {
    let ports = BTreeSet::from([22, 2222]);
    let found = resolve(&empty(), &usual(), &metadata(vec![production()]), ports.clone(), None);
    assert_eq!(found, usual_site_with(|site| site.sshd_ports = ports));
}

#[test]
fn interface_names_are_never_guessed() {
    for (public_name, private_name) in [("eth0", "ens10"), ("enp7s0", "eth0"), ("eth1", "eth0"), ("wan", "lan")] {
        let mut kernel = usual();
        kernel.links[1].name = public_name.parse().unwrap();
        kernel.links[2].name = private_name.parse().unwrap();
        let expected = usual_site_with(|site| {
            site.public = Some(public(public_name, &["203.0.113.10"]));
            site.private[0].interface = private_name.parse().unwrap();
        });
        assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), expected, "{private_name}");
    }
}

#[test]
fn the_order_of_the_metadata_and_of_the_links_does_not_matter() {
    let expected = usual_site_with(|site| site.private.push(tenant_link()));
    for networks in [vec![production(), tenant()], vec![tenant(), production()]] {
        assert_eq!(site(&empty(), &with_tenant(), &metadata(networks.clone())), expected);
        let mut kernel = with_tenant();
        kernel.links.reverse();
        assert_eq!(site(&empty(), &kernel, &metadata(networks)), expected);
    }
}

#[test]
fn alias_addresses_in_the_metadata_belong_to_the_bastion() {
    let network =
        PrivateNetwork { alias_ips: vec![Ipv4Addr::new(10, 0, 0, 9), Ipv4Addr::new(10, 0, 0, 3)], ..production() };
    let found = site(&empty(), &usual(), &metadata(vec![network]));
    let aliases = BTreeSet::from([Ipv4Addr::new(10, 0, 0, 3), Ipv4Addr::new(10, 0, 0, 9)]);
    assert_eq!(found, usual_site_with(|site| site.private[0].aliases = aliases));
    let held = [2, 3, 9, 4].map(|host| found.private[0].holds(Ipv4Addr::new(10, 0, 0, host)));
    assert_eq!(held, [true, true, true, false]);
}

#[test]
fn a_bridge_with_the_ethernet_address_of_its_link_is_not_used_instead_of_it() {
    let mut kernel = usual();
    kernel.links.push(Link {
        index: 9,
        name: "br0".parse().unwrap(),
        addresses: Vec::new(),
        ..kernel.links[2].clone()
    });
    // A default route does not change that: an interface with a private link's address leads into the private network.
    kernel.default_routes.insert(0, DefaultRoute { interface: 9, metric: 0 });
    assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), usual_site());
}

#[test]
fn a_network_without_an_interface_is_reported_and_the_others_are_served() {
    let expected = usual_site_with(|site| {
        site.problems = vec![Problem::new(
            "network-without-interface",
            "network 1235 has no interface here yet (looked for 86:00:00:2a:7d:e1)",
            "wait until Hetzner has attached it; if it does not appear, reboot the server",
        )];
    });
    assert_eq!(site(&empty(), &usual(), &metadata(vec![tenant(), production()])), expected);
}

#[test]
fn a_private_interface_that_is_down_or_lacks_its_address_is_listed_as_not_ready() {
    let expected = usual_site_with(|site| {
        site.private[0].address_present = false;
        site.problems = vec![Problem::new(
            "link-without-address",
            "enp7s0 does not have its address 10.0.0.2 yet, or is down",
            "DHCP assigns it; if it stays missing, check the server's network configuration",
        )];
    });
    let mut without = usual();
    without.links[2].addresses.clear();
    let mut another = usual();
    another.links[2].addresses = vec!["10.0.0.77/32".parse().unwrap()];
    let mut down = usual();
    down.links[2].up = false;
    for (name, kernel) in [("without", without), ("another", another), ("down", down)] {
        assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), expected, "{name}");
    }
}

#[test]
fn the_public_interface_is_that_of_the_best_default_route_that_is_not_private() {
    let kernel_with = |routes: &[(u32, u32)]| {
        let mut kernel = with_tenant();
        kernel.links.extend(more_uplinks());
        kernel.default_routes = routes.iter().map(|&(interface, metric)| DefaultRoute { interface, metric }).collect();
        kernel
    };
    let (eth0, enp7s0, enp8s0, eth1, ppp0) = (2, 3, 4, 5, 6);
    let first = ("eth0", "203.0.113.10");
    let second = ("eth1", "198.51.100.10");
    let third = ("ppp0", "192.0.2.10");
    for (routes, (interface, address)) in [
        (vec![(eth0, 0)], first),
        (vec![(eth1, 100), (eth0, 200)], second),
        (vec![(eth0, 200), (eth1, 100)], second),
        (vec![(ppp0, 5), (eth0, 5), (eth1, 5)], third),
        (vec![(enp7s0, 0), (enp8s0, 1), (eth0, 1000)], first),
        // A multi-path route whose first hop is private.
        (vec![(enp7s0, 0), (eth1, 0), (eth0, 0)], second),
        // An interface that no longer exists, or whose name is not an interface name.
        (vec![(99, 0), (eth1, 7)], second),
    ] {
        let expected = usual_site_with(|site| {
            site.public = Some(public(interface, &[address]));
            site.private.push(tenant_link());
        });
        let found = site(&empty(), &kernel_with(&routes), &metadata(vec![production(), tenant()]));
        assert_eq!(found, expected, "{routes:?}");
    }
}

#[test]
fn a_missing_default_route_is_reported() {
    for routes in [vec![], vec![DefaultRoute { interface: 99, metric: 0 }]] {
        let kernel = Kernel { default_routes: routes, ..usual() };
        let expected = usual_site_with(|site| {
            site.public = None;
            site.problems = vec![problem(NO_DEFAULT_ROUTE)];
        });
        assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), expected);
    }
}

#[test]
fn a_default_route_into_a_private_network_does_not_make_it_public() {
    let kernel = Kernel { default_routes: vec![DefaultRoute { interface: 3, metric: 0 }], ..usual() };
    let advice = "give the bastion a public interface, or name it in site.public_interface";
    let leaves =
        Problem::new("default-route-private", "the only default route uses the private interface enp7s0", advice);
    let expected = usual_site_with(|site| {
        site.public = None;
        site.problems = vec![leaves.clone()];
    });
    assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), expected);

    // The same while the private link is not served, because its address is missing.
    let mut waiting = kernel.clone();
    waiting.links[2].addresses.clear();
    let config = configured(|site| site.private = vec![configured_link("enp7s0", "10.0.0.0/16")]);
    let expected = Site {
        public: None,
        private: Vec::new(),
        problems: vec![
            Problem::new(
                "link-without-address",
                "enp7s0 has no address inside 10.0.0.0/16 yet",
                "configure one, or write the future one into site.private.address",
            ),
            leaves.clone(),
        ],
        ..usual_site()
    };
    assert_eq!(site(&config, &waiting, &metadata(Vec::new())), expected);

    // The same while only another private link is served.
    let mut both = with_tenant();
    both.default_routes = kernel.default_routes;
    let config = configured(|site| site.private = vec![configured_link("enp8s0", "10.2.0.0/16")]);
    let expected = usual_site_with(|site| {
        site.public = None;
        site.private = vec![PrivateLink { network_id: None, ..tenant_link() }];
        site.problems = vec![leaves];
    });
    assert_eq!(site(&config, &both, &metadata(vec![production(), tenant()])), expected);
}

#[test]
fn a_public_interface_without_an_address_is_reported() {
    let mut kernel = usual();
    kernel.links[1].addresses.clear();
    let expected = usual_site_with(|site| {
        site.public = Some(public("eth0", &[]));
        site.problems = vec![Problem::new(
            "no-public-address",
            "eth0 has no IPv4 address yet",
            "DHCP assigns it; until then nothing is translated",
        )];
    });
    assert_eq!(site(&empty(), &kernel, &metadata_of("203.0.113.10")), expected);
}

#[test]
fn all_addresses_of_the_public_interface_are_listed() {
    let mut kernel = usual();
    kernel.links[1].addresses.push("198.51.100.99/32".parse().unwrap());
    let expected = usual_site_with(|site| site.public = Some(public("eth0", &["203.0.113.10", "198.51.100.99"])));
    assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), expected);
}

#[test]
fn the_configuration_overrides_discovery() {
    let mut kernel = with_tenant();
    kernel.links.extend(more_uplinks());
    let config = configured(|site| {
        site.public_interface = Some("eth1".parse().unwrap());
        site.server_id = Some(ServerId(1));
        let address = Some(Ipv4Addr::new(10, 2, 0, 9));
        site.private = vec![config::PrivateLink {
            address,
            network_id: Some(NetworkId(7)),
            ..configured_link("enp8s0", "10.2.0.0/24")
        }];
    });
    let expected = Site {
        server_id: Some(ServerId(1)),
        state_of: None,
        needs_no_nat: false,
        public: Some(public("eth1", &["198.51.100.10"])),
        private: vec![PrivateLink {
            address: Ipv4Addr::new(10, 2, 0, 9),
            address_present: false,
            aliases: BTreeSet::from([Ipv4Addr::new(10, 2, 0, 2)]),
            network: "10.2.0.0/24".parse().unwrap(),
            network_id: Some(NetworkId(7)),
            ..tenant_link()
        }],
        broadcasts: BTreeSet::new(),
        sshd_ports: BTreeSet::new(),
        hints: Vec::new(),
        misrouted: BTreeSet::new(),
        conflicts: Vec::new(),
        elsewhere: Vec::new(),
        problems: vec![Problem::new(
            "link-without-address",
            "enp8s0 does not have its address 10.2.0.9 yet, or is down",
            "DHCP assigns it; if it stays missing, check the server's network configuration",
        )],
    };
    assert_eq!(site(&config, &kernel, &metadata(vec![production(), tenant()])), expected);
}

#[test]
fn a_configured_public_interface_that_is_down_is_reported() {
    let mut kernel = usual();
    kernel.links[1].up = false;
    kernel.default_routes.clear();
    let config = configured(|site| site.public_interface = Some("eth0".parse().unwrap()));
    let expected = usual_site_with(|site| {
        site.problems = vec![Problem::new(
            "public-link-down",
            "eth0 is down",
            "run `ip link set eth0 up`; until then nothing reaches the internet",
        )];
    });
    assert_eq!(site(&config, &kernel, &metadata(vec![production()])), expected);
}

#[test]
fn a_private_interface_that_is_configured_as_public_is_not_served_as_private() {
    let config = configured(|site| site.public_interface = Some("enp7s0".parse().unwrap()));
    let expected = usual_site_with(|site| {
        site.public = Some(PublicLink { mtu: 1450, ..public("enp7s0", &["10.0.0.2"]) });
        site.private = vec![tenant_link()];
        site.problems = vec![Problem::new(
            "network-not-served",
            "network 1234 is not served: enp7s0 is site.public_interface",
            "set it to the interface towards the internet, or to \"auto\"",
        )];
    });
    assert_eq!(site(&config, &with_tenant(), &metadata(vec![production(), tenant()])), expected);
}

#[test]
fn an_interface_that_does_not_exist_is_reported_with_a_list_of_those_that_do() {
    let config = configured(|site| {
        site.public_interface = Some("wan".parse().unwrap());
        site.private = vec![configured_link("ens10", "10.0.0.0/16"), configured_link("enp7s0", "10.1.0.0/16")];
        site.private[1].address = Some(Ipv4Addr::new(10, 1, 0, 2));
    });
    let advice = "the interfaces here are: eth0, enp7s0";
    let expected = Site {
        public: None,
        private: vec![PrivateLink {
            address: Ipv4Addr::new(10, 1, 0, 2),
            address_present: false,
            network: "10.1.0.0/16".parse().unwrap(),
            network_id: None,
            network_name: None,
            gateway: None,
            behind: Vec::new(),
            is_local: false,
            ..production_link()
        }],
        problems: vec![
            Problem::new("interface-missing", "site.private.interface: there is no interface ens10", advice),
            Problem::new(
                "link-without-address",
                "enp7s0 does not have its address 10.1.0.2 yet, or is down",
                "DHCP assigns it; if it stays missing, check the server's network configuration",
            ),
            Problem::new("interface-missing", "site.public_interface: there is no interface wan", advice),
        ],
        ..usual_site()
    };
    assert_eq!(site(&config, &usual(), &metadata(Vec::new())), expected);

    let only_loopback = kernel(&["lo up - 65536 127.0.0.1/8"], &[]);
    let config = configured(|site| site.public_interface = Some("eth0".parse().unwrap()));
    let problems = site(&config, &only_loopback, &metadata(vec![production()])).problems;
    let expected = Problem::new(
        "interface-missing",
        "site.public_interface: there is no interface eth0",
        "the interfaces here are: none",
    );
    assert_eq!(problems.last(), Some(&expected));
}

#[test]
fn a_dedicated_server_with_configured_links_needs_no_metadata() {
    let kernel = kernel(
        &[
            "lo up - 65536 127.0.0.1/8",
            "eno1 up aa:00:00:00:00:01 1500 203.0.113.10/26",
            "eno1.4000 up aa:00:00:00:00:01 1400 192.168.9.1/24 10.0.1.2/24 10.0.1.3/24",
        ],
        &[(2, 0)],
    );
    let config = configured(|site| site.private = vec![configured_link("eno1.4000", "10.0.0.0/16")]);
    let expected = Site {
        server_id: None,
        state_of: None,
        needs_no_nat: false,
        public: Some(public("eno1", &["203.0.113.10"])),
        private: vec![PrivateLink {
            interface: "eno1.4000".parse().unwrap(),
            mtu: 1400,
            address: Ipv4Addr::new(10, 0, 1, 2),
            aliases: BTreeSet::from([Ipv4Addr::new(10, 0, 1, 3)]),
            network_id: None,
            network_name: None,
            gateway: None,
            behind: Vec::new(),
            is_local: false,
            ..production_link()
        }],
        broadcasts: BTreeSet::new(),
        sshd_ports: BTreeSet::new(),
        hints: Vec::new(),
        conflicts: Vec::new(),
        elsewhere: Vec::new(),
        problems: Vec::new(),
        misrouted: BTreeSet::new(),
    };
    assert_eq!(site(&config, &kernel, &no_metadata()), expected);
}

#[test]
fn without_metadata_and_configured_links_the_problem_says_what_to_configure() {
    let expected = Site {
        server_id: None,
        private: Vec::new(),
        problems: vec![Problem::new(
            "metadata-silent",
            "the metadata service does not answer: connection refused",
            "on a server outside Hetzner Cloud, write the private links into [[site.private]]",
        )],
        ..usual_site()
    };
    assert_eq!(site(&empty(), &usual(), &no_metadata()), expected);
}

#[test]
fn before_the_first_answer_of_the_metadata_service_the_server_waits_for_it() {
    let problems = vec![Problem::new(
        "metadata-silent",
        "the metadata service has not answered yet",
        "wait: the first answer may take several seconds, and the networks are served once it is there",
    )];
    let expected = Site { server_id: None, private: Vec::new(), problems, ..usual_site() };
    assert_eq!(site(&empty(), &usual(), &MetadataView::default()), expected);
}

#[test]
fn the_last_answer_of_the_metadata_service_stays_valid_while_it_does_not_answer() {
    let view = MetadataView {
        error: Some(Failure { text: "timed out".to_owned(), is_slow: false }),
        ..metadata(vec![production()])
    };
    let expected = usual_site_with(|site| {
        site.problems = vec![Problem::new(
            "metadata-silent",
            "the metadata service does not answer: timed out",
            "on a server outside Hetzner Cloud, write the private links into [[site.private]]",
        )];
    });
    assert_eq!(site(&empty(), &usual(), &view), expected);
}

#[test]
fn a_server_without_a_network_gets_advice_how_to_attach_one() {
    let expected = usual_site_with(|site| {
        site.private.clear();
        site.problems = vec![Problem::new(
            "no-private-network",
            "the metadata service lists no private network of this server",
            "attach the server to a network (hcloud server attach-to-network); bastiond then finds it automatically",
        )];
    });
    assert_eq!(site(&empty(), &usual(), &metadata(Vec::new())), expected);
}

#[test]
fn of_two_overlapping_networks_only_that_of_the_first_interface_is_served() {
    let overlapping = PrivateNetwork { network: "10.0.0.0/8".parse().unwrap(), ..tenant() };
    let advice = "give the networks different ranges, or write the link to serve into [[site.private]]";
    let overlap = Problem::new(
        "networks-overlap",
        "10.0.0.0/8 on enp8s0 overlaps 10.0.0.0/16 on enp7s0, and only the latter is served",
        advice,
    );
    for networks in [vec![production(), overlapping.clone()], vec![overlapping.clone(), production()]] {
        let expected = usual_site_with(|site| site.problems = vec![overlap.clone()]);
        assert_eq!(site(&empty(), &with_tenant(), &metadata(networks)), expected);
    }

    // The link that is not served is private, too.
    let mut kernel = with_tenant();
    kernel.default_routes = vec![DefaultRoute { interface: 4, metric: 0 }];
    let expected = usual_site_with(|site| {
        site.public = None;
        site.problems = vec![
            overlap,
            Problem::new(
                "default-route-private",
                "the only default route uses the private interface enp8s0",
                "give the bastion a public interface, or name it in site.public_interface",
            ),
        ];
    });
    assert_eq!(site(&empty(), &kernel, &metadata(vec![production(), overlapping])), expected);
}

#[test]
fn a_server_without_links_gives_a_site_with_problems() {
    let expected = Site {
        problems: vec![
            Problem::new(
                "network-without-interface",
                "network 1234 has no interface here yet (looked for 86:00:00:2a:7d:e0)",
                "wait until Hetzner has attached it; if it does not appear, reboot the server",
            ),
            problem(NO_DEFAULT_ROUTE),
        ],
        server_id: Some(ServerId(4711)),
        ..Site::default()
    };
    assert_eq!(site(&empty(), &Kernel::default(), &metadata(vec![production()])), expected);
}

#[test]
fn the_public_interface_stays_the_same_while_its_default_route_is_missing() {
    let mut kernel = usual();
    kernel.default_routes.clear();
    let found = |previous: Option<&str>| {
        let previous = previous.map(|name| public(name, &["203.0.113.10"]));
        resolve(&empty(), &kernel, &metadata(vec![production()]), BTreeSet::new(), previous.as_ref())
    };
    let expected = usual_site_with(|site| site.problems = vec![problem(NO_DEFAULT_ROUTE)]);
    assert_eq!(found(Some("eth0")), expected);
    let unknown = usual_site_with(|site| {
        site.public = None;
        site.problems = vec![problem(NO_DEFAULT_ROUTE)];
    });
    let private = production_link().interface;
    for previous in [None, Some("eth9"), Some(private.as_str())] {
        assert_eq!(found(previous), unknown, "{previous:?}");
    }
}

/// The metadata of a server with a primary address.
fn metadata_of(address: &str) -> MetadataView {
    let mut view = metadata(vec![production()]);
    view.latest.as_mut().unwrap().public_ipv4 = Some(address.parse().unwrap());
    view
}

#[test]
fn the_address_that_the_metadata_names_stays_the_first_one_in_any_order_and_while_it_is_away() {
    let mut kernel = usual();
    kernel.links[1].addresses = vec!["203.0.113.50/32".parse().unwrap(), "203.0.113.10/32".parse().unwrap()];
    let both = public("eth0", &["203.0.113.10", "203.0.113.50"]);
    let found = |kernel: &Kernel, previous: Option<&PublicLink>| {
        resolve(&empty(), kernel, &metadata_of("203.0.113.10"), BTreeSet::new(), previous)
    };
    let expected = usual_site_with(|site| site.public = Some(both.clone()));
    assert_eq!(found(&kernel, None), expected);
    // Away for a moment.
    kernel.links[1].addresses.pop();
    let away = usual_site_with(|site| {
        site.public = Some(both.clone());
        site.problems = vec![Problem::new(
            "own-address-missing",
            "eth0 does not have its own address 203.0.113.10 at the moment",
            "DHCP or the network configuration adds it again; answers to it do not arrive before",
        )];
    });
    assert_eq!(found(&kernel, Some(&both)), away);
    // Never there, without any other, or on another link: then what is there counts.
    assert_eq!(found(&kernel, None).public, Some(public("eth0", &["203.0.113.50"])));
    assert_eq!(
        found(&kernel, Some(&public("eth9", &["203.0.113.10"]))).public,
        Some(public("eth0", &["203.0.113.50"]))
    );
    kernel.links[1].addresses.clear();
    assert_eq!(found(&kernel, Some(&both)).public, Some(public("eth0", &[])));
    // Another one in its place: the server's address has changed.
    kernel.links[1].addresses.push("203.0.113.77/32".parse().unwrap());
    assert_eq!(found(&kernel, Some(&both)).public, Some(public("eth0", &["203.0.113.77"])));
}

#[test]
fn the_link_with_the_servers_own_address_stays_the_public_one_when_another_default_route_is_better() {
    let mut kernel = usual();
    kernel.links.extend(more_uplinks());
    kernel.default_routes = vec![DefaultRoute { interface: 5, metric: 0 }, DefaultRoute { interface: 2, metric: 100 }];
    assert_eq!(site(&empty(), &kernel, &metadata_of("203.0.113.10")), usual_site());
    // Without a default route of its own it leads nowhere.
    kernel.default_routes.pop();
    let found = site(&empty(), &kernel, &metadata_of("203.0.113.10")).public;
    assert_eq!(found, Some(public("eth1", &["198.51.100.10"])));
}

#[test]
fn what_the_metadata_contradicts_is_served_and_reported() {
    let doubting =
        |doubts: &[Doubt]| MetadataView { doubts: doubts.to_vec(), ..metadata(vec![production(), tenant()]) };
    let advice = "the daemon asks again by itself; if it lasts, look at the server in the cloud's console";
    let problem = |what: &str| Problem::new("metadata-doubtful", what, advice);
    let unlisted = [Doubt::Unlisted(NetworkId(1234)), Doubt::Unlisted(NetworkId(1235))];
    let served = "the metadata service no longer lists network";
    let expected = usual_site_with(|site| {
        site.private.push(tenant_link());
        site.problems = vec![
            problem(&format!("{served} 1234, but enp7s0 still has its address 10.0.0.2: it is served")),
            problem(&format!("{served} 1235, but enp8s0 still has its address 10.2.0.2: it is served")),
        ];
    });
    assert_eq!(site(&empty(), &with_tenant(), &doubting(&unlisted)), expected);
    // The tenant's interface is gone as well: it was detached.
    let expected = usual_site_with(|site| {
        site.problems =
            vec![problem(&format!("{served} 1234, but enp7s0 still has its address 10.0.0.2: it is served"))];
    });
    assert_eq!(site(&empty(), &usual(), &doubting(&unlisted)), expected);
    let other = [Doubt::Server(ServerId(1)), Doubt::Range(NetworkId(1234), "10.0.0.0/24".parse().unwrap())];
    let texts: Vec<String> =
        site(&empty(), &with_tenant(), &doubting(&other)).problems.into_iter().map(|problem| problem.what).collect();
    assert_eq!(
        texts,
        [
            "the metadata service calls this server 1, and called it 4711 before",
            "the metadata service lists network 1234 with the range 10.0.0.0/24, but enp7s0 has the route of \
             10.0.0.0/16, \
             which is served",
        ]
    );
}

#[test]
fn a_slow_metadata_service_is_told_from_one_that_is_not_there() {
    let advice = |view: &MetadataView| site(&empty(), &usual(), view).problems[0].to_string();
    let failed =
        |is_slow| MetadataView { error: Some(Failure { text: "timed out".to_owned(), is_slow }), ..no_metadata() };
    assert_eq!(
        advice(&failed(true)),
        "the metadata service does not answer: it accepts the connection, but is slow: timed out: wait: the \
         daemon asks \
         again by itself, and gives it 15 s each time"
    );
    assert!(
        advice(&failed(false))
            .ends_with("on a server outside Hetzner Cloud, write the private links into [[site.private]]")
    );
    assert_eq!(
        advice(&MetadataView::default()),
        "the metadata service has not answered yet: wait: the first answer may take several seconds, and the \
         networks are \
         served once it is there"
    );
}

#[test]
fn a_server_with_ipv6_only_is_told_that_nat_needs_a_public_ipv4_address() {
    let mut kernel = usual();
    kernel.links[1].addresses.clear();
    kernel.default_routes.clear();
    kernel.default_routes_v6 = vec![2];
    let expected = usual_site_with(|site| {
        site.public = Some(public("eth0", &[]));
        site.problems = vec![Problem::new(
            "no-public-address",
            "eth0 has no IPv4 address, and Hetzner lists none for this server: NAT needs a public one",
            "switch the server off and add one: hcloud primary-ip create --type ipv4 --assignee-id SERVER; if \
             it is to be a \
             VPN only, set egress.allow = []",
        )];
    });
    assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])), expected);
    // A link that has IPv4 addresses lacks its default route, whatever IPv6 has.
    kernel.links[1].addresses = usual().links[1].addresses.clone();
    assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])).problems, [problem(NO_DEFAULT_ROUTE)]);
    // Nor does a private link become the public one.
    kernel.links[2].addresses.clear();
    kernel.default_routes_v6 = vec![3];
    assert_eq!(site(&empty(), &kernel, &metadata(vec![production()])).public, None);
}

#[test]
fn a_private_link_with_another_mtu_than_the_networks_is_reported() {
    let with_mtu = |mtu| {
        let mut kernel = usual();
        kernel.links[2].mtu = mtu;
        let site = site(&empty(), &kernel, &metadata(vec![production()]));
        let texts = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        (texts(&site.problems), texts(&site.hints))
    };
    let large = "enp7s0 has MTU 1500, but Hetzner's networks carry packets of at most 1450 bytes: larger ones \
    are lost: run \
                 `ip link set enp7s0 mtu 1450`, and correct the network configuration and that of hosts with a \
                 larger MTU; \
                 until then only TCP connections keep below it";
    let small = "enp7s0 has MTU 1300, and Hetzner's networks carry 1450 bytes: if that is not intended: ip link \
    set enp7s0 \
                 mtu 1450";
    assert_eq!(with_mtu(1500), (vec![large.to_owned()], vec![]));
    assert_eq!(with_mtu(1300), (vec![], vec![small.to_owned()]));
    for right in [1450, 1400] {
        assert_eq!(with_mtu(right), (vec![], vec![]), "{right}");
    }
}

#[test]
fn the_broadcast_address_of_a_network_is_known_where_the_kernel_takes_it_for_one() {
    let broadcasts = |address: &str, network: &str| {
        let kernel =
            kernel(&["lo up - 65536 127.0.0.1/8", &format!("enp7s0 up aa:00:00:00:00:01 1450 {address}")], &[]);
        let config = configured(|site| site.private = vec![configured_link("enp7s0", network)]);
        site(&config, &kernel, &no_metadata()).broadcasts
    };
    assert_eq!(broadcasts("10.0.0.2/32", "10.0.0.0/16"), BTreeSet::new());
    assert_eq!(broadcasts("10.0.0.2/24", "10.0.0.0/16"), BTreeSet::new());
    assert_eq!(broadcasts("10.0.0.2/16", "10.0.0.0/16"), BTreeSet::from([Ipv4Addr::new(10, 0, 255, 255)]));
    assert_eq!(broadcasts("10.0.255.2/24", "10.0.0.0/16"), BTreeSet::from([Ipv4Addr::new(10, 0, 255, 255)]));
}
