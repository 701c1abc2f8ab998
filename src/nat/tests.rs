use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::command::Command;
use super::desired::desired;
use super::element::{Element, FieldValue};
use super::plan::{change, commands, fingerprint};
use super::*;
use crate::component::Plan as _;
use crate::config::{self, Environment};
use crate::inputs::{SeenReturnRoutes, tunnel};
use crate::site::{PrivateLink, PublicLink};

fn private(interface: &str, address: &str, network: &str) -> PrivateLink {
    PrivateLink {
        interface: interface.parse().unwrap(),
        mtu: 1450,
        address: address.parse().unwrap(),
        address_present: true,
        aliases: std::collections::BTreeSet::new(),
        network: network.parse().unwrap(),
        network_id: None,
        network_name: None,
        gateway: None,
        behind: Vec::new(),
        is_local: false,
    }
}

fn public() -> PublicLink {
    PublicLink { interface: "eth0".parse().unwrap(), mtu: 1500, addresses: vec!["198.51.100.2".parse().unwrap()] }
}

pub(super) fn one_network() -> Site {
    Site { public: Some(public()), private: vec![private("eth1", "10.0.0.2", "10.0.0.0/16")], ..Site::default() }
}

pub(super) fn config(text: &str) -> Config {
    config::parse(text, &Environment::default()).unwrap()
}

fn rules(text: &str, site: &Site) -> Ruleset {
    desired(&config(text), site, tunnel(&config(text), site, &SeenReturnRoutes::new()).as_ref(), false)
}

