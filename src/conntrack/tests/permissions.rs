//! By which permission flows pass.

use super::*;
use crate::config::Config;

fn assert_permissions(config: &Config, cases: &[(Flow, Permission)]) {
    let policy = policy_of(config);
    let evaluator = PolicyEvaluator::new(&policy);
    for (flow, expected) in cases {
        assert_eq!(evaluator.permission(flow), *expected, "{flow:?}");
    }
}

#[test]
fn a_redirected_flow_passes_by_the_forward_that_leads_to_its_target() {
    assert_permissions(
        &config(),
        &[
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.4:8443"),
                Permission::Forward(read("10.0.0.4"), Some(8443)),
            ),
            (
                redirected("udp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000"),
                Permission::Forward(read("10.0.0.5"), Some(30000)),
            ),
            (
                redirected("udp 192.0.2.9:4000 198.51.100.2:30100", "10.0.0.5:30100"),
                Permission::Forward(read("10.0.0.5"), Some(30100)),
            ),
            (
                redirected("udp 192.0.2.9:4000 198.51.100.2:30101", "10.0.0.5:30101"),
                Permission::Blocked(BlockReason::NoForward),
            ),
            (
                redirected("udp 192.0.2.9:4000 198.51.100.2:29999", "10.0.0.5:29999"),
                Permission::Blocked(BlockReason::NoForward),
            ),
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000"),
                Permission::Blocked(BlockReason::NoForward),
            ),
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.5:8443"),
                Permission::Blocked(BlockReason::OtherTarget),
            ),
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.4:443"),
                Permission::Blocked(BlockReason::OtherTarget),
            ),
            (
                redirected("tcp 203.0.113.9:4000 198.51.100.2:8022", "10.0.0.4:22"),
                Permission::Forward(read("10.0.0.4"), Some(22)),
            ),
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:8022", "10.0.0.4:22"),
                Permission::Blocked(BlockReason::ForwardSource),
            ),
            (
                redirected("tcp 203.0.113.66:4000 198.51.100.2:443", "10.0.0.4:8443"),
                Permission::Blocked(BlockReason::Blocklist),
            ),
            // A private host uses the public address.
            (
                redirected("tcp 10.0.0.9:4000 198.51.100.2:443", "10.0.0.4:8443"),
                Permission::Forward(read("10.0.0.4"), Some(8443)),
            ),
            // A container's port, published by another program.
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:8080", "172.17.0.2:80"),
                Permission::Blocked(BlockReason::NoForward),
            ),
        ],
    );
}

