//! What holds for every text, every tree and every configuration.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use toml::Value;

use super::*;
use crate::wireguard::endpoint::EndpointName;
use crate::wireguard::key::{PresharedKey, PublicKey};

/// What a caller may rely on when there is no configuration.
fn assert_told_well(problems: &[Problem]) {
    assert!(!problems.is_empty(), "refused without a reason");
    assert!(problems.is_sorted(), "{problems:?}");
    for Problem { key, reason } in problems {
        assert!(!key.is_empty() && !reason.is_empty(), "{problems:?}");
        assert!(!format!("{key}{reason}").contains(|c: char| c.is_control()), "{problems:?}");
        assert!(reason.chars().count() < 1000, "{problems:?}");
    }
}

/// Text out of the pieces that configurations are made of, in any order.
fn toml_like() -> impl Strategy<Value = String> {
    let pieces = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\"",
        "'",
        "\"\"\"",
        "#",
        "\n",
        "\r\n",
        " ",
        "\\u",
        "\0",
        "\u{feff}",
        "-",
        "true",
        "false",
        "inf",
        "22",
        "1e9",
        "0x1F",
        "1979-05-27",
        "99999999999999999999",
        "10.0.0.0/16",
        "auto",
        "log",
        "level",
        "site",
        "private",
        "interface",
        "network",
        "network_id",
        "nat",
        "random_ports",
        "firewall",
        "ssh_ports",
        "ssh_from",
        "wireguard_port",
        "hcloud",
        "endpoint",
        "https://x",
        "destinations",
        "poll_interval",
        "20s",
        "[site]\n",
        "[[site.private]]\n",
        "[firewall]\n",
        "[wireguard]\n",
        "[[wireguard.peer]]\n",
        "public_key",
        "allowed_ips",
        "$__toml_private_datetime",
        "ü",
    ];
    vec(select(pieces.to_vec()), 0..40).prop_map(|pieces| pieces.concat())
}

/// Names of the file's keys and sections, and others.
fn name() -> impl Strategy<Value = String> {
    let known: Vec<String> = KNOWN_KEYS.iter().flat_map(|key| key.split('.')).map(str::to_owned).collect();
    prop_oneof![8 => select(known), 1 => ".{0,12}"]
}

/// Any value that TOML has: sensible ones as well as nonsense.
fn value() -> impl Strategy<Value = Value> {
    let words = [
        "auto",
        "info",
        "eth0",
        "10.0.0.0/16",
        "10.0.0.2",
        "::/0",
        "https://api.example/v1",
        "20s",
        "/token",
        "vpn.example:51820",
    ];
    let leaf = prop_oneof![
        select(words.to_vec()).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1_i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Datetime("1979-05-27T07:32:00Z".parse().unwrap())),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::Array),
            btree_map(name(), inner, 0..8).prop_map(|table| Value::Table(table.into_iter().collect())),
        ]
    })
}

/// A range by its first address.
fn range<A: Into<std::net::IpAddr>>(address: A, prefix: u8) -> IpNet {
    IpNet::new(address.into(), prefix).unwrap().trunc()
}

fn private_links() -> impl Strategy<Value = Vec<PrivateLink>> {
    let link = |n: u8| {
        let prefix = 16_u8..=32;
        (prefix, any::<[u8; 2]>(), any::<bool>(), any::<bool>()).prop_map(move |(prefix, [c, d], address, id)| {
            let inside = Ipv4Addr::new(10, n, c, d);
            PrivateLink {
                interface: format!("enp{n}s0").parse().unwrap(),
                network: Ipv4Net::new(inside, prefix).unwrap().trunc(),
                address: address.then_some(inside),
                network_id: id.then_some(NetworkId(u64::from(n) + 1)),
            }
        })
    };
    subsequence((0..=255_u8).collect::<Vec<_>>(), 0..=10)
        .prop_flat_map(move |numbers| numbers.into_iter().map(link).collect::<Vec<_>>())
}

