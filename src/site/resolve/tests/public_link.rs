//! The link to the internet: which one it is, and its addresses.

use super::*;

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
