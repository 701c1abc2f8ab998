//! Parsing the list of private networks: valid lists and invalid ones.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const LIVE: &str = "\
- ip: 10.2.0.2
  alias_ips: []
  interface_num: 2
  mac_address: 86:00:00:2a:7d:e1
  network_id: 1235
  network_name: tenant
  network: 10.2.0.0/16
  subnet: 10.2.0.0/24
  gateway: 10.2.0.1
- ip: 10.0.0.2
  alias_ips: [10.0.0.3, 10.0.0.4]
  interface_num: 1
  mac_address: 86:00:00:2a:7d:e0
  network_id: 1234
  network_name: nw-test1
  network: 10.0.0.0/8
  subnet: 10.0.0.0/24
  gateway: 10.0.0.1
";

#[test]
fn networks_keep_the_order_of_the_service() {
    let networks = parse_private_networks(LIVE).unwrap();
    let expected = PrivateNetwork {
        ip: "10.0.0.2".parse().unwrap(),
        alias_ips: vec!["10.0.0.3".parse().unwrap(), "10.0.0.4".parse().unwrap()],
        mac_address: "86:00:00:2a:7d:e0".parse().unwrap(),
        network_id: NetworkId(1234),
        network_name: Some("nw-test1".to_owned()),
        network: "10.0.0.0/8".parse().unwrap(),
        gateway: Some("10.0.0.1".parse().unwrap()),
    };
    assert_eq!(networks.len(), 2);
    assert_eq!(networks[1], expected);
    assert_eq!(networks[0].network_id, NetworkId(1235));
}

/// The parsed list, one line per network.
fn read(text: &str) -> Vec<String> {
    let networks = parse_private_networks(text).unwrap();
    networks
        .iter()
        .map(|n| {
            format!("{} {:?} {} {} {:?} {}", n.ip, n.alias_ips, n.mac_address, n.network_id, n.network_name, n.network)
        })
        .collect()
}

const ONE: &str = "\
- ip: 10.0.0.2
  alias_ips: []
  interface_num: 1
  mac_address: 86:00:00:2a:7d:e0
  network_id: 1234
  network_name: nw-test1
  network: 10.0.0.0/16
  subnet: 10.0.0.0/24
  gateway: 10.0.0.1
";
const READ: &str = "10.0.0.2 [] 86:00:00:2a:7d:e0 1234 Some(\"nw-test1\") 10.0.0.0/16";

#[test]
fn equal_lists_in_different_yaml_styles_are_parsed_alike() {
    for (text, how) in [
        (ONE.to_owned(), "as Hetzner writes it"),
        (ONE.replace('\n', "\r\n"), "with carriage returns"),
        (format!("\u{feff}---\n{ONE}...\n"), "as a marked document"),
        (ONE.replace("  alias_ips: []\n", ""), "without aliases"),
        (ONE.replace("alias_ips: []", "alias_ips:"), "with nothing as aliases"),
        (ONE.replace("1234", "'1234'"), "with quotes"),
        (ONE.replace("2a:7d:e0", "2A:7D:E0"), "in capitals"),
        (ONE.replace("network: 10.0.0.0/16", "network: 10.0.0.2/16"), "with host bits"),
        (format!("{ONE}  future: {{ key: [1, 2] }}\n"), "with a key to come"),
        (ONE.replace("  gateway: 10.0.0.1\n", "  gateway: ''\n"), "with an empty gateway"),
        (ONE.replace("  gateway: 10.0.0.1\n", ""), "without a gateway"),
    ] {
        assert_eq!(read(&text), [READ], "{how}");
    }
    let aliases = ONE.replace("alias_ips: []", "alias_ips:\n  - 10.0.0.3\n  - 10.0.0.4");
    assert_eq!(read(&aliases), [READ.replace("[]", "[10.0.0.3, 10.0.0.4]")]);
}

#[test]
fn a_name_is_text_even_if_yaml_would_read_a_number_or_a_boolean() {
    for (name, expected) in [
        ("1234", "1234"),
        ("true", "true"),
        ("no", "no"),
        ("1e5", "1e5"),
        ("0x10", "0x10"),
        ("2026-11-01", "2026-11-01"),
        ("'a: b #c'", "a: b #c"),
    ] {
        let expected = READ.replace("nw-test1", expected);
        assert_eq!(read(&ONE.replace("nw-test1", name)), [expected], "{name}");
    }
    for nameless in ["", "~", "null"] {
        let expected = READ.replace("Some(\"nw-test1\")", "None");
        assert_eq!(read(&ONE.replace("nw-test1", nameless)), [expected], "{nameless}");
    }
}

#[test]
fn an_ethernet_address_of_digits_is_not_read_as_a_sexagesimal_number() {
    let digits = "12:34:56:12:34:56";
    assert_eq!(read(&ONE.replace("86:00:00:2a:7d:e0", digits)), [READ.replace("86:00:00:2a:7d:e0", digits)]);
}

#[test]
fn an_empty_list_in_any_form_means_no_network() {
    for text in ["", "\n", "[]", "[]\n", "null", "~\n"] {
        assert_eq!(parse_private_networks(text).unwrap(), [], "{text:?}");
    }
}