fn any_site() -> impl Strategy<Value = Site> {
    let parts = (option::of("[a-z]{1,3}[0-9]{1,3}"), option::of(1..(1_u64 << 53)), 1..=65535_u16, private_links());
    parts.prop_map(|(public, id, port, private)| Site {
        public_interface: public.map(|name| name.parse().unwrap()),
        server_id: id.map(ServerId),
        metadata_endpoint: format!("http://127.0.0.1:{port}/base"),
        private,
    })
}

fn any_firewall() -> impl Strategy<Value = Firewall> {
    let v4 = (any::<u32>(), 1..=32_u8).prop_map(|(address, prefix)| range(Ipv4Addr::from(address), prefix));
    let v6 = (any::<u128>(), 1..=128_u8).prop_map(|(address, prefix)| range(std::net::Ipv6Addr::from(address), prefix));
    let everybody = Just(range(Ipv4Addr::UNSPECIFIED, 0));
    let source =
        prop_oneof![v4, v6, everybody].prop_filter("nobody's", |s| s.prefix_len() == 0 || !s.addr().is_unspecified());
    let port = || 1..=65535_u16;
    let parts = (option::of(btree_set(port(), 1..20)), btree_set(source, 1..20), option::of(port()));
    parts.prop_map(|(ssh_ports, ssh_from, wireguard_port)| Firewall {
        ssh_ports,
        ssh_from: ssh_from.into_iter().collect(),
        wireguard_port,
        ..parse("", &Environment::default()).unwrap().firewall
    })
}

fn any_hcloud() -> impl Strategy<Value = Hcloud> {
    let destination = |n: u8| Ipv4Net::new(Ipv4Addr::new(10, n, 0, 0), 16).unwrap();
    let destinations =
        subsequence((0..=255_u8).collect::<Vec<_>>(), 0..=99).prop_map(move |n| n.into_iter().map(destination));
    let parts = (any::<[bool; 3]>(), 1..=65535_u16, "/[a-z/]{1,20}", destinations, 1000..=86_400_000_u64);
    parts.prop_map(|([enabled, take_over, everything], port, token_file, destinations, millis)| Hcloud {
        enabled,
        endpoint: format!("https://api.example:{port}/v1").replace(":443/", "/"),
        token: TokenSource { files: vec![token_file.into()], value: None },
        destinations: destinations.chain(everything.then(|| "0.0.0.0/0".parse().unwrap())).collect(),
        take_over,
        poll_interval: Duration::from_millis(millis),
        network: None,
    })
}

fn any_peers() -> impl Strategy<Value = Vec<Peer>> {
    let peer = |n: u8| {
        let site =
            option::of((0_u8..=24).prop_map(move |bits| range(Ipv4Addr::new(172, 16 + n % 8, n, 0), 24.max(bits))));
        let endpoint = option::of(prop_oneof![
            (any::<[u8; 4]>(), 1..=65535_u16).prop_map(|(ip, port)| EndpointName::Address((ip, port).into())),
            (any::<[u16; 8]>(), 1..=65535_u16).prop_map(|(ip, port)| EndpointName::Address((ip, port).into())),
            ("[a-z]([a-z0-9-]{0,10}[a-z])?\\.example", 1..=65535_u16)
                .prop_map(|(host, port)| EndpointName::Name { host, port }),
        ]);
        let parts = (option::of("[a-zA-Z ']{0,10}"), any::<bool>(), site, endpoint, option::of(1..=65535_u16));
        parts.prop_map(move |(name, secret, site, endpoint, persistent_keepalive)| Peer {
            name: name.map(|name| format!("{n} {name}")),
            public_key: PublicKey([n; 32]),
            preshared_key: secret.then_some(PresharedKey([n; 32])),
            allowed_ips: [range(Ipv4Addr::new(100, 64, n, 2), 32)].into_iter().chain(site).collect(),
            endpoint,
            persistent_keepalive,
        })
    };
    subsequence((0..=255_u8).collect::<Vec<_>>(), 0..=10)
        .prop_flat_map(move |numbers| numbers.into_iter().map(peer).collect::<Vec<_>>())
}

