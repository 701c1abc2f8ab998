use serde_json::json;

use super::*;

fn place(system: RuleSystem, chain: &str) -> Place {
    let (family, table) = ("ip".to_owned(), "nat".to_owned());
    Place { system, family, table, chain: chain.to_owned(), owner: Owner::Unknown }
}

/// The rules of a chain, whose statements are these, each with a handle from 5 on.
fn read(rules: &[Value]) -> Option<Vec<Translation>> {
    let rule = |(handle, statements): (u64, &Value)| json!({"rule": {"handle": handle, "expr": statements}});
    let listing = json!({"nftables": (5..).zip(rules).map(rule).collect::<Vec<_>>()});
    read_rules(&place(RuleSystem::Nftables, "postrouting"), &listing.to_string())
}

fn matches(key: &Value, right: &Value) -> Value {
    json!({"match": {"op": "==", "left": key, "right": right}})
}

fn networks_of(texts: &[&str]) -> Vec<Ipv4Net> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_rule_of_nft_is_read_with_its_interfaces_sources_and_target() {
    let (iif, oif) = (json!({"meta": {"key": "iifname"}}), json!({"meta": {"key": "oifname"}}));
    let source = json!({"payload": {"protocol": "ip", "field": "saddr"}});
    let network = json!({"prefix": {"addr": "10.0.0.0", "len": 16}});
    let rules = [
        json!([matches(&oif, &json!("eth0")), matches(&source, &network), {"masquerade": null}]),
        json!([matches(&iif, &json!({"set": ["eth1", "eth2"]})), {"dnat": {"addr": "10.0.0.4", "port": 80}}]),
        json!([{"redirect": {"port": 3128}}]),
        json!([{"notrack": null}]),
    ];
    let read = read(&rules).unwrap();
    let effects: Vec<Effect> = read.iter().map(|rule| rule.effect).collect();
    assert_eq!(effects, [Effect::Source, Effect::Destination, Effect::Redirect, Effect::NoTrack]);
    assert_eq!((read[0].to.as_slice(), &read[0].from), (&["eth0".to_owned()][..], &vec![]));
    assert_eq!(read[0].sources, networks_of(&["10.0.0.0/16"]));
    assert_eq!(read[1].from, ["eth1", "eth2"]);
    assert_eq!(read[1].target, Some("10.0.0.4/32".parse().unwrap()));
    assert_eq!(read[3].removal, "nft delete rule ip nat postrouting handle 8");
}

#[test]
fn a_condition_that_is_not_understood_counts_as_one_that_matches() {
    let not = json!({"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": "docker0"}});
    let set = matches(&json!({"payload": {"protocol": "ip", "field": "saddr"}}), &json!("@clients"));
    let read = read(&[json!([not, set, {"masquerade": null}])]).unwrap();
    assert_eq!((read[0].to.len(), read[0].sources.len()), (0, 0));
}

#[test]
fn rules_that_translate_nothing_are_left_out_and_those_of_iptables_are_not_guessed() {
    assert_eq!(read(&[json!([{"accept": null}]), json!([{"counter": {"packets": 1, "bytes": 2}}])]), Some(vec![]));
    assert_eq!(read(&[json!([{"xt": {"type": "target", "name": "MASQUERADE"}}])]), None);
    assert_eq!(read_rules(&place(RuleSystem::Nftables, "postrouting"), "no JSON"), Some(vec![]));
}

#[test]
fn the_tables_that_may_translate_are_those_with_a_nat_chain_or_one_before_connection_tracking() {
    let chain = |family: &str, table: &str, name: &str, kind: &str, hook: &str, priority: i64| {
        json!({"chain": {"family": family, "table": table, "name": name, "handle": 1, "type": kind, "hook": hook,
            "prio": priority}})
    };
    let chains = [
        chain("ip", "nat", "POSTROUTING", "nat", "postrouting", 100),
        json!({"chain": {"family": "ip", "table": "nat", "name": "DOCKER", "handle": 2}}),
        chain("inet", "raw", "pre", "filter", "prerouting", -300),
        chain("inet", "late", "pre", "filter", "prerouting", -150),
        chain("ip6", "nat", "POSTROUTING", "nat", "postrouting", 100),
        chain("inet", TABLE, "postrouting", "nat", "postrouting", -199),
    ];
    let tables = nat_tables(&json!({"nftables": chains}).to_string());
    let named: Vec<(&str, &str)> = tables.iter().map(|table| (table.family.as_str(), table.name.as_str())).collect();
    assert_eq!(named, [("ip", "nat"), ("inet", "raw")]);
    assert_eq!((tables[0].owner, tables[0].chains.len()), (Owner::Docker, 2));
}