#[test]
fn a_static_address_lets_in_what_its_open_list_allows() {
    assert_permissions(
        &config(),
        &[
            (redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.7:25"), Permission::Static(read("10.0.0.7"))),
            (redirected("tcp 192.0.2.9:4000 203.0.113.51:8100", "10.0.0.7:8100"), Permission::Static(read("10.0.0.7"))),
            (redirected("icmp 192.0.2.9 203.0.113.51", "10.0.0.7"), Permission::Static(read("10.0.0.7"))),
            (
                redirected("udp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.7:25"),
                Permission::Blocked(BlockReason::StaticClosed),
            ),
            (
                redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.8:25"),
                Permission::Blocked(BlockReason::OtherTarget),
            ),
        ],
    );
}

#[test]
fn private_hosts_reach_what_their_networks_lists_allow() {
    let mut config = config();
    assert_permissions(
        &config,
        &[
            (masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"), Permission::Egress),
            (flow("icmp 10.0.0.4 203.0.113.9"), Permission::Egress),
            (flow("esp 10.0.0.4 203.0.113.9"), Permission::Egress),
            (flow("tcp 10.0.0.4:4000 192.0.2.9:443"), Permission::Blocked(BlockReason::DenyList)),
            (flow("tcp 10.0.0.4:4000 203.0.113.9:25"), Permission::Blocked(BlockReason::Smtp)),
            (flow("udp 10.0.0.4:4000 203.0.113.9:25"), Permission::Egress),
            (flow("tcp 10.0.0.4:4000 172.16.9.9:443"), Permission::Blocked(BlockReason::Unroutable)),
            (flow("tcp 10.0.0.4:4000 169.254.169.254:80"), Permission::Blocked(BlockReason::Unroutable)),
            // The lists of [egress] do not hold for a network with lists of its own.
            (flow("udp 10.2.0.4:4000 192.0.2.9:53"), Permission::Egress),
            (flow("tcp 10.2.0.4:4000 192.0.2.9:53"), Permission::Blocked(BlockReason::NotInAllowList)),
        ],
    );
    config.egress.guard = false;
    config.egress.lists.smtp = true;
    assert_permissions(
        &config,
        &[
            (flow("tcp 10.0.0.4:4000 172.16.9.9:443"), Permission::Egress),
            (flow("tcp 10.0.0.4:4000 203.0.113.9:25"), Permission::Egress),
            (flow("tcp 10.0.0.4:4000 169.254.169.254:80"), Permission::Blocked(BlockReason::Unroutable)),
        ],
    );
}

#[test]
fn one_network_reaches_another_only_by_a_line_of_tenants() {
    assert_permissions(
        &config(),
        &[
            (flow("tcp 10.0.0.4:4000 10.2.0.4:5432"), Permission::Tenant),
            (flow("tcp 10.0.0.4:4000 10.2.0.4:5433"), Permission::Blocked(BlockReason::OtherTenant)),
            (flow("tcp 10.2.0.4:4000 10.0.0.4:5432"), Permission::Blocked(BlockReason::OtherTenant)),
            // Traffic inside a network does not pass the bastion.
            (flow("tcp 10.0.0.4:4000 10.0.0.5:80"), Permission::Unknown),
        ],
    );
}

#[test]
fn an_egress_address_that_the_server_does_not_have_is_on_the_internet() {
    let mut config = config();
    config.nat.egress_addresses = vec![read("198.51.100.3"), read("203.0.113.50")];
    let to_missing = masqueraded("tcp 10.0.0.4:4000 203.0.113.50:443", "198.51.100.2:5000");
    let to_present = flow("tcp 10.0.0.4:4000 198.51.100.3:443");
    assert_permissions(
        &config,
        &[(to_missing, Permission::Egress), (to_present, Permission::Blocked(BlockReason::NoService))],
    );
}

#[test]
fn a_forward_into_a_peers_range_is_for_private_hosts_alone() {
    let mut config = config();
    if let Some(wireguard) = &mut config.wireguard {
        wireguard.peers[1].allowed_ips.push(read("10.0.9.0/24"));
        wireguard.peers[1].in_private_network = true;
    }
    config.nat.forwards[0].to = read("10.0.9.4");
    let from = |source: &str| redirected(&format!("tcp {source}:4000 198.51.100.2:443"), "10.0.9.4:8443");
    assert_permissions(
        &config,
        &[
            (from("10.0.0.4"), Permission::Forward(read("10.0.9.4"), Some(8443))),
            (from("192.0.2.9"), Permission::Blocked(BlockReason::Tunnel)),
            (from("10.100.0.2"), Permission::Blocked(BlockReason::Tunnel)),
        ],
    );
}

#[test]
fn a_line_of_tenants_may_allow_flows_inside_one_network() {
    let mut config = config();
    config.tenants[0].to.push(read("10.0.7.0/24"));
    let inside = flow("tcp 10.0.0.4:4000 10.0.7.5:5432");
    assert_permissions(&config, &[(inside, Permission::Tenant)]);
    // Without forwards and static addresses the rules have no path from a link to itself.
    config.nat.forwards.clear();
    config.nat.statics.clear();
    assert_permissions(&config, &[(inside, Permission::Unknown)]);
}

#[test]
fn a_flow_of_the_tunnel_belongs_to_the_peer_with_its_address() {
    let mut config = config();
    let (ada, office) = (Permission::Tunnel(key(ADA)), Permission::Tunnel(key(OFFICE)));
    assert_permissions(
        &config,
        &[
            (flow("tcp 10.100.0.2:4000 10.0.0.4:80"), ada),
            (flow("tcp 10.100.0.2:4000 10.2.0.4:80"), ada),
            (flow("tcp 10.100.0.3:4000 10.0.0.4:80"), office),
            (flow("tcp 192.168.178.9:4000 10.0.0.4:80"), office),
            (flow("tcp 10.0.0.4:4000 192.168.178.9:80"), office),
            (flow("tcp 10.0.0.4:4000 10.100.0.2:80"), Permission::Blocked(BlockReason::Tunnel)),
            (flow("tcp 10.100.0.4:4000 10.0.0.4:80"), Permission::Blocked(BlockReason::NoPeer)),
            (flow("tcp 10.100.0.2:4000 10.100.0.3:80"), Permission::Blocked(BlockReason::Tunnel)),
            (masqueraded("tcp 10.100.0.2:4000 203.0.113.9:80", "198.51.100.2:5000"), ada),
            (flow("tcp 10.100.0.2:4000 169.254.169.254:80"), Permission::Blocked(BlockReason::Unroutable)),
            (flow("tcp 10.100.0.2:4000 192.0.2.9:80"), Permission::Blocked(BlockReason::DenyList)),
            (
                redirected("tcp 10.100.0.4:4000 198.51.100.2:443", "10.0.0.4:8443"),
                Permission::Blocked(BlockReason::NoPeer),
            ),
            (
                redirected("tcp 10.100.0.2:4000 198.51.100.2:443", "10.0.0.4:8443"),
                Permission::Forward(read("10.0.0.4"), Some(8443)),
            ),
        ],
    );
    if let Some(wireguard) = &mut config.wireguard {
        wireguard.full_tunnel = false;
    }
    assert_permissions(
        &config,
        &[(flow("tcp 10.100.0.2:4000 203.0.113.9:80"), Permission::Blocked(BlockReason::Tunnel))],
    );
}

#[test]
fn a_peers_range_inside_a_private_network_belongs_to_the_peer() {
    let mut config = config();
    if let Some(wireguard) = &mut config.wireguard {
        wireguard.peers[1].allowed_ips.push(read("10.0.9.0/24"));
        wireguard.peers[1].in_private_network = true;
    }
    assert_permissions(
        &config,
        &[
            (flow("tcp 10.0.9.1:4000 10.0.0.4:80"), Permission::Tunnel(key(OFFICE))),
            (flow("tcp 10.0.0.4:4000 10.0.9.1:80"), Permission::Tunnel(key(OFFICE))),
        ],
    );
}

#[test]
fn a_peer_with_all_addresses_does_not_own_the_internet() {
    let mut config = config();
    if let Some(wireguard) = &mut config.wireguard {
        wireguard.peers[1].allowed_ips.push(read("0.0.0.0/0"));
    }
    assert_permissions(&config, &[(flow("tcp 10.0.0.4:4000 203.0.113.9:80"), Permission::Egress)]);
}

#[test]
fn services_of_the_bastion_have_a_permission_and_its_ssh_and_own_connections_are_unknown() {
    assert_permissions(
        &config(),
        &[
            (flow("tcp 10.0.0.4:4000 10.0.0.2:9100"), Permission::Service),
            (flow("tcp 10.0.0.4:4000 198.51.100.2:9100"), Permission::Service),
            (flow("tcp 203.0.113.9:4000 198.51.100.2:9100"), Permission::Blocked(BlockReason::NoService)),
            (flow("udp 10.0.0.4:4000 10.0.0.2:9100"), Permission::Blocked(BlockReason::NoService)),
            (flow("tcp 203.0.113.9:4000 198.51.100.2:22"), Permission::Unknown),
            (flow("tcp 203.0.113.66:4000 198.51.100.2:22"), Permission::Unknown),
            (flow("tcp 10.100.0.2:4000 10.100.0.1:22"), Permission::Unknown),
            (flow("udp 203.0.113.9:4000 198.51.100.2:51820"), Permission::Unknown),
            (flow("tcp 198.51.100.2:4000 203.0.113.9:443"), Permission::Unknown),
            (flow("tcp 10.0.0.2:4000 10.0.0.4:22"), Permission::Unknown),
            // Pings pass.
            (flow("icmp 203.0.113.9 198.51.100.2"), Permission::Unknown),
        ],
    );
}

#[test]
fn the_port_for_a_tunnel_of_another_program_is_unknown() {
    let mut config = config();
    config.wireguard = None;
    let others = flow("udp 203.0.113.9:4000 198.51.100.2:51820");
    assert_permissions(&config, &[(others, Permission::Unknown)]);
    config.firewall.wireguard_port = None;
    assert_permissions(&config, &[(others, Permission::Blocked(BlockReason::NoService))]);
}

#[test]
fn no_port_of_the_bastion_is_open_at_a_static_address() {
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.push(read("203.0.113.51"));
    }
    let policy = policy_at(&config(), &site, None).unwrap();
    let evaluator = PolicyEvaluator::new(&policy);
    for closed in ["tcp 10.0.0.4:4000 203.0.113.51:9100", "icmp 10.0.0.4 203.0.113.51"] {
        let permission = evaluator.permission(&flow(closed));
        assert_eq!(permission, Permission::Blocked(BlockReason::StaticClosed), "{closed}");
    }
}

#[test]
fn flows_of_other_programs_are_unknown_and_flows_from_the_internet_to_private_addresses_are_blocked() {
    let mut zoned = flow("tcp 10.0.0.4:4000 203.0.113.9:443");
    zoned.zone = 7;
    assert_permissions(
        &config(),
        &[
            (masqueraded("tcp 172.17.0.2:4000 203.0.113.9:443", "198.51.100.2:5000"), Permission::Unknown),
            (zoned, Permission::Unknown),
            (flow("tcp 203.0.113.9:4000 10.0.0.4:80"), Permission::Blocked(BlockReason::FromInternet)),
        ],
    );
}

#[test]
fn a_forward_for_one_address_wins_over_one_for_all_addresses() {
    let mut config = config();
    config.nat.forwards.push(crate::config::Forward {
        public: vec![read("198.51.100.2")],
        ..forward(ports(443, 443), "10.0.0.9", Some(443))
    });
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.push(read("198.51.100.4"));
    }
    let policy = policy_at(&config, &site, None).unwrap();
    let evaluator = PolicyEvaluator::new(&policy);
    let permission =
        |to: &str, target: &str| evaluator.permission(&redirected(&format!("tcp 192.0.2.9:4000 {to}"), target));
    assert_eq!(permission("198.51.100.2:443", "10.0.0.9:443"), Permission::Forward(read("10.0.0.9"), Some(443)));
    assert_eq!(permission("198.51.100.4:443", "10.0.0.4:8443"), Permission::Forward(read("10.0.0.4"), Some(8443)));
}

