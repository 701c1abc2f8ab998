//! The files in `tests/config`: the meaning of good files and the errors of bad ones.

use super::*;

fn files(directory: &str) -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(directory);
    let mut files: Vec<(String, String)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn every_error_of_a_bad_file_is_reported_at_once() {
    let files = files("bad");
    assert!(files.len() >= 30, "files are missing: {files:?}");
    let mut differing = Vec::new();
    for (name, text) in files {
        let expected: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("#! ")).collect();
        assert!(!expected.is_empty(), "{name} does not list its errors");
        let found = problems_of(&text);
        differing.extend((found != expected).then_some((name, found)));
    }
    assert_eq!(differing, []);
}

#[test]
fn every_good_file_gives_the_expected_configuration() {
    let mut expected = good();
    expected.sort_by_key(|(name, _)| *name);
    let files = files("good");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for ((name, text), (_, config)) in files.iter().zip(expected) {
        assert_eq!(parse(text, &Environment::default()), Ok(config), "{name}");
    }
}

fn good() -> Vec<(&'static str, Config)> {
    vec![
        ("empty", defaults()),
        ("only-comments", defaults()),
        ("empty-sections", defaults()),
        ("dedicated-server", dedicated_server()),
        ("ssh-from-ipv6", ssh_from_ipv6()),
        ("auto", auto()),
        ("dotted-and-inline", dotted_and_inline()),
        ("limits", limits()),
        ("policy-limits", policy_limits()),
        ("every-key", every_key()),
        ("tunnel-off", tunnel_off()),
        ("tunnel-alone", tunnel_alone()),
    ]
}

fn dedicated_server() -> Config {
    let mut config = defaults();
    config.site.public_interface = Some("enp1s0f0".parse().unwrap());
    config.site.private = vec![
        PrivateLink { address: Some(Ipv4Addr::new(10, 0, 0, 2)), ..link("enp1s0f1.4000", "10.0.0.0/16") },
        link("br-lab", "192.168.50.0/24"),
    ];
    config.firewall.ssh_ports = Some(BTreeSet::from([22]));
    config.firewall.ssh_from = vec!["203.0.113.7/32".parse().unwrap()];
    config.firewall.wireguard_port = None;
    config.hcloud.enabled = false;
    config
}

fn ssh_from_ipv6() -> Config {
    let mut config = defaults();
    let sources = ["2001:db8::/32", "2001:db8:1::7/128", "fe80::/10", "198.51.100.0/24", "203.0.113.7/32"];
    config.firewall.ssh_from = sources.map(|source| source.parse().unwrap()).to_vec();
    config
}

fn auto() -> Config {
    let mut config = defaults();
    config.site.private = vec![link("enp7s0", "10.0.0.0/16")];
    config
}

fn dotted_and_inline() -> Config {
    let mut config = defaults();
    config.log.level = tracing::Level::TRACE;
    config.nat.random_ports = false;
    config.site.private = vec![PrivateLink { network_id: Some(NetworkId(1234)), ..link("enp7s0", "10.0.0.0/16") }];
    config.hcloud.take_over = true;
    config
}

fn limits() -> Config {
    let mut config = defaults();
    config.site.server_id = Some(ServerId(9_007_199_254_740_991));
    config.site.private = vec![
        PrivateLink {
            address: Some(Ipv4Addr::new(10, 255, 255, 254)),
            network_id: Some(NetworkId(1)),
            ..link("fifteen-letters", "10.0.0.0/8")
        },
        PrivateLink { network_id: Some(NetworkId(9_007_199_254_740_991)), ..link("x", "172.16.0.1/32") },
    ];
    config.firewall = Firewall {
        ssh_ports: Some(BTreeSet::from([1, 65535])),
        ssh_from: vec!["::/0".parse().unwrap(), "::1/128".parse().unwrap()],
        wireguard_port: Some(65535),
        ..config.firewall
    };
    config.hcloud.destinations = Vec::new();
    config.hcloud.poll_interval = Duration::from_secs(24 * 3600);
    config
}

