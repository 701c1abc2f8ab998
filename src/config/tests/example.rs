//! `config.example.toml` documents every key, and what it says is true.

use super::*;

const EXAMPLE: &str = include_str!("../../../config.example.toml");

/// The file with its commented keys made active (`#interface = …`; prose has a space after the `#`).
fn uncommented() -> String {
    let is_commented_key = |line: &str| {
        let rest = line.strip_prefix('#').unwrap_or_default();
        rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[')
    };
    let lines = EXAMPLE.lines().map(|line| if is_commented_key(line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

/// Keys that replace another key.
const ALTERNATIVES: [&str; 3] = ["preshared_key = ", "file = ", "interface = \"virbr0\""];

fn without_alternatives(text: &str) -> String {
    let stays = |line: &&str| !ALTERNATIVES.iter().any(|key| line.starts_with(key));
    text.lines().filter(stays).collect::<Vec<_>>().join("\n")
}

/// Every key of a file, dotted, without the numbers of blocks.
fn keys(text: &str) -> BTreeSet<String> {
    fn collect(section: &str, table: &toml::Table, keys: &mut BTreeSet<String>) {
        for (name, value) in table {
            let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            match value {
                toml::Value::Table(table) => collect(&key, table, keys),
                toml::Value::Array(blocks) if blocks.iter().any(toml::Value::is_table) => {
                    blocks.iter().filter_map(toml::Value::as_table).for_each(|block| collect(&key, block, keys));
                }
                _ if section == "hosts" => {}
                _ => {
                    keys.insert(key);
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    collect("", &text.parse().unwrap(), &mut found);
    found
}

fn known() -> BTreeSet<String> {
    KNOWN_KEYS.iter().map(|&key| key.to_owned()).collect()
}

#[test]
fn the_example_means_the_same_as_an_empty_file() {
    assert_eq!(parse(EXAMPLE, &Environment::default()), Ok(defaults()));
    assert_eq!(parse("", &Environment::default()), Ok(defaults()));
}

#[test]
fn the_example_documents_every_key_and_no_other() {
    assert_eq!(keys(&uncommented()), known());
}

#[test]
fn every_key_with_a_default_is_active_in_the_example() {
    let blocks = [
        "site.private.",
        "nat.forward.",
        "nat.static.",
        "egress.allow.",
        "egress.deny.",
        "network.",
        "tenants.",
        "hosts.",
        "firewall.service.",
        "wireguard.",
    ];
    let is_in_block = |key: &String| blocks.iter().any(|block| key.starts_with(block));
    let active: BTreeSet<String> = known().into_iter().filter(|key| !is_in_block(key)).collect();
    assert_eq!(keys(EXAMPLE), active);
}

#[test]
fn the_example_with_its_comments_removed_is_valid() {
    let mut config = defaults();
    config.site.private = vec![PrivateLink {
        address: Some(Ipv4Addr::new(10, 0, 0, 2)),
        network_id: Some(NetworkId(1234)),
        also: vec![net_v4("10.244.0.0/16")],
        ..link("enp7s0", "10.0.0.0/16")
    }];
    config.nat.forwards = vec![Forward {
        name: Some("web".to_owned()),
        to_port: Some(8443),
        from: vec![net_v4("203.0.113.0/24")],
        ..forward(0, "198.51.100.2", 443, "10.0.0.4")
    }];
    config.nat.statics = vec![StaticNat {
        key: "nat.static[0]".to_owned(),
        name: Some("mail".to_owned()),
        public: "203.0.113.51".parse().unwrap(),
        private: "10.0.0.7".parse().unwrap(),
        open: vec![
            Acl { from: vec![net_v4("203.0.113.0/24")], ..tcp(&[ports(25, 25), ports(80, 80), ports(8000, 8100)]) },
            Acl { protocol: Protocol::Icmp, ..Acl::default() },
        ],
    }];
    let test_net = net_v4("192.0.2.0/24");
    config.egress.lists.allow = Some(vec![
        Acl {
            to: vec![net_v4("1.1.1.1/32"), net_v4("9.9.9.0/24")],
            protocol: Protocol::Udp,
            ports: vec![ports(53, 53)],
            ..Acl::default()
        },
        tcp(&[ports(80, 80), ports(443, 443)]),
    ]);
    config.egress.lists.deny =
        vec![Acl { to: vec![test_net], ..Acl::default() }, tcp(&[ports(6667, 6667), ports(6690, 6699)])];
    config.networks = vec![NetworkPolicy {
        key: "network[0]".to_owned(),
        name: Some("office".to_owned()),
        network: NetworkName::Range(net_v4("10.0.0.0/16")),
        also: vec![net_v4("10.8.0.0/24")],
        egress: vec![EgressOfHosts {
            key: "network[0].egress[0]".to_owned(),
            from: vec![net_v4("10.0.2.0/24"), net_v4("10.0.0.9/32")],
            addresses: vec!["203.0.113.53".parse().unwrap()],
        }],
        egress_addresses: Some(vec!["203.0.113.52".parse().unwrap()]),
        lists: EgressLists {
            smtp: true,
            allow: Some(vec![Acl { to: vec![net_v4("0.0.0.0/0")], ..tcp(&[ports(25, 25), ports(443, 443)]) }]),
            deny: vec![Acl { to: vec![test_net], ..tcp(&[ports(25, 25)]) }],
        },
    }];
    config.tenants =
        vec![Acl { from: vec![net_v4("10.0.0.0/16")], to: vec![net_v4("10.2.0.0/16")], ..tcp(&[ports(5432, 5432)]) }];
    config.firewall.services = vec![Service {
        key: "firewall.service[0]".to_owned(),
        name: Some("node exporter".to_owned()),
        transports: Transports::Tcp,
        ports: vec![ports(9100, 9100)],
        from: vec![net_v4("10.0.0.0/16").into()],
    }];
    let secret = "/etc/bastiond/ada.key";
    let files = [(secret, "FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=\n")].into_iter().collect::<InMemory>();
    config.hosts = hosts();
    config.wireguard = Some(tunnel_of_the_example());
    assert_eq!(parse_with(&without_alternatives(&uncommented()), &Environment::default(), &files), Ok(config));
}

fn hosts() -> BTreeMap<String, Vec<Ipv4Net>> {
    [
        ("db".to_owned(), vec![net_v4("10.0.0.5/32")]),
        ("web".to_owned(), vec![net_v4("10.0.0.6/32"), net_v4("10.0.3.0/24")]),
    ]
    .into()
}

fn tunnel_of_the_example() -> Wireguard {
    let entry = |place, protocol, ports: &[Ports]| AccessEntry { place, protocol, ports: ports.to_vec() };
    let net = |text: &str| text.parse().unwrap();
    Wireguard {
        addresses: vec![net("10.100.0.1/24"), net("fd00:100::1/64")],
        endpoint: Some("vpn.example.org:51820".parse().unwrap()),
        default_reach: Some(vec![AccessEntry::all_of(Place::Private), AccessEntry::all_of(Place::BastionSsh)]),
        groups: vec![Group {
            name: "dev".to_owned(),
            lists: AccessLists {
                reach: Some(vec![
                    entry(
                        Place::Host("db".to_owned(), vec![net_v4("10.0.0.5/32")]),
                        Protocol::Tcp,
                        &[ports(5432, 5440)],
                    ),
                    AccessEntry::all_of(Place::Network("office".to_owned(), NetworkName::Range(net_v4("10.0.0.0/16")))),
                    AccessEntry::all_of(Place::BastionSsh),
                ]),
                deny: vec![entry(Place::Range(net_v4("10.0.1.0/24")), Protocol::Tcp, &[ports(25, 25)])],
                from: Some(vec![AccessEntry::all_of(Place::Range(net_v4("10.0.0.7/32")))]),
            },
        }],
        peers: vec![Peer {
            name: Some("Ada's laptop".to_owned()),
            public_key: "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=".parse().unwrap(),
            preshared_key: Some("FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=".parse().unwrap()),
            allowed_ips: vec![net("10.100.0.2/32"), net("fd00:100::2/128")],
            in_private_network: false,
            endpoint: Some("vpn.example.org:51820".parse().unwrap()),
            persistent_keepalive: Some(25),
            enabled: true,
            expires: Some(UNIX_EPOCH + Duration::from_secs(4_102_423_200)),
            access: PeerAccess {
                groups: vec!["dev".to_owned()],
                lists: AccessLists {
                    reach: Some(vec![entry(Place::Range(net_v4("10.0.2.0/24")), Protocol::Any, &[])]),
                    deny: vec![entry(Place::Range(net_v4("10.0.2.9/32")), Protocol::Icmp, &[])],
                    from: Some(vec![entry(Place::Peers, Protocol::Tcp, &[ports(22, 22)])]),
                },
            },
        }],
        ..tunnel()
    }
}

#[test]
fn the_tunnel_in_the_example_has_the_default_values() {
    let wanted = [
        "enabled",
        "interface",
        "listen_port",
        "private_key_file",
        "mtu",
        "fwmark",
        "backend",
        "full_tunnel",
        "routes",
        "snat",
        "dns",
    ];
    let uncommented = uncommented();
    let of_the_tunnel = uncommented.lines().skip_while(|line| *line != "[wireguard]");
    let of_the_tunnel = of_the_tunnel.take_while(|line| *line != "[[wireguard.group]]");
    let is_default = |line: &&str| wanted.iter().any(|key| line.starts_with(&format!("{key} = ")));
    let lines: Vec<&str> = of_the_tunnel.filter(is_default).collect();
    assert_eq!(lines.len(), wanted.len());
    let config = parse(&format!("[wireguard]\n{}", lines.join("\n")), &Environment::default()).unwrap();
    assert_eq!(config.wireguard, Some(tunnel()));
}

#[test]
fn every_key_of_the_example_has_a_comment_above_it() {
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let is_key = |line: &str| line.trim_start_matches('#').starts_with(|c: char| c.is_ascii_lowercase());
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_key(line)) {
        assert!(
            index > 0 && lines[index - 1].trim_start_matches('#').starts_with(' '),
            "there is no comment above {line}"
        );
    }
}

/// The configuration in the user data of a bastion, without its indentation.
fn cloud_init_config() -> String {
    let document = include_str!("../../../packaging/cloud-init/bastion.yaml");
    let (_, after) = document.split_once("- path: /run/bastiond-install/config.toml\n").expect("the file");
    let (_, content) = after.split_once("content: |\n").expect("its content");
    let indented = |line: &&str| line.is_empty() || line.starts_with("      ");
    content.lines().take_while(indented).map(|line| line.get(6..).unwrap_or_default().to_owned() + "\n").collect()
}

#[test]
fn the_configuration_of_cloud_init_is_valid_without_and_with_its_tunnel() {
    let written = cloud_init_config();
    assert_eq!(parse(&written, &Environment::default()).unwrap(), parse("", &Environment::default()).unwrap());
    let with_tunnel: String = written
        .lines()
        .map(|line| line.strip_prefix('#').filter(|line| !line.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect::<String>()
        .replace("\"...\"", "\"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"");
    let tunnel = parse(&with_tunnel, &Environment::default()).unwrap().wireguard.expect("a tunnel");
    assert_eq!(tunnel.peers.len(), 1);
}
