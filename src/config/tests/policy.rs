//! The policy: warnings, values that a network inherits, limits, and the time that checks take.

use std::time::Instant;

use super::*;

const TUNNEL: &str = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n[[wireguard.peer]]\n\
                      public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2\"]\n";

/// A file with one forward to a private host, with these keys.
fn one_forward(keys: &str) -> String {
    format!("[[nat.forward]]\nto = \"10.0.0.4\"\n{keys}\n")
}

#[test]
fn a_forward_of_the_bastions_own_ports_at_a_listed_address_gets_a_warning() {
    let warnings = |public: &str, protocol: &str, port: &str| {
        warnings_of(&one_forward(&format!("public = [{public}]\nprotocol = \"{protocol}\"\nport = {port}")))
    };
    assert_eq!(
        warnings("\"198.51.100.2\"", "tcp", "22"),
        ["nat.forward[0].port: 22/tcp is this server's SSH port: if you log in at 198.51.100.2, this locks you out; \
          choose another port or address"]
    );
    assert_eq!(
        warnings("\"198.51.100.2\", \"198.51.100.3\"", "both", "\"1-65535\""),
        [
            "nat.forward[0].port: 22/tcp is this server's SSH port: if you log in at 198.51.100.2 or another listed \
             address, this locks you out; choose another port or address",
            "nat.forward[0].port: 51820/udp is this server's WireGuard port: peers cannot connect to 198.51.100.2 or \
             another listed address; choose another port or address",
        ]
    );
    assert_eq!(warnings("\"198.51.100.2\"", "udp", "22"), [""; 0]);
    assert_eq!(warnings("\"198.51.100.2\"", "tcp", "51820"), [""; 0]);
}

#[test]
fn a_port_that_the_bastion_does_not_use_can_be_forwarded() {
    let ssh = one_forward("port = 22");
    let tunnel = one_forward("port = 51820\nprotocol = \"udp\"");
    for text in [
        format!("firewall.ssh_ports = [2222]\n{ssh}"),
        format!("firewall.ssh_only_by_tunnel = true\n{ssh}{TUNNEL}"),
        format!("firewall.wireguard_port = false\n{tunnel}"),
        format!("wireguard = {{ listen_port = 51821, addresses = [\"10.100.0.1/24\"] }}\n{tunnel}"),
    ] {
        assert_eq!(problems_of(&text), [""; 0], "{text}");
        assert_eq!(warnings_of(&text), [""; 0], "{text}");
    }
}

#[test]
fn ssh_only_by_tunnel_needs_a_tunnel_with_peers_that_can_connect() {
    let text = format!("firewall.ssh_only_by_tunnel = true\n{TUNNEL}");
    assert!(parse(&text, &Environment::default()).unwrap().firewall.ssh_only_by_tunnel);
    // A peer with an endpoint needs no open port, because this server initiates the handshake.
    let text = format!(
        "firewall = {{ ssh_only_by_tunnel = true, wireguard_port = false }}\n{TUNNEL}endpoint = \"192.0.2.7:51820\"\n"
    );
    assert!(parse(&text, &Environment::default()).unwrap().firewall.ssh_only_by_tunnel);
    // A tunnel with errors is reported once.
    assert_eq!(
        problems_of("firewall.ssh_only_by_tunnel = true\nwireguard.addresses = [\"gateway\"]"),
        ["wireguard.addresses[0]: `gateway` is not an address with a prefix (like 10.100.0.1/24 or fd00:100::1/64)"]
    );
}

#[test]
fn a_probable_mistake_gets_a_warning() {
    for (text, warned) in [
        (
            "egress.allow = []",
            "egress.allow: is empty, so nothing may go out; remove the key to allow every destination",
        ),
        (
            "[[network]]\nrange = \"10.0.0.0/16\"\nallow = []",
            "network[0].allow: is empty, so nothing may go out; remove the key to allow every destination",
        ),
        (
            "egress.allow = [{ protocol = \"tcp\", ports = [80, \"20-30\"] }]",
            "egress.allow: allows TCP port 25, which stays closed unless egress.smtp = true",
        ),
        (
            "[[firewall.service]]\nports = [80, \"20-30\"]",
            "firewall.service[0].ports[1]: opens SSH port 22 to sources that firewall.ssh_from and the SSH \
             limits would stop; remove the port",
        ),
        (
            "[[firewall.service]]\nports = [9100]\n\
             [[nat.forward]]\nprotocol = \"both\"\nport = \"9000-9200\"\nto = \"10.0.0.4\"",
            "nat.forward[0].port: takes ports of firewall.service[0] at every public address, where the \
             service cannot be reached any more",
        ),
    ] {
        assert_eq!(warnings_of(text), [warned], "{text}");
    }
    for text in [
        "egress = { smtp = true, allow = [{ protocol = \"tcp\", ports = [25] }] }",
        "egress.allow = [{ protocol = \"udp\", ports = [25] }]",
        "egress.max_flows = 1000000",
        "[[firewall.service]]\nprotocol = \"udp\"\nports = [22]",
        "[[firewall.service]]\nprotocol = \"udp\"\nports = [9100]\n[[nat.forward]]\nport = 9100\nto = \"10.0.0.4\"",
        "[[firewall.service]]\nports = [9100]\n[[nat.forward]]\nport = 9101\nto = \"10.0.0.4\"",
    ] {
        assert_eq!(warnings_of(text), [""; 0], "{text}");
    }
}

