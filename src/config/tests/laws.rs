//! Properties of every text, every TOML tree and every configuration.

mod any;
mod policy;
mod written;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use toml::Value;

use super::*;
use any::any_config;
use written::written;

/// What a caller may expect of the errors.
fn assert_well_formed(problems: &[Diagnostic]) {
    assert!(!problems.is_empty(), "rejected without a reason");
    assert!(problems.is_sorted(), "{problems:?}");
    for Diagnostic { key, reason, .. } in problems {
        assert!(!key.is_empty() && !reason.is_empty(), "{problems:?}");
        assert!(!format!("{key}{reason}").contains(|c: char| c.is_control()), "{problems:?}");
        assert!(reason.chars().count() < 1000, "{problems:?}");
    }
}

/// Pieces of configurations in any order.
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
        "[[nat.forward]]\n",
        "[[nat.static]]\n",
        "[[network]]\n",
        "port",
        "ports",
        "\"8000-8100\"",
        "open",
        "allow",
        "egress_addresses",
        "198.51.100.2",
        "protocol",
        "udp",
        "firewall",
        "ssh_ports",
        "ssh_from",
        "wireguard_port",
        "hcloud",
        "health",
        "targets",
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

/// Names of known keys and sections, and other names.
fn name() -> impl Strategy<Value = String> {
    let known: Vec<String> = KNOWN_KEYS.iter().flat_map(|key| key.split('.')).map(str::to_owned).collect();
    prop_oneof![8 => select(known), 1 => ".{0,12}"]
}

/// Any TOML value.
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
        "198.51.100.2",
        "0.0.0.0/0",
        "both",
        "icmp",
        "8000-8100",
        "100-1",
        "journal",
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_accepted_or_rejected_with_reasons(text in prop_oneof!["(?s).{0,200}", toml_like()]) {
        if let Err(problems) = parse(&text, &Environment::default()) {
            assert_well_formed(&problems);
        }
    }

    #[test]
    fn any_toml_tree_is_accepted_or_rejected_with_reasons(tree in btree_map(name(), value(), 0..8)) {
        let text = toml::to_string(&tree).unwrap();
        if let Err(problems) = parse(&text, &Environment::default()) {
            assert_well_formed(&problems);
            // The text is valid TOML, so every error belongs to a key.
            prop_assert!(problems.iter().all(|problem| !problem.key.starts_with("line ")), "{problems:?}\n{text}");
        }
    }

    #[test]
    fn any_endpoint_in_the_environment_is_accepted_or_rejected_with_reasons(
        url in prop_oneof!["(?s).{0,40}", "https?://.{0,40}"]
    ) {
        let environment = Environment { hcloud_endpoint: Some(url), ..Environment::default() };
        match parse("", &environment) {
            Ok(config) => {
                let endpoint = config.hcloud.endpoint;
                prop_assert!(!endpoint.ends_with('/') && !endpoint.contains(char::is_whitespace), "{endpoint}");
                prop_assert!(reqwest::Url::parse(&format!("{endpoint}/networks")).is_ok(), "{endpoint}");
            }
            Err(problems) => assert_well_formed(&problems),
        }
    }

    #[test]
    fn a_configuration_written_to_a_file_is_read_back_unchanged(config in any_config()) {
        let read = parse(&written(&config), &Environment::default());
        let read = read.map(|read| Config { warnings: Vec::new(), ..read });
        prop_assert_eq!(read, Ok(config));
    }

    #[test]
    fn forwards_without_the_reported_overlaps_lead_each_port_to_one_host(
        forwards in vec(
            (subsequence(vec!["198.51.100.2", "198.51.100.3"], 0..=2), 0..3_usize, 1000..1020_u16, 0..4_u16),
            0..12,
        )
    ) {
        let protocols = ["tcp", "udp", "both"];
        let block = |(public, protocol, first, width): &(Vec<&str>, usize, u16, u16)| {
            let public = if public.is_empty() { "\"auto\"".to_owned() } else { format!("{public:?}") };
            let port = if *width == 0 { first.to_string() } else { format!("\"{first}-{}\"", first + width) };
            format!(
                "[[nat.forward]]\npublic = {public}\nprotocol = \"{}\"\nport = {port}\nto = \"10.0.0.4\"\n",
                protocols[*protocol]
            )
        };
        let text = |blocks: &[String]| blocks.concat();
        let overlap = |one: &(Vec<&str>, usize, u16, u16), other: &(Vec<&str>, usize, u16, u16)| {
            let same_address = one.0.is_empty() || other.0.is_empty() || one.0.iter().any(|at| other.0.contains(at));
            let same_protocol = one.1 == other.1 || one.1 == 2 || other.1 == 2;
            same_address && same_protocol && one.2 <= other.2 + other.3 && other.2 <= one.2 + one.3
        };
        let blocks: Vec<String> = forwards.iter().map(block).collect();
        let problems = parse(&text(&blocks), &Environment::default()).err().unwrap_or_default();
        let reported: BTreeSet<String> = problems.into_iter().map(|problem| problem.key).collect();
        let is_reported = |index: usize| reported.contains(&format!("nat.forward[{index}].port"));
        for (index, forward) in forwards.iter().enumerate() {
            let others = forwards.iter().enumerate();
            let overlaps_earlier = others.clone().any(|(other, earlier)| other < index && overlap(forward, earlier));
            let mut kept = others.clone().filter(|&(other, _)| other < index && !is_reported(other));
            let overlaps_kept = kept.any(|(_, kept)| overlap(forward, kept));
            prop_assert!(overlaps_earlier || !is_reported(index), "{index} is reported without an overlap");
            prop_assert!(is_reported(index) || !overlaps_kept, "{index} is not reported");
        }
    }
}