#[test]
fn a_forward_for_all_addresses_does_not_hold_for_a_static_address() {
    let mut config = config();
    config.nat.forwards.push(forward(ports(8080, 8080), "10.0.0.4", None));
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.push(read("203.0.113.51"));
    }
    let policy = policy_at(&config, &site, None).unwrap();
    let to_host = redirected("tcp 192.0.2.9:4000 203.0.113.51:8080", "10.0.0.7:8080");
    assert_eq!(PolicyEvaluator::new(&policy).permission(&to_host), Permission::Static(read("10.0.0.7")));
    let to_bastion = redirected("tcp 192.0.2.9:4000 198.51.100.2:8080", "10.0.0.4:8080");
    assert_eq!(
        PolicyEvaluator::new(&policy).permission(&to_bastion),
        Permission::Forward(read("10.0.0.4"), Some(8080))
    );
}

#[test]
fn ports_that_the_bastion_needs_itself_are_not_forwarded() {
    let mut config = config();
    config.nat.forwards = vec![crate::config::Forward {
        public: vec![read("198.51.100.2"), read("198.51.100.4")],
        ..forward(ports(20, 30), "10.0.0.4", None)
    }];
    let own = flow("tcp 192.0.2.9:4000 198.51.100.2:25");
    let other = flow("tcp 192.0.2.9:4000 198.51.100.4:25");
    let policy = policy_of(&config);
    let evaluator = PolicyEvaluator::new(&policy);
    assert_eq!((evaluator.redirect_target(&own).is_some(), evaluator.redirect_target(&other).is_some()), (false, true));
}