#[test]
fn rivals_are_the_nat_chains_that_the_kernel_asks_before_ours() {
    let chain = |table: &str, priority: i64| {
        json!({"chain": {"family": "ip", "table": table, "name": "post", "handle": 3, "type": "nat",
            "hook": "postrouting", "prio": priority}})
    };
    let chains = json!({"nftables": [chain("early", -199), chain("usual", 100)]}).to_string();
    let tables = json!({"nftables": [{"table": {"family": "ip", "name": "early", "handle": 9}}]}).to_string();
    assert_eq!(rivals(&chains, &tables, -199), ["chain post of table ip early (9/3)"]);
    assert_eq!(rivals("", "", -199), Vec::<String>::new());
}

#[test]
fn the_lines_of_iptables_are_read_with_the_command_that_removes_each() {
    let listing = "\
-P POSTROUTING ACCEPT
-N mine
-A POSTROUTING -s 10.0.0.0/16 -o eth0 -j MASQUERADE
-A POSTROUTING ! -s 10.0.0.0/16 -o wg+ -j SNAT --to-source 198.51.100.3
-A PREROUTING -i eth0 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 10.0.1.5:443
-A PREROUTING -i eth0 -j NETMAP --to 10.0.0.0/24
-A PREROUTING -p tcp -j REDIRECT --to-ports 3128
-A mine -j RETURN
-A
";
    let rules = read_iptables(listing, RuleSystem::LegacyIptables, "nat");
    let effects: Vec<Effect> = rules.iter().map(|rule| rule.effect).collect();
    assert_eq!(effects, [Effect::Source, Effect::Source, Effect::Destination, Effect::Destination, Effect::Redirect]);
    assert_eq!((&rules[0].sources, &rules[0].to), (&networks_of(&["10.0.0.0/16"]), &vec!["eth0".to_owned()]));
    assert_eq!((&rules[1].sources, &rules[1].to), (&vec![], &vec!["wg*".to_owned()]), "all but the network");
    let targets: Vec<Option<Ipv4Net>> = rules.iter().map(|rule| rule.target).collect();
    assert_eq!(targets[2..4], [Some("10.0.1.5/32".parse().unwrap()), Some("10.0.0.0/24".parse().unwrap())]);
    assert_eq!(rules[0].removal, "iptables-legacy -t nat -D POSTROUTING -s 10.0.0.0/16 -o eth0 -j MASQUERADE");
    assert_eq!(rules[0].place.owner, Owner::Iptables);
    let raw = read_iptables("-A PREROUTING -i eth1 -j CT --notrack\n", RuleSystem::Nftables, "raw");
    assert_eq!(raw[0].effect, Effect::NoTrack);
    assert!(raw[0].removal.starts_with("iptables -t raw -D PREROUTING"), "{}", raw[0].removal);
}

#[test]
fn a_target_is_an_address_a_range_or_a_network() {
    let first = |text: &str| first_address(text).map(|range| range.to_string());
    assert_eq!(first("10.0.0.4").as_deref(), Some("10.0.0.4/32"));
    assert_eq!(first("10.0.0.4:8080").as_deref(), Some("10.0.0.4/32"));
    assert_eq!(first("10.0.0.4-10.0.0.9:8080-8090").as_deref(), Some("10.0.0.4/32"));
    assert_eq!(first("10.0.0.0/24").as_deref(), Some("10.0.0.0/24"));
    assert_eq!(first(":8080"), None);
}