/// Commands as JSON.
fn as_json(commands: &[Command]) -> Vec<Value> {
    let json = |command: &Command| {
        let mut text = String::new();
        command.write(TABLE, &mut text);
        serde_json::from_str(&text).unwrap()
    };
    commands.iter().map(json).collect()
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

/// The table as nft 1.0.6 lists it after the rules of `one_network` were loaded.
fn listed() -> Listing {
    observe::normalise(include_str!("../../tests/data/tables/one-network.json")).unwrap()
}

fn last_applied() -> LastApplied {
    let ruleset = rules("", &one_network());
    LastApplied {
        fingerprint: fingerprint(&ruleset),
        listing: listed(),
        meters: ruleset.meters.iter().map(|meter| (meter.name.to_owned(), meter.limit)).collect(),
        outranked: Vec::new(),
        generation: None,
        ruleset: None,
    }
}

/// The reasons of a change, and whether it repairs what another program did.
fn reasons(change: Option<Change>) -> (Vec<String>, bool) {
    let change = change.expect("the table changes");
    (change.reasons, change.is_repair)
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
    assert_eq!(rules_of(&closed, "output").len(), 0);
    assert_eq!(rules_of(&closed, "input"), rules_of(&open, "input"));
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
fn a_table_as_it_was_applied_is_not_changed() {
    assert_eq!(change(&rules("", &one_network()), Some(&listed()), Some(&last_applied())), None);
}

#[test]
fn values_of_counters_and_handles_are_no_drift() {
    let text = include_str!("../../tests/data/tables/one-network.json");
    let moved =
        text.replace("\"packets\":0", "\"packets\":5000000000").replace("{\"rule\":{", "{\"rule\":{\"handle\":77,");
    assert!(text != moved);
    assert_eq!(observe::normalise(&moved).unwrap(), listed());
}

#[test]
fn changes_by_other_programs_are_described_and_repaired() {
    let without = |what: &dyn Fn(&Value) -> bool| {
        let mut listing = listed();
        let position = listing.0.iter().position(what).unwrap();
        listing.0.remove(position);
        listing
    };
    let (want, last) = (rules("", &one_network()), last_applied());
    let drift = |observed: Option<&Listing>| {
        let (reasons, is_repair) = reasons(change(&want, observed, Some(&last)));
        assert!(is_repair);
        reasons
    };
    assert_eq!(drift(None), ["table inet bastiond was gone"]);
    assert_eq!(
        drift(Some(&without(&|object| object["rule"]["chain"] == "forward"))),
        ["1 rule(s) of chain forward were gone"]
    );
    let foreign =
        json!({"rule": {"family": "inet", "table": "bastiond", "chain": "input", "expr": [{"accept": null}]}});
    let mut with_foreign = listed();
    with_foreign.0.push(foreign);
    assert_eq!(drift(Some(&with_foreign)), ["1 foreign rule(s) stood in chain input"]);
    let mut opened = listed();
    let forward = opened.0.iter_mut().find(|object| object["chain"]["name"] == "forward").unwrap();
    forward["chain"]["policy"] = json!("accept");
    assert_eq!(drift(Some(&opened)), ["chain forward had another declaration"]);
    assert_eq!(drift(Some(&without(&|object| object["set"]["name"] == "ssh_from4"))), ["set ssh_from4 was gone"]);
}

#[test]
fn new_rules_are_no_repair() {
    let new = rules("[nat]\nrandom_ports = false", &one_network());
    assert_eq!(
        reasons(change(&new, Some(&listed()), Some(&last_applied()))),
        (vec!["the rules are new".to_owned()], false)
    );
    let (_, is_repair) = reasons(change(&rules("", &one_network()), None, None));
    assert!(!is_repair);
}

#[test]
fn a_table_without_a_saved_listing_is_replaced() {
    assert_eq!(
        reasons(change(&rules("", &one_network()), Some(&listed()), None)),
        (vec!["table inet bastiond replaced: nothing is remembered of it".to_owned()], false)
    );
}

#[test]
fn the_table_is_never_deleted_and_its_counters_are_never_reset() {
    for observed in [None, Some(listed())] {
        let commands = as_json(&commands(&rules("", &one_network()), observed.as_ref(), None, None));
        assert_eq!(commands[0], json!({"add": {"table": {"family": "inet", "name": "bastiond"}}}));
        assert!(
            commands.iter().all(|command| command.pointer("/delete").is_none() && command.pointer("/reset").is_none())
        );
        assert!(commands.iter().all(|command| command.pointer("/flush/ruleset").is_none()));
    }
}

#[test]
fn a_change_of_one_forward_among_many_is_one_element_less_and_one_more() {
    let forwards = |first: u16| {
        let forward = |port| format!("[[nat.forward]]\nport = {port}\nto = \"10.0.0.4\"\n");
        (first..first + 100).map(forward).collect::<String>()
    };
    let [before, after] = [10_000, 10_001].map(|first| Arc::new(rules(&forwards(first), &one_network())));
    let last = LastApplied { ruleset: Some(before), ..last_applied() };
    let change = change(&after, Some(&listed()), Some(&last));
    let plan = Plan { desired: after, change, problems: Vec::new(), hints: Vec::new() };
    assert_eq!(plan.steps(), ["replace the rules of table inet bastiond: the rules are new"]);
    let counts = plan.counts();
    // One of the map, and one of the set of what it has translated.
    assert_eq!((counts.added_elements, counts.deleted_elements), (2, 2));
}

#[test]
fn files_of_version_0_1_0_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let nat_json =
        r#"{"fingerprint":7,"listing":[{"table":{"family":"inet","name":"bastiond"}}],"meters":{"flows":null}}"#;
    std::fs::write(directory.path().join("nat.json"), nat_json).unwrap();
    let last = Nat::load(directory.path(), directory.path()).last_applied.unwrap();
    assert_eq!((last.fingerprint, last.listing.0.len(), last.meters["flows"]), (7, 1, None));
    boot_rules::write(&rules("", &one_network()), directory.path()).unwrap();
    let rules_json: Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("rules.json")).unwrap()).unwrap();
    assert_eq!(rules_json["format"], 1);
    assert!(rules_json["skeleton"].is_string() && rules_json["commands"][0].is_string(), "{rules_json}");
}

#[test]
fn commands_for_another_table_do_not_name_ours() {
    let text = "[[nat.forward]]\nport = 80\nto = \"10.0.0.4\"\n[firewall]\nlog_drops = false";
    let commands = commands(&rules(text, &one_network()), None, None, None);
    let document = command::document(&commands, model::TRIAL_TABLE);
    assert!(document.contains("\"bastiond_trial\"") && !document.contains("\"bastiond\""), "{document}");
}

