//! By which permission flows pass.

use super::*;
use crate::config::Config;

fn ways(config: &Config, cases: &[(Flow, Way)]) {
    let policy = policy_of(config);
    let judge = Judge::of(&policy);
    for (flow, expected) in cases {
        assert_eq!(judge.way(flow), *expected, "{flow:?}");
    }
}

#[test]
fn a_flow_that_is_redirected_passes_by_the_forward_that_leads_there() {
    ways(
        &config(),
        &[
            (redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.4:8443"), Way::Forward(read("10.0.0.4"), 8443)),
            (
                redirected("udp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000"),
                Way::Forward(read("10.0.0.5"), 30000),
            ),
            (
                redirected("udp 192.0.2.9:4000 198.51.100.2:30100", "10.0.0.5:30100"),
                Way::Forward(read("10.0.0.5"), 30100),
            ),
            (redirected("udp 192.0.2.9:4000 198.51.100.2:30101", "10.0.0.5:30101"), Way::Blocked(Block::NoForward)),
            (redirected("udp 192.0.2.9:4000 198.51.100.2:29999", "10.0.0.5:29999"), Way::Blocked(Block::NoForward)),
            (redirected("tcp 192.0.2.9:4000 198.51.100.2:30000", "10.0.0.5:30000"), Way::Blocked(Block::NoForward)),
            (redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.5:8443"), Way::Blocked(Block::AnotherTarget)),
            (redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.0.0.4:443"), Way::Blocked(Block::AnotherTarget)),
            (redirected("tcp 203.0.113.9:4000 198.51.100.2:8022", "10.0.0.4:22"), Way::Forward(read("10.0.0.4"), 22)),
            (redirected("tcp 192.0.2.9:4000 198.51.100.2:8022", "10.0.0.4:22"), Way::Blocked(Block::Source)),
            (redirected("tcp 203.0.113.66:4000 198.51.100.2:443", "10.0.0.4:8443"), Way::Blocked(Block::Blocklist)),
            // A private host, by the public address.
            (redirected("tcp 10.0.0.9:4000 198.51.100.2:443", "10.0.0.4:8443"), Way::Forward(read("10.0.0.4"), 8443)),
            // A container's port, of somebody else.
            (redirected("tcp 192.0.2.9:4000 198.51.100.2:8080", "172.17.0.2:80"), Way::Blocked(Block::NoForward)),
        ],
    );
}

#[test]
fn a_static_address_lets_in_what_is_open() {
    ways(
        &config(),
        &[
            (redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.7:25"), Way::Static(read("10.0.0.7"))),
            (redirected("tcp 192.0.2.9:4000 203.0.113.51:8100", "10.0.0.7:8100"), Way::Static(read("10.0.0.7"))),
            (redirected("icmp 192.0.2.9 203.0.113.51", "10.0.0.7"), Way::Static(read("10.0.0.7"))),
            (redirected("udp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.7:25"), Way::Blocked(Block::Closed)),
            (redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.0.0.8:25"), Way::Blocked(Block::AnotherTarget)),
        ],
    );
}

#[test]
fn private_hosts_reach_what_their_networks_lists_allow() {
    let mut config = config();
    ways(
        &config,
        &[
            (masqueraded("tcp 10.0.0.4:4000 203.0.113.9:443", "198.51.100.2:5000"), Way::Egress),
            (flow("icmp 10.0.0.4 203.0.113.9"), Way::Egress),
            (flow("esp 10.0.0.4 203.0.113.9"), Way::Egress),
            (flow("tcp 10.0.0.4:4000 192.0.2.9:443"), Way::Blocked(Block::Denied)),
            (flow("tcp 10.0.0.4:4000 203.0.113.9:25"), Way::Blocked(Block::Smtp)),
            (flow("udp 10.0.0.4:4000 203.0.113.9:25"), Way::Egress),
            (flow("tcp 10.0.0.4:4000 172.16.9.9:443"), Way::Blocked(Block::Unroutable)),
            (flow("tcp 10.0.0.4:4000 169.254.169.254:80"), Way::Blocked(Block::Unroutable)),
            // The network with lists of its own has none of the others.
            (flow("udp 10.2.0.4:4000 192.0.2.9:53"), Way::Egress),
            (flow("tcp 10.2.0.4:4000 192.0.2.9:53"), Way::Blocked(Block::NotAllowed)),
        ],
    );
    config.egress.guard = false;
    config.egress.lists.smtp = true;
    ways(
        &config,
        &[
            (flow("tcp 10.0.0.4:4000 172.16.9.9:443"), Way::Egress),
            (flow("tcp 10.0.0.4:4000 203.0.113.9:25"), Way::Egress),
            (flow("tcp 10.0.0.4:4000 169.254.169.254:80"), Way::Blocked(Block::Unroutable)),
        ],
    );
}

#[test]
fn one_network_reaches_another_by_a_line_only() {
    ways(
        &config(),
        &[
            (flow("tcp 10.0.0.4:4000 10.2.0.4:5432"), Way::Tenant),
            (flow("tcp 10.0.0.4:4000 10.2.0.4:5433"), Way::Blocked(Block::OtherTenant)),
            (flow("tcp 10.2.0.4:4000 10.0.0.4:5432"), Way::Blocked(Block::OtherTenant)),
            // Within a network nobody asks us.
            (flow("tcp 10.0.0.4:4000 10.0.0.5:80"), Way::Unknown),
        ],
    );
}

#[test]
fn a_flow_of_the_tunnel_is_its_peers() {
    let mut config = config();
    let (ada, office) = (Way::Tunnel(key(ADA)), Way::Tunnel(key(OFFICE)));
    ways(
        &config,
        &[
            (flow("tcp 10.100.0.2:4000 10.0.0.4:80"), ada),
            (flow("tcp 10.100.0.2:4000 10.2.0.4:80"), ada),
            (flow("tcp 10.100.0.3:4000 10.0.0.4:80"), office),
            (flow("tcp 192.168.178.9:4000 10.0.0.4:80"), office),
            (flow("tcp 10.0.0.4:4000 192.168.178.9:80"), office),
            (flow("tcp 10.0.0.4:4000 10.100.0.2:80"), Way::Blocked(Block::Tunnel)),
            (flow("tcp 10.100.0.4:4000 10.0.0.4:80"), Way::Blocked(Block::NoPeer)),
            (flow("tcp 10.100.0.2:4000 10.100.0.3:80"), Way::Blocked(Block::Tunnel)),
            (masqueraded("tcp 10.100.0.2:4000 203.0.113.9:80", "198.51.100.2:5000"), ada),
            (flow("tcp 10.100.0.2:4000 169.254.169.254:80"), Way::Blocked(Block::Unroutable)),
            (flow("tcp 10.100.0.2:4000 192.0.2.9:80"), Way::Blocked(Block::Denied)),
            (redirected("tcp 10.100.0.4:4000 198.51.100.2:443", "10.0.0.4:8443"), Way::Blocked(Block::NoPeer)),
            (redirected("tcp 10.100.0.2:4000 198.51.100.2:443", "10.0.0.4:8443"), Way::Forward(read("10.0.0.4"), 8443)),
        ],
    );
    if let Some(wireguard) = &mut config.wireguard {
        wireguard.full_tunnel = false;
    }
    ways(&config, &[(flow("tcp 10.100.0.2:4000 203.0.113.9:80"), Way::Blocked(Block::Tunnel))]);
}

#[test]
fn a_peer_has_what_lies_inside_of_a_private_network() {
    let mut config = config();
    if let Some(wireguard) = &mut config.wireguard {
        wireguard.peers[1].allowed_ips.push(read("10.0.9.0/24"));
    }
    ways(
        &config,
        &[
            (flow("tcp 10.0.9.1:4000 10.0.0.4:80"), Way::Tunnel(key(OFFICE))),
            (flow("tcp 10.0.0.4:4000 10.0.9.1:80"), Way::Tunnel(key(OFFICE))),
        ],
    );
}

#[test]
fn a_peer_with_every_address_does_not_speak_for_the_internet() {
    let mut config = config();
    if let Some(wireguard) = &mut config.wireguard {
        wireguard.peers[1].allowed_ips.push(read("0.0.0.0/0"));
    }
    ways(&config, &[(flow("tcp 10.0.0.4:4000 203.0.113.9:80"), Way::Egress)]);
}

#[test]
fn the_bastions_services_are_known_and_its_ssh_and_own_connections_are_not_judged() {
    ways(
        &config(),
        &[
            (flow("tcp 10.0.0.4:4000 10.0.0.2:9100"), Way::Service),
            (flow("tcp 10.0.0.4:4000 198.51.100.2:9100"), Way::Service),
            (flow("tcp 203.0.113.9:4000 198.51.100.2:9100"), Way::Blocked(Block::NoService)),
            (flow("udp 10.0.0.4:4000 10.0.0.2:9100"), Way::Blocked(Block::NoService)),
            (flow("tcp 203.0.113.9:4000 198.51.100.2:22"), Way::Unknown),
            (flow("tcp 203.0.113.66:4000 198.51.100.2:22"), Way::Unknown),
            (flow("tcp 10.100.0.2:4000 10.100.0.1:22"), Way::Unknown),
            (flow("udp 203.0.113.9:4000 198.51.100.2:51820"), Way::Unknown),
            (flow("tcp 198.51.100.2:4000 203.0.113.9:443"), Way::Unknown),
            (flow("tcp 10.0.0.2:4000 10.0.0.4:22"), Way::Unknown),
        ],
    );
}

#[test]
fn what_is_other_peoples_is_not_judged_and_what_comes_in_from_outside_is_forbidden() {
    let mut zoned = flow("tcp 10.0.0.4:4000 203.0.113.9:443");
    zoned.zone = 7;
    ways(
        &config(),
        &[
            (masqueraded("tcp 172.17.0.2:4000 203.0.113.9:443", "198.51.100.2:5000"), Way::Unknown),
            (zoned, Way::Unknown),
            (flow("tcp 203.0.113.9:4000 10.0.0.4:80"), Way::Blocked(Block::Outside)),
        ],
    );
}

#[test]
fn a_forward_for_one_address_wins_over_one_for_all() {
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
    let judge = Judge::of(&policy);
    let way = |to: &str, target: &str| judge.way(&redirected(&format!("tcp 192.0.2.9:4000 {to}"), target));
    assert_eq!(way("198.51.100.2:443", "10.0.0.9:443"), Way::Forward(read("10.0.0.9"), 443));
    assert_eq!(way("198.51.100.4:443", "10.0.0.4:8443"), Way::Forward(read("10.0.0.4"), 8443));
}

#[test]
fn a_forward_for_every_address_is_none_for_the_address_of_a_single_host() {
    let mut config = config();
    config.nat.forwards.push(forward(ports(8080, 8080), "10.0.0.4", None));
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses.push(read("203.0.113.51"));
    }
    let policy = policy_at(&config, &site, None).unwrap();
    let to_host = redirected("tcp 192.0.2.9:4000 203.0.113.51:8080", "10.0.0.7:8080");
    assert_eq!(Judge::of(&policy).way(&to_host), Way::Static(read("10.0.0.7")));
    let to_bastion = redirected("tcp 192.0.2.9:4000 198.51.100.2:8080", "10.0.0.4:8080");
    assert_eq!(Judge::of(&policy).way(&to_bastion), Way::Forward(read("10.0.0.4"), 8080));
}

#[test]
fn nothing_is_forwarded_that_the_bastion_needs_itself() {
    let mut config = config();
    config.nat.forwards = vec![crate::config::Forward {
        public: vec![read("198.51.100.2"), read("198.51.100.4")],
        ..forward(ports(20, 30), "10.0.0.4", None)
    }];
    let own = flow("tcp 192.0.2.9:4000 198.51.100.2:25");
    let other = flow("tcp 192.0.2.9:4000 198.51.100.4:25");
    let policy = policy_of(&config);
    let judge = Judge::of(&policy);
    assert_eq!((judge.redirects(&own), judge.redirects(&other)), (false, true));
}

#[test]
fn forwards_of_one_port_for_different_sources_lead_where_each_one_leads() {
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
        (flow, Way::Forward(*target.ip(), target.port()))
    });
    ways(&config, &cases);
    ways(
        &config,
        &[(redirected("tcp 203.0.113.9:4000 198.51.100.2:4000", "10.0.0.6:4000"), Way::Blocked(Block::Source))],
    );
}

#[test]
fn what_leads_to_a_host_outside_of_every_network_leads_nowhere() {
    let mut config = config();
    config.nat.forwards[0].to = read("10.9.0.4");
    config.nat.statics[0].private = read("10.9.0.7");
    ways(
        &config,
        &[
            (redirected("tcp 192.0.2.9:4000 198.51.100.2:443", "10.9.0.4:8443"), Way::Blocked(Block::NoForward)),
            (redirected("tcp 192.0.2.9:4000 203.0.113.51:25", "10.9.0.7:25"), Way::Blocked(Block::NoForward)),
        ],
    );
}

#[test]
fn behind_another_gateway_its_range_is_the_internet() {
    let mut site = site();
    if let Some(link) = &mut site.public {
        link.addresses = vec![read("192.168.1.2")];
    }
    let policy = policy_at(&config(), &site, None).unwrap();
    let way = |text: &str| Judge::of(&policy).way(&flow(text));
    assert_eq!(way("tcp 10.0.0.4:4000 192.168.7.7:443"), Way::Egress);
    assert_eq!(way("tcp 10.0.0.4:4000 172.16.9.9:443"), Way::Blocked(Block::Unroutable));
}