#[test]
fn forwards_of_one_port_for_different_sources_lead_to_the_target_of_each() {
    let mut config = config();
    let from = |range: &str, host: &str, range_of: Ports| crate::config::Forward {
        from: nets(&[range]),
        ..forward(range_of, host, None)
    };
    config.nat.forwards = vec![
        from("192.0.2.0/24", "10.0.0.4", ports(80, 80)),
        from("203.0.113.0/24", "10.0.0.5", ports(80, 80)),
        from("192.0.2.0/24", "10.0.0.6", ports(1000, 5000)),
        from("203.0.113.0/24", "10.0.0.7", ports(2000, 2010)),
    ];
    let cases = [
        ("192.0.2.9", "80", "10.0.0.4:80"),
        ("203.0.113.9", "80", "10.0.0.5:80"),
        ("192.0.2.9", "2005", "10.0.0.6:2005"),
        ("192.0.2.9", "4000", "10.0.0.6:4000"),
        ("203.0.113.9", "2005", "10.0.0.7:2005"),
    ];
    let cases = cases.map(|(from, to, target)| {
        let flow = redirected(&format!("tcp {from}:4000 198.51.100.2:{to}"), target);
        let target: SocketAddrV4 = read(target);
        (flow, Permission::Forward(*target.ip(), Some(target.port())))
    });
    assert_permissions(&config, &cases);
    assert_permissions(
        &config,
        &[(
            redirected("tcp 203.0.113.9:4000 198.51.100.2:4000", "10.0.0.6:4000"),
            Permission::Blocked(BlockReason::ForwardSource),
        )],
    );
}