#[test]
fn a_network_inherits_the_keys_that_it_does_not_have() {
    let text = "nat.egress_addresses = [\"198.51.100.2\"]\n[egress]\nsmtp = true\n\
                deny = [{ to = [\"192.0.2.0/24\"] }]\n[[network]]\nrange = \"10.0.0.0/16\"\n\
                [[network]]\nrange = \"10.1.0.0/16\"\nsmtp = false\negress_addresses = \"auto\"\n\
                [[network]]\nrange = \"10.2.0.0/16\"\nallow = []\n\
                [[network]]\nrange = \"10.3.0.0/16\"\ndeny = []\n";
    let networks = parse(text, &Environment::default()).unwrap().networks;
    let deny = vec![Acl { to: vec![net_v4("192.0.2.0/24")], ..Acl::default() }];
    let all = EgressLists { smtp: true, allow: None, deny };
    let expected = [
        (None, all.clone()),
        // "auto", the public interface's own address, is not the same as an absent key.
        (Some(Vec::new()), EgressLists { smtp: false, ..all.clone() }),
        (None, EgressLists { allow: Some(Vec::new()), ..all.clone() }),
        (None, EgressLists { deny: Vec::new(), ..all }),
    ];
    let found: Vec<_> = networks.into_iter().map(|network| (network.egress_addresses, network.lists)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_link_with_an_error_causes_no_further_errors_about_its_hosts() {
    let links = |second: &str| {
        format!(
            "[[site.private]]\ninterface = \"enp7s0\"\nnetwork = \"10.0.0.0/16\"\n{second}\
             [[nat.forward]]\nport = 443\nto = \"10.2.0.4\"\n[[network]]\nrange = \"10.2.0.0/16\"\n"
        )
    };
    let outside = [
        "nat.forward[0].to: 10.2.0.4 is outside every network of [[site.private]]",
        "network[0].range: 10.2.0.0/16 is not a network of [[site.private]]",
    ];
    assert_eq!(problems_of(&links("")), outside);
    let second = "[[site.private]]\ninterface = \"enp8s0\"\nnetwork = \"10.2.0.0/166\"\n";
    assert_eq!(
        problems_of(&links(second)),
        ["site.private[1].network: `10.2.0.0/166`: a prefix length is a number from 0 to 32"]
    );
    let second = "[[site.private]]\ninterface = \"enp8s0\"\nnetwork = \"10.2.0.0/16\"\n";
    assert_eq!(problems_of(&links(second)), [""; 0]);
    // Without blocks, discovery finds the networks.
    assert_eq!(problems_of("site.private = []\nnat.forward = [{ port = 443, to = \"10.2.0.4\" }]"), [""; 0]);
}

#[test]
fn a_wrong_list_of_egress_addresses_causes_no_further_errors_about_drain() {
    let errors = |addresses: &str| {
        problems_of(&format!("nat = {{ egress_addresses = {addresses}, drain = [\"198.51.100.2\"] }}"))
    };
    let wrong = "nat.egress_addresses[0]: `198.51.100.2.` is not an IPv4 address (like 10.0.0.4 or 203.0.113.7)";
    assert_eq!(errors("[\"198.51.100.2.\", \"198.51.100.3\"]"), [wrong]);
    assert_eq!(
        errors("\"198.51.100.2\""),
        ["nat.egress_addresses: expected a list or \"auto\", found \"198.51.100.2\""]
    );
    let reason = "nat.drain[0]: 198.51.100.2 is not in any list of egress_addresses; only those can be drained";
    assert_eq!(errors("\"auto\""), [reason]);
    assert_eq!(errors("[\"198.51.100.3\"]"), [reason]);
}

#[test]
fn a_list_of_addresses_has_at_most_64_elements() {
    let addresses = |count: u8| (1..=count).map(|n| format!("\"198.51.100.{n}\"")).collect::<Vec<_>>().join(", ");
    let pool = |count| problems_of(&format!("nat.egress_addresses = [{}]", addresses(count)));
    let forward = |count| problems_of(&one_forward(&format!("port = 443\npublic = [{}]", addresses(count))));
    assert_eq!((pool(64), forward(64)), (Vec::new(), Vec::new()));
    assert_eq!(pool(65), ["nat.egress_addresses: 65 addresses; at most 64 are supported"]);
    assert_eq!(forward(65), ["nat.forward[0].public: 65 addresses; at most 64 are supported"]);
}

#[test]
fn all_access_lists_together_have_at_most_65536_entries() {
    let lists = |last: u32| {
        let ranges = |count: u32| {
            (0..count).map(|n| format!("\"{}\"", Ipv4Addr::from(0x0a00_0000 + n))).collect::<Vec<_>>().join(", ")
        };
        let ports = (1..=128).map(|port: u16| port.to_string()).collect::<Vec<_>>().join(", ");
        format!(
            "egress.deny = [{{ to = [{}], protocol = \"tcp\", ports = [{ports}] }}]\n\
             tenants.allow = [{{ from = [{}], to = [{}] }}]\n",
            ranges(256),
            ranges(last),
            ranges(256),
        )
    };
    assert_eq!(problems_of(&lists(128)), [""; 0]);
    assert_eq!(
        problems_of(&lists(129)),
        ["tenants.allow: there are 65792 entries in all access lists together (each source counted with each \
             destination and port); at most 65536 are supported, so use fewer"]
    );
}

#[test]
fn all_forwards_together_have_at_most_65536_entries() {
    let forwards = |last: u32| {
        let sources = |count: u32| {
            (0..count).map(|n| format!("\"{}\"", Ipv4Addr::from(0x0a00_0000 + 2 * n))).collect::<Vec<_>>().join(", ")
        };
        let block = |port: u16, count: u32| {
            format!(
                "[[nat.forward]]\npublic = [\"198.51.100.2\", \"198.51.100.3\"]\nprotocol = \"both\"\nport = {port}\n\
                 to = \"10.0.0.4\"\nfrom = [{}]\n",
                sources(count)
            )
        };
        block(80, 8192) + &block(81, last)
    };
    assert_eq!(problems_of(&forwards(8192)), [""; 0]);
    assert_eq!(
        problems_of(&forwards(8193)),
        ["nat.forward[1]: there are 65540 entries in all forwards together (each public address counted with each \
             protocol and source); at most 65536 are supported, so use fewer"]
    );
}

/// The text of ten thousand forwards with all keys.
fn ten_thousand_forwards() -> String {
    let block = |n: u32| {
        format!(
            "[[nat.forward]]\nname = \"forward {n}\"\npublic = [\"198.51.100.{}\"]\nprotocol = \"both\"\nport = {}\n\
             to = \"{}\"\nto_port = 8080\nfrom = [\"203.0.113.0/24\"]\n",
            1 + n % 4,
            1000 + n / 4,
            Ipv4Addr::from(0x0a00_0004 + n),
        )
    };
    (0..10_000).map(block).collect()
}

#[test]
fn ten_thousand_forwards_are_checked_within_ten_seconds() {
    let text = ten_thousand_forwards();
    let started = Instant::now();
    let forwards = parse(&text, &Environment::default()).unwrap().nat.forwards;
    let took = started.elapsed();
    println!("10000 forwards in {} bytes: {took:?}", text.len());
    assert_eq!(forwards.len(), 10_000);
    assert_eq!(
        forwards[9_999],
        Forward {
            name: Some("forward 9999".to_owned()),
            transports: Transports::Both,
            to_port: Some(8080),
            from: vec![net_v4("203.0.113.0/24")],
            ..forward(9_999, "198.51.100.4", 3499, "10.0.39.19")
        }
    );
    // An optimised build takes about 50 ms. The limit suits a debug build on a busy machine; a quadratic check takes
    // minutes.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn ten_thousand_forwards_of_one_port_are_reported_within_ten_seconds() {
    for public in ["", "public = [\"198.51.100.2\"]\n"] {
        let text = format!("[[nat.forward]]\nport = \"1000-60000\"\nto = \"10.0.0.4\"\n{public}").repeat(10_000);
        let text = format!("firewall.wireguard_port = false\n{text}");
        let started = Instant::now();
        let problems = problems_of(&text);
        assert_eq!(problems.len(), 9_999);
        assert_eq!(
            problems[0],
            "nat.forward[1000].port: 1000-60000/tcp overlaps 1000-60000 of nat.forward[0]; a public port can lead to \
             only one host"
        );
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

#[test]
fn a_forward_that_takes_the_protocol_of_a_service_or_that_no_router_forwards_gets_a_warning() {
    let text = "
        [[nat.forward]]
        protocol = \"esp\"
        to = \"10.0.0.4\"
        [[nat.forward]]
        protocol = 112
        public = [\"198.51.100.3\"]
        to = \"10.0.0.4\"
        snat = true
        [[nat.forward]]
        protocol = \"ipip\"
        to = \"10.0.0.4\"
        from = [\"203.0.113.10\"]
        snat = true
        [[firewall.service]]
        protocol = 50
        [[firewall.service]]
        protocol = \"gre\"";
    assert_eq!(
        warnings_of(text),
        [
            "nat.forward[0].protocol: takes the protocol of firewall.service[0] at every public address, where the \
             service cannot be reached any more",
            "nat.forward[1].protocol: vrrp is for hosts on one link: what passed a router is not accepted",
            "nat.forward[1].snat: vrrp has no ports by which the host's answers could be told apart, so only one \
             client at a time gets through; name a single client in `from`, or leave out `snat`",
        ]
    );
}
