//! The links into private networks, and what is reported of them.

use super::*;

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
