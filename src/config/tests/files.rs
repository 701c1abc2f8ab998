//! The files below `tests/config`: what good ones mean, and what bad ones are told.

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
fn every_bad_file_is_told_all_its_problems_at_once() {
    let files = files("bad");
    assert!(files.len() >= 30, "the files are gone: {files:?}");
    for (name, text) in files {
        let expected: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("#! ")).collect();
        assert!(!expected.is_empty(), "{name} does not say what is wrong with it");
        assert_eq!(problems_of(&text), expected, "{name}");
    }
}

#[test]
fn every_good_file_means_what_it_says() {
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

fn tunnel_off() -> Config {
    let mut config = defaults();
    config.firewall.wireguard_port = None;
    config
}

/// A section without a key.
fn tunnel_alone() -> Config {
    let mut config = defaults();
    config.wireguard = Some(tunnel());
    config.warnings = vec![Problem::new(
        "wireguard.addresses",
        "there are none, so peers cannot reach this server itself inside the tunnel",
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
            private: vec![
                PrivateLink {
                    address: Some(Ipv4Addr::new(10, 0, 0, 2)),
                    network_id: Some(NetworkId(1234)),
                    ..link("enp7s0", "10.0.0.0/16")
                },
                PrivateLink {
                    address: Some(Ipv4Addr::new(10, 2, 0, 2)),
                    network_id: Some(NetworkId(1235)),
                    ..link("enp8s0", "10.2.0.0/16")
                },
            ],
        },
        nat: Nat { random_ports: false, ..defaults().nat },
        egress: defaults().egress,
        networks: Vec::new(),
        tenants: Vec::new(),
        firewall: Firewall {
            ssh_ports: Some(BTreeSet::from([22, 2222])),
            ssh_from: vec!["203.0.113.7/32".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            wireguard_port: Some(51821),
            ..defaults().firewall
        },
        hcloud: Hcloud {
            enabled: false,
            endpoint: "https://api.example.org/v1".to_owned(),
            token: TokenSource { files: vec!["/run/secrets/hcloud".into()], value: None },
            destinations: ["192.168.0.0/16", "0.0.0.0/0", "10.100.0.0/24"].map(|net| net.parse().unwrap()).to_vec(),
            take_over: true,
            poll_interval: Duration::from_secs(90),
            network: None,
        },
        wireguard: Some(every_key_of_the_tunnel()),
        warnings: Vec::new(),
    }
}

fn every_key_of_the_tunnel() -> Wireguard {
    let net = |text: &str| text.parse().unwrap();
    Wireguard {
        interface: "wg-office".parse().unwrap(),
        listen_port: 51821,
        private_key: None,
        private_key_file: "/run/secrets/wireguard".into(),
        addresses: vec![net("10.100.0.1/24"), net("fd00:100::1/64")],
        mtu: Some(1412),
        fwmark: 0xca6c,
        backend: Backend::Auto,
        full_tunnel: true,
        snat: Snat::Never,
        peers: vec![
            Peer {
                name: Some("Ada's laptop".to_owned()),
                public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap(),
                preshared_key: Some("FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=".parse().unwrap()),
                allowed_ips: vec![net("10.100.0.2/32"), net("fd00:100::2/128")],
                endpoint: None,
                persistent_keepalive: None,
            },
            Peer {
                name: Some("office".to_owned()),
                public_key: "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=".parse().unwrap(),
                preshared_key: None,
                allowed_ips: vec![net("10.100.0.3/32"), net("192.168.178.0/24")],
                endpoint: Some("vpn.example.org:51820".parse().unwrap()),
                persistent_keepalive: Some(25),
            },
        ],
    }
}
