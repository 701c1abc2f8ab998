//! What may pass the gateway: what is only warned of, what is taken over from where, and how long it takes.

use std::time::Instant;

use super::*;

const TUNNEL: &str = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n[[wireguard.peer]]\n\
                      public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\nallowed_ips = [\"10.100.0.2\"]\n";

/// A file with these keys in a forward to a private host, and nothing else.
fn one_forward(keys: &str) -> String {
    format!("[[nat.forward]]\nto = \"10.0.0.4\"\n{keys}\n")
}

#[test]
fn a_forward_of_the_bastions_own_ports_from_a_named_address_is_warned_of() {
    let of = |public: &str, protocol: &str, port: &str| {
        warnings_of(&one_forward(&format!("public = [{public}]\nprotocol = \"{protocol}\"\nport = {port}")))
    };
    assert_eq!(
        of("\"198.51.100.2\"", "tcp", "22"),
        ["nat.forward[0].port: 22/tcp is this server's SSH port: if you log in by 198.51.100.2, you are locked out"]
    );
    assert_eq!(
        of("\"198.51.100.2\", \"198.51.100.3\"", "both", "\"1-65535\""),
        [
            "nat.forward[0].port: 22/tcp is this server's SSH port: if you log in by 198.51.100.2 or another address of \
             the list, you are locked out",
            "nat.forward[0].port: 51820/udp is this server's WireGuard port: by 198.51.100.2 or another address of the list \
             no peer gets in",
        ]
    );
    assert_eq!(of("\"198.51.100.2\"", "udp", "22"), [""; 0]);
    assert_eq!(of("\"198.51.100.2\"", "tcp", "51820"), [""; 0]);
}

#[test]
fn ports_that_the_bastion_does_not_need_lead_elsewhere() {
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
fn ssh_may_be_left_to_a_tunnel_that_somebody_gets_in_by() {
    let text = format!("firewall.ssh_only_by_tunnel = true\n{TUNNEL}");
    assert!(parse(&text, &Environment::default()).unwrap().firewall.ssh_only_by_tunnel);
    // A peer that this server calls itself needs no open port.
    let text = format!(
        "firewall = {{ ssh_only_by_tunnel = true, wireguard_port = false }}\n{TUNNEL}endpoint = \"192.0.2.7:51820\"\n"
    );
    assert!(parse(&text, &Environment::default()).unwrap().firewall.ssh_only_by_tunnel);
    // A tunnel that is wrong is told of once.
    assert_eq!(
        problems_of("firewall.ssh_only_by_tunnel = true\nwireguard.addresses = [\"gateway\"]"),
        ["wireguard.addresses[0]: `gateway` is no address with a prefix (like 10.100.0.1/24 or fd00:100::1/64)"]
    );
}

#[test]
fn what_is_allowed_but_hardly_meant_is_warned_of() {
    for (text, warned) in [
        ("egress.allow = []", "egress.allow: is empty, so nothing may go out"),
        ("[[network]]\nrange = \"10.0.0.0/16\"\nallow = []", "network[0].allow: is empty, so nothing may go out"),
        (
            "egress.allow = [{ protocol = \"tcp\", ports = [80, \"20-30\"] }]",
            "egress.allow: names TCP port 25, which stays closed without egress.smtp = true",
        ),
        (
            "egress.max_flows = 65537",
            "egress.max_flows: 65537 is much: the kernel walks the list of a source's flows with its new ones, a millisecond \
             at 8192",
        ),
        (
            "[[firewall.service]]\nports = [80, \"20-30\"]",
            "firewall.service[0].ports[1]: opens SSH's port 22 past firewall.ssh_from and its limits",
        ),
        (
            "[[firewall.service]]\nports = [9100]\n\
             [[nat.forward]]\nprotocol = \"both\"\nport = \"9000-9200\"\nto = \"10.0.0.4\"",
            "nat.forward[0].port: takes ports of firewall.service[0] at every public address: nobody reaches it there",
        ),
    ] {
        assert_eq!(warnings_of(text), [warned], "{text}");
    }
    for text in [
        "egress = { smtp = true, allow = [{ protocol = \"tcp\", ports = [25] }] }",
        "egress.allow = [{ protocol = \"udp\", ports = [25] }]",
        "egress.max_flows = 8192",
        "[[firewall.service]]\nprotocol = \"udp\"\nports = [22]",
        "[[firewall.service]]\nprotocol = \"udp\"\nports = [9100]\n[[nat.forward]]\nport = 9100\nto = \"10.0.0.4\"",
        "[[firewall.service]]\nports = [9100]\n[[nat.forward]]\nport = 9101\nto = \"10.0.0.4\"",
    ] {
        assert_eq!(warnings_of(text), [""; 0], "{text}");
    }
}

#[test]
fn a_network_takes_over_what_it_does_not_say() {
    let text = "nat.egress_addresses = [\"198.51.100.2\"]\n[egress]\nsmtp = true\ndeny = [{ to = [\"192.0.2.0/24\"] }]\n\
                [[network]]\nrange = \"10.0.0.0/16\"\n\
                [[network]]\nrange = \"10.1.0.0/16\"\nsmtp = false\negress_addresses = \"auto\"\n\
                [[network]]\nrange = \"10.2.0.0/16\"\nallow = []\n\
                [[network]]\nrange = \"10.3.0.0/16\"\ndeny = []\n";
    let networks = parse(text, &Environment::default()).unwrap().networks;
    let deny = vec![Acl { to: vec![net_v4("192.0.2.0/24")], ..Acl::default() }];
    let all = EgressLists { smtp: true, allow: None, deny };
    let expected = [
        (None, all.clone()),
        // The public interface's own address is a choice, too.
        (Some(Vec::new()), EgressLists { smtp: false, ..all.clone() }),
        (None, EgressLists { allow: Some(Vec::new()), ..all.clone() }),
        (None, EgressLists { deny: Vec::new(), ..all }),
    ];
    let found: Vec<_> = networks.into_iter().map(|network| (network.egress_addresses, network.lists)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_link_that_is_wrong_makes_no_host_of_it_wrong() {
    let links = |second: &str| {
        format!(
            "[[site.private]]\ninterface = \"enp7s0\"\nnetwork = \"10.0.0.0/16\"\n{second}\
             [[nat.forward]]\nport = 443\nto = \"10.2.0.4\"\n[[network]]\nrange = \"10.2.0.0/16\"\n"
        )
    };
    let outside = [
        "nat.forward[0].to: 10.2.0.4 lies outside of every network of [[site.private]]",
        "network[0].range: 10.2.0.0/16 is no network of [[site.private]]",
    ];
    assert_eq!(problems_of(&links("")), outside);
    let second = "[[site.private]]\ninterface = \"enp8s0\"\nnetwork = \"10.2.0.0/166\"\n";
    assert_eq!(
        problems_of(&links(second)),
        ["site.private[1].network: `10.2.0.0/166` is no IPv4 range (like 10.0.0.0/16)"]
    );
    let second = "[[site.private]]\ninterface = \"enp8s0\"\nnetwork = \"10.2.0.0/16\"\n";
    assert_eq!(problems_of(&links(second)), [""; 0]);
    // No blocks, so discovery has the say.
    assert_eq!(problems_of("site.private = []\nnat.forward = [{ port = 443, to = \"10.2.0.4\" }]"), [""; 0]);
}

#[test]
fn a_list_of_addresses_that_is_wrong_makes_nothing_wrong_that_is_drained() {
    let told = |addresses: &str| {
        problems_of(&format!("nat = {{ egress_addresses = {addresses}, drain = [\"198.51.100.2\"] }}"))
    };
    let wrong = "nat.egress_addresses[0]: `198.51.100.2.` is no IPv4 address (like 10.0.0.4 or 203.0.113.7)";
    assert_eq!(told("[\"198.51.100.2.\", \"198.51.100.3\"]"), [wrong]);
    assert_eq!(told("\"198.51.100.2\""), ["nat.egress_addresses: expected a list or \"auto\", found \"198.51.100.2\""]);
    let reason = "nat.drain[0]: 198.51.100.2 is in no list of egress_addresses: only those can be drained";
    assert_eq!(told("\"auto\""), [reason]);
    assert_eq!(told("[\"198.51.100.3\"]"), [reason]);
}

#[test]
fn lists_of_addresses_have_an_end() {
    let addresses = |count: u8| (1..=count).map(|n| format!("\"198.51.100.{n}\"")).collect::<Vec<_>>().join(", ");
    let pool = |count| problems_of(&format!("nat.egress_addresses = [{}]", addresses(count)));
    let forward = |count| problems_of(&one_forward(&format!("port = 443\npublic = [{}]", addresses(count))));
    assert_eq!((pool(64), forward(64)), (Vec::new(), Vec::new()));
    assert_eq!(pool(65), ["nat.egress_addresses: 65 addresses; at most 64 are supported"]);
    assert_eq!(forward(65), ["nat.forward[0].public: 65 addresses; at most 64 are supported"]);
}

#[test]
fn all_access_lists_together_have_an_end() {
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
        [
            "tenants.allow: there are 65792 entries in all access lists together, each source counted with each destination \
             and port; at most 65536 are supported"
        ]
    );
}

#[test]
fn all_forwards_together_have_an_end() {
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
        [
            "nat.forward[1]: there are 65540 entries in all forwards together, each public address counted with each protocol and \
             source; at most 65536 are supported"
        ]
    );
}

/// Ten thousand forwards as they are written, with all keys.
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
fn ten_thousand_forwards_are_checked_in_no_time() {
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
    // About 50 ms of an optimised build, which a debug build on a busy machine is far from; what is quadratic takes minutes.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn ten_thousand_forwards_of_one_port_are_told_in_no_time() {
    for public in ["", "public = [\"198.51.100.2\"]\n"] {
        let text = format!("[[nat.forward]]\nport = \"1000-60000\"\nto = \"10.0.0.4\"\n{public}").repeat(10_000);
        let text = format!("firewall.wireguard_port = false\n{text}");
        let started = Instant::now();
        let problems = problems_of(&text);
        assert_eq!(problems.len(), 9_999);
        assert_eq!(
            problems[0],
            "nat.forward[1000].port: 1000-60000/tcp overlaps 1000-60000 of nat.forward[0]: a port leads to one host"
        );
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}
