//! Links that `[site]` names.

use super::*;

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
        dhcp_links: BTreeSet::new(),
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
        dhcp_links: BTreeSet::new(),
        misrouted: BTreeSet::new(),
    };
    assert_eq!(site(&config, &kernel, &no_metadata()), expected);
}
