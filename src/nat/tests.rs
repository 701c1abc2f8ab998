//! What the rules are for some servers and configurations.

mod access;
mod probes;
mod table_changes;

use serde_json::{Value, json};

use super::command::{Command, ObjectKind};
use super::desired::desired;
use super::element::{Element, FieldValue};
use super::model::Rule;
use super::*;
use crate::config::{self, Environment};
use crate::inputs::{SeenReturnRoutes, tunnel};
use crate::site::{PrivateLink, PublicLink};

pub(super) fn one_network() -> Site {
    Site {
        public: Some(PublicLink::example("eth0", &["198.51.100.2"])),
        private: vec![PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")],
        ..Site::default()
    }
}

pub(super) fn config(text: &str) -> Config {
    config::parse(text, &Environment::default()).unwrap()
}

fn rules(text: &str, site: &Site) -> Ruleset {
    desired(&config(text), site, tunnel(&config(text), site, &SeenReturnRoutes::new()).as_ref(), Machine::default())
}

/// Elements as JSON.
fn shown(elements: &[Element]) -> Value {
    let text = |element: &Element| {
        let mut text = String::new();
        element.write(&mut text);
        serde_json::from_str::<Value>(&text).unwrap()
    };
    json!(elements.iter().map(text).collect::<Vec<_>>())
}

#[test]
fn without_a_public_link_nothing_is_forwarded_and_the_bastion_is_reachable() {
    let closed = rules("", &Site { public: None, ..one_network() });
    let rules_of =
        |rules: &Ruleset, name: &str| rules.chains.iter().find(|chain| chain.name == name).unwrap().rules.clone();
    assert_eq!(rules_of(&closed, "postrouting").len(), 0);
    let open = rules("", &one_network());
    let (closed_forward, open_forward) = (rules_of(&closed, "forward"), rules_of(&open, "forward"));
    // The segment size, known flows, invalid packets, then the drop. Without a public link there is no guard.
    assert_eq!(closed_forward[0], open_forward[0]);
    assert_eq!(closed_forward[1..3], open_forward[2..4]);
    assert_eq!(closed_forward[3..], open_forward[open_forward.len() - 1..]);
    // The metadata service is guarded in any case.
    assert_eq!(rules_of(&closed, "output"), rules_of(&open, "output")[..1]);
    assert_eq!(rules_of(&closed, "to_unroutable"), rules_of(&open, "to_unroutable")[..1]);
    // Without a public link nobody sends addresses by DHCPv6, and routers may be on any link.
    let of_link = |rule: &&Rule| {
        let rule = serde_json::to_string(rule).unwrap();
        rule.contains("untracked") || rule.contains("nd-router-advert")
    };
    let input = |rules: &Ruleset| -> Vec<Rule> {
        rules_of(rules, "input").iter().filter(|rule| !of_link(rule)).cloned().collect()
    };
    assert_eq!(input(&closed), input(&open));
    assert_eq!(rules_of(&open, "input").iter().filter(of_link).count(), 2);
    assert_eq!(rules_of(&closed, "input").iter().filter(of_link).count(), 1);
}

#[test]
fn new_flows_avoid_a_drained_first_address_if_there_is_another_one() {
    let mut site = one_network();
    let text = |more: &str| {
        format!(
            "nat.drain = [\"198.51.100.2\"]\n[[network]]\nrange = \"10.9.0.0/16\"\n\
             egress_addresses = [\"198.51.100.9\", \"198.51.100.2\"]\n{more}"
        )
    };
    let used = |text: &str, site: &Site| {
        let rules = rules(text, site);
        let chain = rules.chains.into_iter().find(|chain| chain.name == "postrouting").unwrap();
        let rules = serde_json::to_value(&chain.rules).unwrap();
        rules.as_array().unwrap().iter().find_map(|rule| rule[2]["snat"]["addr"].as_str().map(str::to_owned)).unwrap()
    };
    assert_eq!(used(&text(""), &site), "198.51.100.2", "there is no other address");
    site.public
        .as_mut()
        .unwrap()
        .addresses
        .extend(["198.51.100.3", "198.51.100.9"].map(|text| text.parse::<std::net::Ipv4Addr>().unwrap()));
    assert_eq!(used(&text(""), &site), "198.51.100.3");
    let theirs = "[[nat.static]]\npublic = \"198.51.100.3\"\nprivate = \"10.0.0.4\"\n";
    assert_eq!(used(&text(theirs), &site), "198.51.100.9", "a static entry has the second address");
}

#[test]
fn ssh_is_open_where_sshd_listens_unless_the_configuration_says_otherwise() {
    let elements = |text: &str, site: &Site| {
        let rules = rules(text, site);
        let set = rules.sets.iter().find(|set| set.name == "ssh_ports").unwrap();
        shown(&set.elements)
    };
    let moved = Site { sshd_ports: [22, 2222].into(), ..one_network() };
    assert_eq!(elements("", &moved), json!([22, 2222]));
    assert_eq!(elements("", &one_network()), json!([22]));
    assert_eq!(elements("[firewall]\nssh_ports = [2200]", &moved), json!([2200]));
}

#[test]
fn overlapping_ssh_sources_become_elements_that_do_not_overlap() {
    let rules = rules(
        "[firewall]\nssh_from = [\"10.0.0.0/8\", \"10.1.0.0/16\", \"192.0.2.1\", \"2001:db8::/32\"]",
        &one_network(),
    );
    let elements = |name: &str| set_of(&rules, name);
    assert_eq!(elements("ssh_from4"), json!(["192.0.2.1", {"prefix": {"addr": "10.0.0.0", "len": 8}}]));
    assert_eq!(elements("ssh_from6"), json!([{"prefix": {"addr": "2001:db8::", "len": 32}}]));
}

/// Ada's laptop and an office, 192.168.178.0/24, in a tunnel 10.100.0.0/24.
const TUNNEL: &str = r#"
[wireguard]
addresses = ["10.100.0.1/24", "fd00:100::1/64"]
[[wireguard.peer]]
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
allowed_ips = ["10.100.0.2"]
[[wireguard.peer]]
public_key = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
allowed_ips = ["10.100.0.3", "192.168.178.0/24"]
"#;

/// The rules of a tunnel. The network behind `eth1` has these return routes.
fn with_tunnel(seen_return_routes: &[&str]) -> Ruleset {
    let config = config(TUNNEL);
    let seen_return_routes = seen_return_routes.iter().map(|text| text.parse().unwrap()).collect();
    let seen_return_routes = [("eth1".parse().unwrap(), seen_return_routes)].into();
    desired(&config, &one_network(), tunnel(&config, &one_network(), &seen_return_routes).as_ref(), Machine::default())
}

fn set_of(rules: &Ruleset, name: &str) -> Value {
    let set = rules.sets.iter().find(|set| set.name == name).unwrap();
    shown(&set.elements)
}

/// The paths of the forward chain, `in -> out: chain`, whether they are rules or a map of verdicts.
fn forward_paths(rules: &Ruleset) -> Vec<String> {
    let forward = rules.chains.iter().find(|chain| chain.name == "forward").unwrap();
    let rules = serde_json::to_value(&forward.rules).unwrap();
    let path = |from: &Value, to: &Value, verdict: &Value| {
        let [from, to, chain] = [from, to, &verdict["goto"]["target"]].map(|value| value.as_str().unwrap().to_owned());
        format!("{from} -> {to}: {chain}")
    };
    let mut paths = Vec::new();
    for rule in rules.as_array().unwrap() {
        if let Some(pairs) = rule.pointer("/0/vmap/data/set").and_then(Value::as_array) {
            paths.extend(pairs.iter().map(|pair| path(&pair[0]["concat"][0], &pair[0]["concat"][1], &pair[1])));
        } else if rule[1]["match"]["left"]["meta"]["key"] == "oifname" {
            let from = &rule[0]["match"]["right"];
            let several = from.get("set").and_then(Value::as_array);
            for from in several.map_or_else(|| vec![from], |from| from.iter().collect()) {
                paths.push(path(from, &rule[1]["match"]["right"], &rule[2]));
            }
        }
    }
    paths
}

#[test]
fn the_tunnel_has_paths_to_private_networks_and_to_the_internet_only_if_configured() {
    let egress = ["eth1 -> eth0: egress", "probe-0a000000 -> eth0: egress"];
    let inside = [&egress[..], &["wg0 -> eth1: from_tunnel", "eth1 -> wg0: to_tunnel"]].concat();
    assert_eq!(forward_paths(&with_tunnel(&[])), inside);
    let config = config(&TUNNEL.replace("[wireguard]", "[wireguard]\nfull_tunnel = true"));
    let full = tunnel(&config, &one_network(), &SeenReturnRoutes::new());
    assert_eq!(
        forward_paths(&desired(&config, &one_network(), full.as_ref(), Machine::default())),
        [&inside[..], &["wg0 -> eth0: from_tunnel"]].concat()
    );
    assert_eq!(forward_paths(&rules("", &one_network())), egress);
    let without_probes = rules("health.enabled = false", &one_network());
    assert_eq!(forward_paths(&without_probes), ["eth1 -> eth0: egress"]);
}

#[test]
fn without_a_tunnel_the_table_has_no_set_and_no_counter_of_one() {
    let mut with = with_tunnel(&["10.100.0.0/24", "192.168.178.0/24"]);
    let without = rules("", &one_network());
    with.counters.retain(|name| !name.starts_with("tunnel_"));
    with.sets.retain(|set| !set.name.starts_with("tunnel_") && set.name != "behind_links" && set.name != "inside");
    let outside = with.sets.iter_mut().find(|set| set.name == "not_from_outside").unwrap();
    let of_tunnel = Element::new([FieldValue::Network("10.100.0.0/24".parse().unwrap())]);
    outside.elements = outside.elements.iter().filter(|element| **element != of_tunnel).cloned().collect();
    assert_eq!((with.counters, with.sets), (without.counters, without.sets));
}

#[test]
fn packets_for_inside_ranges_do_not_leave_by_the_public_link_and_a_peers_default_route_is_no_inside_range() {
    let guarded = |text: &str, site: &Site| {
        let rules = rules(text, site);
        let set = rules.sets.iter().any(|set| set.name == "inside").then(|| set_of(&rules, "inside"));
        let forward = rules.chains.into_iter().find(|chain| chain.name == "forward").unwrap();
        (set, serde_json::to_value(&forward.rules[1]).unwrap()[1]["match"]["right"].clone())
    };
    let range = |address: &str, length: u8| json!({"prefix": {"addr": address, "len": length}});
    assert_eq!(guarded("", &one_network()), (None, range("10.0.0.0", 16)));
    let exit = TUNNEL.replace("192.168.178.0/24", "0.0.0.0/0");
    let (set, bytes) = guarded(&exit, &one_network());
    assert_eq!((set, bytes), (Some(json!([range("10.0.0.0", 16), range("10.100.0.0", 24)])), json!({"set": [10]})));
    // Behind another gateway, the range of its address counts as the internet.
    let mut behind = one_network();
    behind.public.as_mut().unwrap().addresses = vec![[10, 1, 1, 1].into()];
    assert_eq!(guarded("", &behind), (None, Value::Null));
}

#[test]
fn ranges_behind_peers_and_the_tunnels_own_networks_are_separate_sets() {
    let rules = with_tunnel(&[]);
    let range = |address: &str, length: u8| json!({"prefix": {"addr": address, "len": length}});
    assert_eq!(set_of(&rules, "tunnel_networks4"), json!([range("10.100.0.0", 24)]));
    assert_eq!(set_of(&rules, "tunnel_networks6"), json!([range("fd00:100::", 64)]));
    assert_eq!(set_of(&rules, "tunnel_sites4"), json!([range("192.168.178.0", 24)]));
    assert_eq!(set_of(&rules, "tunnel_sources4"), json!([range("10.100.0.0", 24), range("192.168.178.0", 24)]));
    assert_eq!(set_of(&rules, "tunnel_sources6"), json!([range("fd00:100::", 64)]));
}

#[test]
fn only_ranges_without_a_return_route_are_masqueraded() {
    let masqueraded = |rules: &Ruleset| {
        let postrouting = rules.chains.iter().find(|chain| chain.name == "postrouting").unwrap();
        // Each translation is one rule for UDP and one for the rest. Beside the egress rules, the one that keeps
        // sources and the one for what is not translated.
        (set_of(rules, "tunnel_masqueraded"), (postrouting.rules.len() - 2) / 2)
    };
    let of_link = |address: &str| json!({"concat": ["eth1", {"prefix": {"addr": address, "len": 24}}]});
    assert_eq!(masqueraded(&with_tunnel(&["10.100.0.0/24", "192.168.178.0/24"])), (json!([]), 1));
    assert_eq!(masqueraded(&with_tunnel(&["10.100.0.0/24"])), (json!([of_link("192.168.178.0")]), 2));
    let all = json!([of_link("10.100.0.0"), of_link("192.168.178.0")]);
    assert_eq!(masqueraded(&with_tunnel(&[])), (all, 2));
}

#[test]
fn the_status_line_names_the_tunnel_and_what_is_masqueraded() {
    let config = config(TUNNEL);
    let tunnel = tunnel(&config, &one_network(), &SeenReturnRoutes::new()).unwrap();
    assert_eq!(
        status_of(&one_network(), Some(&tunnel), None).detail,
        "table inet bastiond stands: 10.0.0.0/16 out by eth0; 10.100.0.0/24 in by wg0; 10.100.0.0/24, 192.168.178.0/24 \
         masqueraded on eth1"
    );
}

mod events {
    use super::super::{changes_rules, concerns_our_table};

    /// A netlink message of subsystem `subsystem` with one attribute.
    fn message(subsystem: u8, family: u8, attribute: u16, payload: &[u8]) -> Vec<u8> {
        let attribute_length = 4 + payload.len();
        let padded = (attribute_length + 3) & !3;
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + 4 + padded).unwrap().to_ne_bytes());
        bytes.extend([6, subsystem, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(u16::try_from(attribute_length).unwrap().to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(16 + 4 + padded, 0);
        bytes
    }

    #[test]
    fn only_messages_about_our_table_concern_us() {
        assert!(concerns_our_table(&message(10, 1, 1, b"bastiond\0")));
        assert!(!concerns_our_table(&message(10, 1, 1, b"docker-bridges\0")), "another table");
        assert!(!concerns_our_table(&message(10, 2, 1, b"bastiond\0")), "family ip");
        assert!(!concerns_our_table(&message(10, 0, 1, &7u32.to_be_bytes())), "a new generation");
        assert!(!concerns_our_table(&message(1, 1, 1, b"bastiond\0")), "connection tracking");
        let others_then_ours = [message(10, 1, 1, b"f2b-table\0"), message(10, 1, 1, b"bastiond\0")].concat();
        assert!(concerns_our_table(&others_then_ours));
    }

    #[test]
    fn elements_that_the_daemon_changes_all_the_time_are_no_change_of_the_rules() {
        let elements_of = |table: &[u8], set: &[u8]| {
            let mut bytes = message(10, 1, 1, table);
            bytes[4] = 12; // NFT_MSG_NEWSETELEM
            bytes.extend_from_slice(&message(10, 1, 2, set)[20..]);
            let length = u32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            bytes
        };
        assert!(!concerns_our_table(&elements_of(b"bastiond\0", b"limited4\0")));
        assert!(concerns_our_table(&elements_of(b"bastiond\0", b"static_public\0")));
        assert!(!concerns_our_table(&elements_of(b"docker\0", b"static_public\0")));
    }

    #[test]
    fn rules_of_any_table_change_the_rules_and_elements_and_generations_do_not() {
        // NFT_MSG_NEWRULE
        let rule = message(10, 2, 1, b"docker\0");
        assert!(changes_rules(&rule));
        let of_kind = |kind: u8| [&rule[..4], &[kind], &rule[5..]].concat();
        // NFT_MSG_NEWSETELEM, DELSETELEM, NEWGEN
        assert!([12, 14, 15].iter().all(|kind| !changes_rules(&of_kind(*kind))));
        assert!(!changes_rules(&message(1, 2, 1, b"docker\0")), "connection tracking");
        assert!(changes_rules(&[]), "something was lost");
    }

    #[test]
    fn a_message_that_cannot_be_read_counts_as_a_change() {
        assert!(concerns_our_table(&[]), "something was lost");
        let whole = message(10, 1, 1, b"other\0");
        for length in 1..whole.len() {
            assert!(concerns_our_table(&whole[..length]), "{length} bytes");
        }
        assert!(concerns_our_table(&[0; 64]), "a length of zero must not loop");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(0u8.., 0..200)) {
            concerns_our_table(&bytes);
            changes_rules(&bytes);
        }
    }
}

#[test]
fn services_may_share_ports_and_their_elements_do_not_overlap() {
    let text = r#"
        [[firewall.service]]
        ports = [9100, 65535]
        from = ["10.0.0.0/16"]
        [[firewall.service]]
        ports = ["9000-9200"]
        from = ["10.0.0.0/8"]
        [[firewall.service]]
        protocol = "both"
        ports = ["9150-9300", "65000-65535"]
        from = ["192.0.2.0/24", "2001:db8::/32"]
    "#;
    let rules = rules(text, &one_network());
    let set = |name: &str| {
        let set = rules.sets.iter().find(|set| set.name == name).unwrap();
        set.elements.iter().map(|element| format!("{:?}", element.key)).collect::<Vec<_>>()
    };
    assert_eq!(
        set("services4"),
        [
            "[Ports(9000, 9149), Network(10.0.0.0/8), Protocols(6, 6)]",
            "[Ports(9150, 9200), Network(10.0.0.0/8), Protocols(6, 6)]",
            "[Ports(9150, 9200), Network(192.0.2.0/24), Protocols(6, 6)]",
            "[Ports(9150, 9300), Network(192.0.2.0/24), Protocols(17, 17)]",
            "[Ports(9201, 9300), Network(192.0.2.0/24), Protocols(6, 6)]",
            "[Ports(65000, 65534), Network(192.0.2.0/24), Protocols(6, 6)]",
            "[Ports(65000, 65535), Network(192.0.2.0/24), Protocols(17, 17)]",
            "[Ports(65535, 65535), Network(10.0.0.0/16), Protocols(6, 6)]",
            "[Ports(65535, 65535), Network(192.0.2.0/24), Protocols(6, 6)]",
        ]
    );
    assert_eq!(set("services6").len(), 6);
}