#[test]
fn foreign_objects_in_our_table_are_deleted_after_the_rules_that_may_use_them() {
    let mut listing = listed();
    listing.0.extend([
        json!({"chain": {"family": "inet", "table": "bastiond", "name": "backdoor"}}),
        json!({"set": {"family": "inet", "table": "bastiond", "name": "friends", "type": "ipv4_addr"}}),
        json!({"map": {"family": "inet", "table": "bastiond", "name": "ways", "type": "ipv4_addr", "map": "verdict"}}),
        json!({"counter": {"family": "inet", "table": "bastiond", "name": "spy"}}),
    ]);
    let commands = as_json(&commands(&rules("", &one_network()), Some(&listing), None, None));
    let named = |name: &str| json!({"family": "inet", "table": "bastiond", "name": name});
    assert_eq!(
        commands[2..6],
        [
            json!({"delete": {"map": named("ways")}}),
            json!({"delete": {"chain": named("backdoor")}}),
            json!({"delete": {"set": named("friends")}}),
            json!({"delete": {"counter": named("spy")}}),
        ]
    );
    assert_eq!(commands[1], json!({"flush": {"table": {"family": "inet", "name": "bastiond"}}}));
}

#[test]
fn a_chain_at_another_hook_and_a_set_of_another_type_are_deleted_first() {
    let mut listing = listed();
    for object in &mut listing.0 {
        if object["chain"]["name"] == "early" {
            object["chain"]["hook"] = json!("input");
        }
        if object["set"]["name"] == "ssh_ports" {
            object["set"]["flags"] = json!("timeout");
        }
    }
    let commands = as_json(&commands(&rules("", &one_network()), Some(&listing), None, None));
    let deleted: Vec<_> = commands.iter().filter_map(|command| command.get("delete")).collect();
    let named = |name: &str| json!({"family": "inet", "table": "bastiond", "name": name});
    assert_eq!(deleted, [&json!({"chain": named("early")}), &json!({"set": named("ssh_ports")})]);
}

#[test]
fn a_listing_with_other_objects_than_were_loaded_is_not_accepted() {
    let want = rules("", &one_network());
    assert!(drift::is_listing_of(&want, &listed()));
    for position in 0..listed().0.len() {
        let mut listing = listed();
        let lost = listing.0.remove(position);
        assert!(lost.get("table").is_some() || !drift::is_listing_of(&want, &listing), "without {lost}");
    }
    let foreign = [
        json!({"rule": {"family": "inet", "table": "bastiond", "chain": "input", "expr": [{"accept": null}]}}),
        json!({"chain": {"family": "inet", "table": "bastiond", "name": "backdoor"}}),
        json!({"map": {"family": "inet", "table": "bastiond", "name": "ways"}}),
    ];
    for object in foreign {
        let mut listing = listed();
        listing.0.push(object.clone());
        assert!(!drift::is_listing_of(&want, &listing), "with {object}");
    }
}

#[test]
fn flags_of_a_set_are_the_same_as_an_array_and_as_a_word() {
    let mut listing = listed();
    for object in &mut listing.0 {
        if object["set"]["flags"].is_array() {
            object["set"]["flags"] = json!("interval");
        }
    }
    let commands = as_json(&commands(&rules("", &one_network()), Some(&listing), None, None));
    assert!(commands.iter().all(|command| command.get("delete").is_none()));
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

#[test]
fn a_text_that_is_no_listing_is_an_error() {
    for text in ["", "{}", "[]", "{\"nftables\": 3}", "{\"nftables\": [{\"table\""] {
        observe::normalise(text).unwrap_err();
    }
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
    desired(&config, &one_network(), tunnel(&config, &one_network(), &seen_return_routes).as_ref(), false)
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
        forward_paths(&desired(&config, &one_network(), full.as_ref(), false)),
        [&inside[..], &["wg0 -> eth0: from_tunnel"]].concat()
    );
    assert_eq!(forward_paths(&rules("", &one_network())), egress);
    let without_probes = rules("health.enabled = false", &one_network());
    assert_eq!(forward_paths(&without_probes), ["eth1 -> eth0: egress"]);
}