#[test]
fn a_forward_to_a_host_outside_all_networks_does_nothing() {
    let mut config = config();
    config.nat.forwards[0].to = read("10.9.0.4");
    config.nat.statics[0].private = read("10.9.0.7");
    assert_permissions(
        &config,
        &[
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.9.0.4:8443"),
                Permission::Blocked(BlockReason::NoForward),
            ),
            (
                redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.9.0.7:25"),
                Permission::Blocked(BlockReason::NoForward),
            ),
        ],
    );
}

#[test]
fn behind_another_gateway_the_range_of_the_public_link_is_the_internet() {
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses = vec![read("192.168.1.2")];
    }
    let policy = policy_at(&config(), &site, None).unwrap();
    let permission = |text: &str| PolicyEvaluator::new(&policy).permission(&flow(text));
    assert_eq!(permission("tcp 10.0.0.4:4000 192.168.7.7:443"), Permission::Egress);
    assert_eq!(permission("tcp 10.0.0.4:4000 172.16.9.9:443"), Permission::Blocked(BlockReason::Unroutable));
}

#[test]
fn a_flow_without_ports_passes_by_the_forward_or_the_service_of_its_protocol() {
    let text = "
        [[nat.forward]]
        protocol = \"esp\"
        to = \"10.0.0.4\"
        from = [\"203.0.113.0/24\"]
        [[nat.forward]]
        protocol = \"gre\"
        to = \"10.0.0.5\"
        [[firewall.service]]
        protocol = \"esp\"
        from = [\"10.0.0.0/16\"]
        [[tenants.allow]]
        from = [\"10.0.0.0/16\"]
        to = [\"10.2.0.0/16\"]
        protocol = \"esp\"";
    let config = parse(text, &Environment::default()).unwrap();
    // Connection tracking has a key of GRE in the place of each port.
    let mut gre = redirected("tcp 192.0.2.9:7 198.51.100.2:9", "10.0.0.5:9");
    (gre.original.protocol, gre.reply.protocol) = (47, 47);
    let mut ah = redirected("esp 203.0.113.9 198.51.100.2", "10.0.0.4");
    (ah.original.protocol, ah.reply.protocol) = (51, 51);
    assert_permissions(
        &config,
        &[
            (redirected("esp 203.0.113.9 198.51.100.2", "10.0.0.4"), Permission::Forward(read("10.0.0.4"), None)),
            (redirected("esp 203.0.113.9 198.51.100.2", "10.0.0.5"), Permission::Blocked(BlockReason::OtherTarget)),
            (redirected("esp 192.0.2.9 198.51.100.2", "10.0.0.4"), Permission::Blocked(BlockReason::ForwardSource)),
            (ah, Permission::Blocked(BlockReason::NoForward)),
            (gre, Permission::Forward(read("10.0.0.5"), None)),
            (flow("esp 10.0.0.9 10.0.0.2"), Permission::Service),
            (flow("esp 10.2.0.9 10.0.0.2"), Permission::Blocked(BlockReason::NoService)),
            (flow("esp 10.0.0.9 10.2.0.4"), Permission::Tenant),
            (flow("esp 10.2.0.4 10.0.0.9"), Permission::Blocked(BlockReason::OtherTenant)),
        ],
    );
}

#[test]
fn what_others_translate_passes_from_inside_by_the_addresses_that_it_has_then() {
    let ada = Permission::Tunnel(key(ADA));
    assert_permissions(
        &config(),
        &[
            (redirected("tcp 10.0.0.4:4000 10.2.0.2:15432", "10.2.0.4:5432"), Permission::Tenant),
            (redirected("tcp 10.0.0.4:4000 198.51.100.2:15432", "10.2.0.4:5432"), Permission::Tenant),
            // Our forward of that port leads elsewhere.
            (redirected("tcp 10.0.0.4:4000 198.51.100.2:443", "10.2.0.4:5432"), Permission::Tenant),
            (redirected("udp 10.0.0.4:4000 203.0.113.9:53", "203.0.113.10:5353"), Permission::Egress),
            (redirected("tcp 10.100.0.2:4000 198.51.100.2:8080", "10.2.0.4:80"), ada),
            // What the real addresses do not allow.
            (
                redirected("tcp 10.0.0.4:4000 10.2.0.2:5432", "10.2.0.4:5433"),
                Permission::Blocked(BlockReason::NoForward),
            ),
            (
                redirected("udp 10.0.0.4:4000 203.0.113.9:53", "192.0.2.9:53"),
                Permission::Blocked(BlockReason::NoForward),
            ),
            // From outside only our own translations count.
            (
                redirected("tcp 192.0.2.9:4000 198.51.100.2:15432", "10.2.0.4:5432"),
                Permission::Blocked(BlockReason::NoForward),
            ),
            // Inside one network nothing but a forward leads back, and it may be gone.
            (
                redirected("tcp 10.0.0.9:4000 198.51.100.2:8080", "10.0.0.4:80"),
                Permission::Blocked(BlockReason::NoForward),
            ),
        ],
    );
}

#[test]
fn what_others_translate_to_a_guest_passes_from_an_address_of_this_server_only() {
    let mut site = site();
    site.private.push(PrivateLink { is_local: true, ..PrivateLink::example("docker0", "172.17.0.1", "172.17.0.0/16") });
    let policy = Policy::new(&config(), &site, None, None).unwrap();
    let evaluator = PolicyEvaluator::new(&policy);
    let guest = Permission::Guest(read("172.17.0.2"));
    for (first, target, expected) in [
        ("tcp 192.0.2.9:4000 198.51.100.3:8080", "172.17.0.2:80", guest),
        ("tcp 10.0.0.4:4000 10.0.0.2:8080", "172.17.0.2:80", guest),
        ("tcp 10.0.0.4:4000 172.17.0.1:8080", "172.17.0.2:80", guest),
        ("tcp 10.0.0.4:4000 203.0.113.9:8080", "172.17.0.2:80", Permission::Blocked(BlockReason::NoForward)),
        ("tcp 192.0.2.9:4000 198.51.100.3:8080", "10.2.0.4:80", Permission::Blocked(BlockReason::NoForward)),
    ] {
        assert_eq!(evaluator.permission(&redirected(first, target)), expected, "{first} to {target}");
    }
}