/// Values at the ends of their ranges.
fn policy_limits() -> Config {
    let mut config = defaults();
    config.nat.fastpath = Fastpath::Flowtable;
    config.nat.forwards = vec![
        Forward {
            name: Some("ü".repeat(64)),
            public: Vec::new(),
            ports: ports(1, 21),
            from: vec![net_v4("0.0.0.0/0")],
            ..forward(0, "198.51.100.2", 1, "172.31.255.254")
        },
        Forward {
            name: Some("x".to_owned()),
            public: Vec::new(),
            to_port: Some(1),
            ..forward(1, "198.51.100.2", 65535, "192.168.0.1")
        },
        Forward {
            public: Vec::new(),
            transports: Transports::Udp,
            ports: ports(51821, 65535),
            ..forward(2, "198.51.100.2", 1, "10.0.0.4")
        },
    ];
    config.egress.new_flows_per_second = Some(1);
    config.egress.max_flows = Some(8192);
    config.egress.lists.allow = Some(vec![Acl::default()]);
    config.networks = vec![NetworkPolicy {
        key: "network[0]".to_owned(),
        name: None,
        network: NetworkName::Range(net_v4("192.168.0.0/32")),
        also: Vec::new(),
        egress: Vec::new(),
        egress_addresses: Some(Vec::new()),
        lists: config.egress.lists.clone(),
    }];
    config.firewall = Firewall {
        ssh_attempts: Some(1_000_000),
        ssh_ban: Duration::from_secs(24 * 3600),
        pings_per_second: Some(1),
        syns_per_second: Some(1_000_000),
        blocklist: vec!["0.0.0.0/1".parse().unwrap(), "::1/128".parse().unwrap()],
        log_drops: LogDrops::Group(65535),
        metadata_users: None,
        ..config.firewall
    };
    config
}

fn tunnel_off() -> Config {
    let mut config = defaults();
    config.firewall.wireguard_port = None;
    config
}

/// A section without keys.
fn tunnel_alone() -> Config {
    let mut config = defaults();
    config.wireguard = Some(tunnel());
    config.warnings = vec![Diagnostic::new(
        "wireguard.addresses",
        "is empty, so peers cannot reach this server inside the tunnel; add an address",
    )];
    config
}

fn every_key() -> Config {
    Config {
        log: Log { level: tracing::Level::WARN },
        site: Site {
            public_interface: Some("eth0".parse().unwrap()),
            server_id: Some(ServerId(4711)),
            metadata_endpoint: "http://127.0.0.1:8000".to_owned(),
            docker: DockerBridges::Report,
            private: vec![
                PrivateLink {
                    address: Some(Ipv4Addr::new(10, 0, 0, 2)),
                    network_id: Some(NetworkId(1234)),
                    also: Vec::new(),
                    ..link("enp7s0", "10.0.0.0/16")
                },
                PrivateLink {
                    address: Some(Ipv4Addr::new(10, 2, 0, 2)),
                    network_id: Some(NetworkId(1235)),
                    also: Vec::new(),
                    ..link("enp8s0", "10.2.0.0/16")
                },
            ],
        },
        nat: every_key_of_nat(),
        egress: every_key_of_egress(),
        networks: every_key_of_networks(),
        tenants: vec![Acl {
            from: vec![net_v4("10.0.0.0/16")],
            to: vec![net_v4("10.2.0.4/32")],
            ..tcp(&[ports(5432, 5432), ports(8000, 8100)])
        }],
        firewall: every_key_of_the_firewall(),
        hcloud: Hcloud {
            enabled: false,
            endpoint: "https://api.example.org/v1".to_owned(),
            token: TokenSource { credential: None, files: vec!["/run/secrets/hcloud".into()], value: None },
            destinations: ["192.168.0.0/16", "0.0.0.0/0", "10.100.0.0/24"].map(|net| net.parse().unwrap()).to_vec(),
            take_over: true,
            poll_interval: Duration::from_secs(90),
            network: None,
        },
        health: Health {
            enabled: false,
            targets: vec!["203.0.113.53:5353".parse().unwrap(), "203.0.113.54:53".parse().unwrap()],
        },
        wireguard: Some(every_key_of_the_tunnel()),
        hosts: BTreeMap::new(),
        warnings: Vec::new(),
    }
}

fn every_key_of_nat() -> Nat {
    let address = |text: &str| -> Ipv4Addr { text.parse().unwrap() };
    Nat {
        random_ports: false,
        egress_addresses: vec![address("198.51.100.2"), address("203.0.113.50")],
        drain: BTreeSet::from([address("203.0.113.50")]),
        fastpath: Fastpath::Off,
        forwards: vec![
            Forward {
                name: Some("web".to_owned()),
                public: vec![address("198.51.100.2"), address("203.0.113.53")],
                transports: Transports::Both,
                to_port: Some(8443),
                from: vec![net_v4("203.0.113.0/24"), net_v4("192.0.2.7/32")],
                ..forward(0, "198.51.100.2", 443, "10.0.0.4")
            },
            Forward {
                public: Vec::new(),
                transports: Transports::Udp,
                ports: ports(30000, 30100),
                ..forward(1, "198.51.100.2", 1, "10.2.0.5")
            },
            forward(2, "198.51.100.2", 444, "10.0.0.4"),
        ],
        statics: vec![
            StaticNat {
                key: "nat.static[0]".to_owned(),
                name: Some("mail".to_owned()),
                public: address("203.0.113.51"),
                private: address("10.0.0.7"),
                open: vec![
                    Acl { from: vec![net_v4("192.0.2.0/24")], ..tcp(&[ports(25, 25), ports(8000, 8100)]) },
                    Acl { protocol: Protocol::Icmp, ..Acl::default() },
                    Acl::default(),
                ],
            },
            StaticNat {
                key: "nat.static[1]".to_owned(),
                name: None,
                public: address("203.0.113.54"),
                private: address("10.2.0.7"),
                open: Vec::new(),
            },
        ],
    }
}