fn any_wireguard() -> impl Strategy<Value = Wireguard> {
    let addresses = subsequence(vec!["100.64.0.1/10", "100.63.0.1/16", "fd00::1/64", "fd00:1::7/128"], 1..=4);
    let addresses = addresses.prop_map(|texts| texts.into_iter().map(|text| text.parse().unwrap()).collect());
    let backend = select(vec![Backend::Auto, Backend::Userspace, Backend::Kernel]);
    let snat = select(vec![Snat::Auto, Snat::Always, Snat::Never]);
    let numbers = (1..=65535_u16, option::of(1280..=65455_u32), any::<u32>(), any::<bool>());
    (addresses, backend, snat, numbers, "/[a-z/]{1,20}", any_peers()).prop_map(
        |(addresses, backend, snat, (listen_port, mtu, fwmark, full_tunnel), key_file, peers)| Wireguard {
            interface: "wg-law".parse().unwrap(),
            listen_port,
            private_key: None,
            private_key_file: key_file.into(),
            addresses,
            mtu,
            fwmark,
            backend,
            full_tunnel,
            snat,
            peers,
        },
    )
}

fn any_config() -> impl Strategy<Value = Config> {
    use tracing::Level;
    let levels = vec![Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
    let parts = (select(levels), any_site(), any::<bool>(), any_firewall(), any_hcloud(), option::of(any_wireguard()));
    parts.prop_map(|(level, site, random_ports, mut firewall, hcloud, mut wireguard)| {
        if let Some((tunnel, open)) = wireguard.as_mut().zip(firewall.wireguard_port.as_mut()) {
            *open = tunnel.listen_port;
        }
        let Config { mut nat, egress, networks, tenants, .. } = parse("", &Environment::default()).unwrap();
        nat.random_ports = random_ports;
        let (log, warnings) = (Log { level }, Vec::new());
        Config { log, site, nat, egress, networks, tenants, firewall, hcloud, wireguard, warnings }
    })
}

/// A file that says all of it.
fn written(config: &Config) -> String {
    use fmt::Display;
    fn quoted(text: impl Display) -> String {
        format!("\"{text}\"")
    }
    fn or_auto(text: Option<impl Display>) -> String {
        text.map_or_else(|| quoted("auto"), |text| text.to_string())
    }
    fn list(items: impl IntoIterator<Item = impl Display>) -> String {
        format!("[{}]", items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", "))
    }
    let Config { log, site, nat, firewall, hcloud, wireguard, .. } = config;
    let mut lines = vec![
        "[log]".to_owned(),
        format!("level = {}", quoted(log.level).to_lowercase()),
        "[nat]".to_owned(),
        format!("random_ports = {}", nat.random_ports),
        "[firewall]".to_owned(),
        format!("ssh_ports = {}", or_auto(firewall.ssh_ports.as_ref().map(list))),
        format!("ssh_from = {}", list(firewall.ssh_from.iter().map(quoted))),
        format!("wireguard_port = {}", firewall.wireguard_port.map_or("false".to_owned(), |port| port.to_string())),
        "[hcloud]".to_owned(),
        format!("enabled = {}", hcloud.enabled),
        format!("endpoint = {}", quoted(&hcloud.endpoint)),
        format!("token_file = {}", quoted(hcloud.token.files[0].display())),
        format!("destinations = {}", list(hcloud.destinations.iter().map(quoted))),
        format!("take_over = {}", hcloud.take_over),
        format!("poll_interval = {}", quoted(humantime::format_duration(hcloud.poll_interval))),
        "[site]".to_owned(),
        format!("public_interface = {}", or_auto(site.public_interface.as_ref().map(quoted))),
        format!("server_id = {}", or_auto(site.server_id)),
        format!("metadata_endpoint = {}", quoted(&site.metadata_endpoint)),
    ];
    for link in &site.private {
        lines.push("[[site.private]]".to_owned());
        lines.push(format!("interface = {}", quoted(&link.interface)));
        lines.push(format!("network = {}", quoted(link.network)));
        lines.push(format!("address = {}", or_auto(link.address.map(quoted))));
        lines.extend(link.network_id.map(|id| format!("network_id = {id}")));
    }
    lines.extend(wireguard.iter().flat_map(written_tunnel));
    lines.join("\n")
}