/// The sources of probes and the addresses under which they leave.
fn probes(text: &str, site: &Site) -> Vec<String> {
    let paths = probed_paths(&config(text), site);
    paths.iter().map(|path| format!("{} as {:?}", path.source, path.egress)).collect()
}

#[test]
fn a_probe_has_the_networks_broadcast_address_unless_the_kernel_takes_it_for_one() {
    let mut site = one_network();
    assert_eq!(probes("", &site), ["10.0.255.255 as Some(198.51.100.2)"]);
    assert_eq!(probes("health.enabled = false", &site), [""; 0]);
    site.broadcasts.insert("10.0.255.255".parse().unwrap());
    assert_eq!(probes("", &site), ["198.19.240.1 as Some(198.51.100.2)"]);
    let postrouting = |site: &Site| {
        let rules = rules("", site);
        serde_json::to_string(&rules.chains.iter().find(|chain| chain.name == "postrouting").unwrap().rules).unwrap()
    };
    assert!(postrouting(&site).contains("198.19.240.1"), "{}", postrouting(&site));
    assert!(!postrouting(&one_network()).contains("198.19"), "{}", postrouting(&one_network()));
    site.public = None;
    assert_eq!(probes("", &site), [""; 0]);
}

#[test]
fn each_address_of_a_pool_has_a_probe_of_its_own() {
    let addresses: Vec<Ipv4Addr> = (2..42).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
    let mut site = one_network();
    site.private.push(private("eth2", "10.2.0.2", "10.2.0.0/16"));
    site.public.as_mut().unwrap().addresses.clone_from(&addresses);
    let pool: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let config = config(&format!("[nat]\negress_addresses = [{}]", pool.join(", ")));
    let paths = probed_paths(&config, &site);
    for link in &site.private {
        let of_link = paths.iter().filter(|path| path.network == link.network);
        let egress: Vec<Ipv4Addr> = of_link.filter_map(|path| path.egress).collect();
        assert_eq!(egress, addresses);
    }
    let sources: std::collections::BTreeSet<Ipv4Addr> = paths.iter().map(|path| path.source).collect();
    assert_eq!(sources.len(), paths.len(), "no two probes have the same source");
}

#[test]
fn without_a_tunnel_the_table_has_no_set_and_no_counter_of_one() {
    let mut with = with_tunnel(&["10.100.0.0/24", "192.168.178.0/24"]);
    let without = rules("", &one_network());
    with.counters.retain(|name| *name != "tunnel_flows");
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
        // Beside the egress rule, the one that keeps sources and the one for what is not translated.
        (set_of(rules, "tunnel_masqueraded"), postrouting.rules.len() - 2)
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
    use super::super::concerns_our_table;

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

#[test]
fn rules_that_refer_to_a_flowtable_are_flushed_before_it_is_replaced() {
    let one = Site { public: None, ..one_network() };
    let mut two = one.clone();
    two.private.push(private("eth2", "10.2.0.2", "10.2.0.0/16"));
    let [before, after] = [&one, &two].map(|site| desired(&config(""), site, None, true));
    let forward = |rules: &Ruleset| rules.chains.iter().find(|chain| chain.name == "forward").cloned();
    assert_eq!(forward(&before), forward(&after), "without paths the chain does not name the links");
    let there = json!({"flowtable": {"family": "inet", "table": TABLE, "name": "fastpath", "dev": "eth1"}});
    let commands = as_json(&commands(&after, Some(&Listing(vec![there])), Some(&before), None));
    let place = |wanted: Value| commands.iter().position(|command| *command == wanted);
    let flush = json!({"flush": {"chain": {"family": "inet", "table": TABLE, "name": "forward"}}});
    let delete = json!({"delete": {"flowtable": {"family": "inet", "table": TABLE, "name": "fastpath"}}});
    assert!(place(flush.clone()).is_some() && place(flush) < place(delete), "{commands:#?}");
}