fn every_key_of_egress() -> Egress {
    Egress {
        guard: false,
        new_flows_per_second: Some(100),
        max_flows: None,
        network_new_flows_per_second: Some(20_000),
        lists: EgressLists {
            smtp: true,
            allow: Some(vec![Acl {
                to: vec![net_v4("1.1.1.1/32"), net_v4("9.9.9.0/24")],
                protocol: Protocol::Udp,
                ports: vec![ports(53, 53)],
                ..Acl::default()
            }]),
            deny: vec![Acl { to: vec![net_v4("192.0.2.0/24")], ..Acl::default() }],
        },
    }
}

/// A block with every key, and a block that inherits everything.
fn every_key_of_networks() -> Vec<NetworkPolicy> {
    vec![
        NetworkPolicy {
            key: "network[0]".to_owned(),
            name: None,
            network: NetworkName::Range(net_v4("10.2.0.0/16")),
            also: Vec::new(),
            egress: Vec::new(),
            egress_addresses: Some(vec!["203.0.113.52".parse().unwrap()]),
            lists: EgressLists { smtp: false, allow: Some(vec![Acl::default()]), deny: Vec::new() },
        },
        NetworkPolicy {
            key: "network[1]".to_owned(),
            name: None,
            network: NetworkName::Range(net_v4("10.0.0.0/16")),
            also: Vec::new(),
            egress: Vec::new(),
            egress_addresses: None,
            lists: every_key_of_egress().lists,
        },
    ]
}

fn every_key_of_the_firewall() -> Firewall {
    Firewall {
        ssh_ports: Some(BTreeSet::from([22, 2222])),
        ssh_from: vec!["203.0.113.7/32".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        ssh_only_by_tunnel: true,
        ssh_attempts: Some(6),
        ssh_ban: Duration::from_secs(3600),
        wireguard_port: Some(51821),
        services: vec![
            Service {
                key: "firewall.service[0]".to_owned(),
                name: Some("node exporter".to_owned()),
                transports: Transports::Tcp,
                ports: vec![ports(9100, 9100), ports(9200, 9210)],
                from: vec!["10.0.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            },
            Service {
                key: "firewall.service[1]".to_owned(),
                name: None,
                transports: Transports::Both,
                ports: vec![ports(53, 53)],
                from: Vec::new(),
            },
        ],
        pings_per_second: None,
        syns_per_second: Some(50),
        new_flows_per_second: Some(300),
        max_flows: None,
        fair_share: false,
        blocklist: vec!["192.0.2.0/24".parse().unwrap(), "2001:db8:bad::/48".parse().unwrap()],
        log_drops: LogDrops::Group(5),
        metadata_users: Some(BTreeSet::from([998, 65_534])),
    }
}

fn every_key_of_the_tunnel() -> Wireguard {
    let net = |text: &str| text.parse().unwrap();
    Wireguard {
        interface: "wg-office".parse().unwrap(),
        listen_port: 51821,
        private_key: None,
        private_key_file: "/run/secrets/wireguard".into(),
        is_key_in_wg_file: false,
        addresses: vec![net("10.100.0.1/24"), net("fd00:100::1/64")],
        mtu: Some(1412),
        fwmark: 0xca6c,
        backend: BackendChoice::Auto,
        full_tunnel: true,
        routes: false,
        snat: Snat::Never,
        endpoint: Some("vpn.example.org:443".parse().unwrap()),
        dns: vec!["10.0.0.2".parse().unwrap(), "fd00:100::1".parse().unwrap()],
        out: Vec::new(),
        default_reach: None,
        groups: Vec::new(),
        peers: vec![
            Peer {
                name: Some("Ada's laptop".to_owned()),
                public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap(),
                preshared_key: Some("FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=".parse().unwrap()),
                allowed_ips: vec![net("10.100.0.2/32"), net("fd00:100::2/128")],
                in_private_network: false,
                endpoint: None,
                persistent_keepalive: None,
                enabled: true,
                expires: Some(UNIX_EPOCH + Duration::from_secs(1_801_418_400)),
                access: PeerAccess::default(),
            },
            Peer {
                name: Some("office".to_owned()),
                public_key: "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=".parse().unwrap(),
                preshared_key: None,
                allowed_ips: vec![net("10.100.0.3/32"), net("192.168.178.0/24")],
                in_private_network: false,
                endpoint: Some("vpn.example.org:51820".parse().unwrap()),
                persistent_keepalive: Some(25),
                enabled: true,
                expires: None,
                access: PeerAccess::default(),
            },
        ],
    }
}