fn written_tunnel(tunnel: &Wireguard) -> Vec<String> {
    fn list(nets: &[IpNet]) -> String {
        format!("{:?}", nets.iter().map(ToString::to_string).collect::<Vec<_>>())
    }
    let mut lines = vec![
        "[wireguard]".to_owned(),
        format!("interface = \"{}\"", tunnel.interface),
        format!("listen_port = {}", tunnel.listen_port),
        format!("private_key_file = {:?}", tunnel.private_key_file),
        format!("addresses = {}", list(&tunnel.addresses)),
        format!("mtu = {}", tunnel.mtu.map_or("\"auto\"".to_owned(), |mtu| mtu.to_string())),
        format!("fwmark = {}", tunnel.fwmark),
        format!("backend = \"{:?}\"", tunnel.backend).to_lowercase(),
        format!("full_tunnel = {}", tunnel.full_tunnel),
        match tunnel.snat {
            Snat::Auto => "snat = \"auto\"".to_owned(),
            Snat::Always => "snat = true".to_owned(),
            Snat::Never => "snat = false".to_owned(),
        },
    ];
    for peer in &tunnel.peers {
        lines.push("[[wireguard.peer]]".to_owned());
        lines.extend(peer.name.as_ref().map(|name| format!("name = \"{name}\"")));
        lines.push(format!("public_key = \"{}\"", peer.public_key));
        lines.extend(peer.preshared_key.as_ref().map(|key| format!("preshared_key = \"{}\"", *key.to_base64())));
        lines.push(format!("allowed_ips = {}", list(&peer.allowed_ips)));
        lines.extend(peer.endpoint.as_ref().map(|endpoint| format!("endpoint = \"{endpoint}\"")));
        lines.extend(peer.persistent_keepalive.map(|seconds| format!("persistent_keepalive = {seconds}")));
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_a_configuration_or_told_what_is_wrong(text in prop_oneof!["(?s).{0,200}", toml_like()]) {
        if let Err(problems) = parse(&text, &Environment::default()) {
            assert_told_well(&problems);
        }
    }

    #[test]
    fn any_tree_is_a_configuration_or_told_what_is_wrong(tree in btree_map(name(), value(), 0..8)) {
        let text = toml::to_string(&tree).unwrap();
        if let Err(problems) = parse(&text, &Environment::default()) {
            assert_told_well(&problems);
            // The text is good TOML, so every problem is that of a key.
            prop_assert!(problems.iter().all(|problem| !problem.key.starts_with("line ")), "{problems:?}\n{text}");
        }
    }

    #[test]
    fn any_endpoint_in_the_environment_is_taken_or_told_what_is_wrong(url in prop_oneof!["(?s).{0,40}", "https?://.{0,40}"]) {
        let environment = Environment { hcloud_endpoint: Some(url), ..Environment::default() };
        match parse("", &environment) {
            Ok(config) => {
                let endpoint = config.hcloud.endpoint;
                prop_assert!(!endpoint.ends_with('/') && !endpoint.contains(char::is_whitespace), "{endpoint}");
                prop_assert!(reqwest::Url::parse(&format!("{endpoint}/networks")).is_ok(), "{endpoint}");
            }
            Err(problems) => assert_told_well(&problems),
        }
    }

    #[test]
    fn a_configuration_written_out_means_itself(config in any_config()) {
        let read = parse(&written(&config), &Environment::default()).map(|read| Config { warnings: Vec::new(), ..read });
        prop_assert_eq!(read, Ok(config));
    }
}