#[test]
fn invalid_input_is_an_error_on_one_line() {
    for (text, reason) in [
        ("<html>", "unexpected event: expected sequence start at line 1, column 1"),
        ("{}", "unexpected event: expected sequence start at line 1, column 1"),
        ("- 3\n", "unexpected event: expected mapping start at line 1, column 3"),
        ("- ip: 10.0.0.2\n", "missing field `mac_address`"),
        ("- ip: 300.0.0.1\n", "invalid IPv4 address syntax"),
        (&ONE.replace("1234", "-1"), "invalid u64 at line 5, column 15"),
        (&ONE.replace("1234", "99999999999999999999"), "invalid u64 at line 5, column 15"),
        (&"[".repeat(60_000), "recursion limit exceeded at line 1, column 256"),
        (&"- ".repeat(30_000), "unexpected event: expected mapping start at line 1, column 3"),
    ] {
        let expected = format!("the list of private networks cannot be read: {reason}");
        assert_eq!(parse_private_networks(text).unwrap_err().to_string(), expected, "{text:.40}");
    }
    for text in
        ["ip: [", "&a [*a]", "[]\n---\n[]\n", &format!("{ONE}  ip: 10.0.0.3\n"), &ONE.replace("nw-test1", "a: b")]
    {
        let message = parse_private_networks(text).unwrap_err().to_string();
        assert!(message.len() > 50 && !message.contains('\n'), "{message}");
    }
}

#[test]
fn nested_yaml_aliases_are_rejected_instead_of_expanded() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    parse_private_networks(bomb).unwrap_err();
}

/// Pieces of such lists in any order.
fn yaml_like() -> impl Strategy<Value = String> {
    let pieces = [
        "- ",
        "\n",
        "\n  ",
        "  ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "#",
        "&a ",
        "*a",
        "!!str ",
        "'",
        "\"",
        "|\n",
        "---\n",
        "...\n",
        "? ",
        "<<: ",
        "~",
        "null",
        "%YAML 1.1\n",
        "\t",
        "ip",
        "alias_ips",
        "mac_address",
        "network_id",
        "network_name",
        "network",
        "10.0.0.2",
        "10.0.0.0/16",
        "86:00:00:2a:7d:e0",
        "1234",
        "\0",
        "\u{feff}",
        "ü",
        ONE,
    ];
    vec(select(pieces.to_vec()), 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_rejected_on_one_line(text in prop_oneof!["(?s).{0,100}", yaml_like()]) {
        match parse_private_networks(&text) {
            Ok(networks) => prop_assert!(networks.iter().all(|n| n.network == n.network.trunc())),
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
}

#[test]
fn a_truncated_list_is_rejected_or_has_fewer_networks_but_never_others() {
    let whole = parse_private_networks(LIVE).unwrap();
    let mut read = BTreeMap::new();
    for end in 0..=LIVE.len() {
        if let Ok(networks) = parse_private_networks(&LIVE[..end]) {
            // The gateway is named in messages only, and comes last.
            let without = |networks: &[PrivateNetwork]| -> Vec<PrivateNetwork> {
                networks.iter().cloned().map(|network| PrivateNetwork { gateway: None, ..network }).collect()
            };
            assert_eq!(without(&networks), without(&whole[..networks.len()]), "{:?}", &LIVE[..end]);
            *read.entry(networks.len()).or_insert(0) += 1;
        }
    }
    assert_eq!(read.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{read:?}");
}

#[test]
fn an_impossible_range_is_rejected() {
    for (ip, range) in [("10.0.0.2", "0.0.0.0/0"), ("10.0.0.2", "10.0.0.0/1"), ("10.9.0.2", "10.0.0.0/16")] {
        let text = ONE
            .replace("ip: 10.0.0.2", &format!("ip: {ip}"))
            .replace("network: 10.0.0.0/16", &format!("network: {range}"));
        let expected =
            format!("network 1234 is listed with the impossible range {range} and this server's address {ip}");
        assert_eq!(parse_private_networks(&text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn what_no_server_of_hetzner_can_have_is_refused_as_a_whole() {
    let entry = |number: u8, range: &str, mac: u8| {
        let address: Ipv4Net = range.parse().unwrap();
        let ip = address.addr();
        format!("- {{ip: {ip}, mac_address: \"86:00:00:00:00:{mac:02x}\", network_id: {number}, network: {range}}}\n")
    };
    let list = |entries: &[(&str, u8)]| -> String {
        (1..).zip(entries).map(|(number, (range, mac))| entry(number, range, *mac)).collect()
    };
    let refused = |text: &str| parse_private_networks(text).unwrap_err().to_string();
    assert_eq!(
        refused(&list(&[("10.0.0.0/16", 1), ("77.0.0.0/8", 2)])),
        "network 2 is listed with the impossible range 77.0.0.0/8 and this server's address 77.0.0.0"
    );
    assert_eq!(
        refused(&list(&[("10.0.0.0/16", 1), ("10.1.0.0/16", 1)])),
        "two networks are listed with the Ethernet address 86:00:00:00:00:01"
    );
    let many: Vec<(String, u8)> = (0..222).map(|number| (format!("10.{number}.0.0/16"), number)).collect();
    let many: Vec<(&str, u8)> = many.iter().map(|(range, mac)| (range.as_str(), *mac)).collect();
    assert_eq!(refused(&list(&many)), "222 private networks are listed, and Hetzner attaches a server to 3 at most");
    assert_eq!(parse_private_networks(&list(&many[..3])).unwrap().len(), 3);
}

#[test]
fn a_networks_name_cannot_write_to_a_terminal() {
    let text = ONE.replace("nw-test1", "\"a\\e[2J\\nb\\u202E\"");
    let name = parse_private_networks(&text).unwrap().remove(0).network_name.unwrap();
    assert_eq!(name, "a\\u{1b}[2J\\nb\\u{202e}");
}
