use std::collections::BTreeMap;

use super::*;
use crate::config::{Environment, parse};
use crate::outcome::Problem;
use crate::site::PublicLink;
use crate::site::{PrivateLink, Site};

fn site() -> Site {
    Site {
        public: Some(PublicLink::example("eth0", &["198.51.100.2"])),
        private: vec![PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")],
        ..Site::default()
    }
}

/// What is reported of obstacles: the codes and texts of problems, and those of hints.
fn reported(obstacles: &[Obstacle]) -> (Vec<String>, Vec<String>) {
    let config = parse("", &Environment::default()).unwrap();
    let (problems, hints) = report(obstacles, &config, &site(), None);
    let texts = |problems: &[Problem]| problems.iter().map(|problem| problem.what.clone()).collect();
    (texts(&problems), texts(&hints))
}

fn matching(left: Value, op: &str, right: Value) -> Value {
    let (left, right) = (left, right);
    json!({ "match": { "op": op, "left": left, "right": right } })
}

fn meta(key: &str, right: &str) -> Value {
    matching(json!({ "meta": { "key": key } }), "==", json!(right))
}

fn ip(field: &str, right: Value) -> Value {
    matching(json!({ "payload": { "protocol": "ip", "field": field } }), "==", right)
}

fn net(address: &str, length: u8) -> Value {
    json!({ "prefix": { "addr": address, "len": length } })
}

fn drop() -> Value {
    json!({ "drop": null })
}

/// The report on one chain of another program with these rules.
fn chain(hook: &str, policy: &str, rules: &[Vec<Value>]) -> (Vec<String>, Vec<String>) {
    let listing = json!({ "nftables": [{ "chain": {
        "family": "ip", "table": "x", "name": "c", "type": "filter", "hook": hook, "prio": 0, "policy": policy,
    } }] });
    let rules = rules.iter().enumerate().map(|(handle, expr)| json!({ "chain": "c", "handle": handle, "expr": expr }));
    let found = bases(&listing.to_string()).into_iter().flat_map(|base| {
        let rules = rules.clone().map(|rule| read_rule(&base.place, &rule)).collect();
        obstacles(&base, &BTreeMap::from([("c".to_owned(), rules)]))
    });
    reported(&found.collect::<Vec<_>>())
}

const NAME: &str = "chain c of table ip x (of an owner that is not known) drops what our rules let pass: ";
const BOTH: &str = "from eth0 to eth1, from eth1 to eth0";

#[test]
fn a_rule_that_drops_a_whole_protocol_or_subnet_is_a_problem() {
    let tcp = || meta("l4proto", "tcp");
    let cases = [
        ("forward", vec![tcp(), drop()], format!("TCP packets, {BOTH}")),
        (
            "forward",
            vec![ip("protocol", json!({ "set": ["tcp", "udp"] })), drop()],
            format!("TCP AND UDP packets, {BOTH}"),
        ),
        (
            "forward",
            vec![ip("saddr", net("10.0.1.0", 24)), drop()],
            "packets of 10.0.1.0/24, from eth1 to eth0".to_owned(),
        ),
        (
            "forward",
            vec![ip("daddr", net("10.0.1.0", 24)), drop()],
            "packets to 10.0.1.0/24, from eth0 to eth1".to_owned(),
        ),
        ("postrouting", vec![meta("oifname", "eth0"), tcp(), drop()], "TCP packets, from eth1 to eth0".to_owned()),
        ("prerouting", vec![meta("iifname", "eth1"), drop()], "packets, from eth1 to eth0".to_owned()),
        (
            "forward",
            vec![
                matching(
                    json!({ "&": [{ "payload": { "protocol": "tcp", "field": "flags" } }, ["fin", "syn", "rst", "ack"]] }),
                    "==",
                    json!("syn"),
                ),
                drop(),
            ],
            "TCP packets, from eth1 to eth0".to_owned(),
        ),
        (
            "forward",
            vec![tcp(), matching(json!({ "ct": { "key": "direction" } }), "==", json!("original")), drop()],
            "TCP packets, from eth1 to eth0".to_owned(),
        ),
        (
            "forward",
            vec![meta("iifname", "eth*"), json!({ "xt": { "type": "target", "name": "REJECT" } })],
            format!("packets, {BOTH}"),
        ),
    ];
    for (hook, rule, expected) in cases {
        assert_eq!(chain(hook, "accept", &[rule]), (vec![format!("{NAME}{expected}")], vec![]));
    }
    // A policy at another hook than `forward`, which has a report of its own.
    assert_eq!(chain("postrouting", "drop", &[]), (vec![format!("{NAME}packets, {BOTH}")], vec![]));
    assert_eq!(chain("forward", "drop", &[]), (vec![], vec![]));
}

#[test]
fn a_rule_for_single_ports_hosts_or_destinations_is_a_hint() {
    let port = matching(json!({ "payload": { "protocol": "tcp", "field": "dport" } }), "==", json!(25));
    let cases = [
        (vec![port, drop()], format!("TCP packets (25), {BOTH}")),
        (vec![ip("saddr", json!("10.0.0.4")), drop()], "packets of 10.0.0.4/32, from eth1 to eth0".to_owned()),
        (vec![ip("daddr", net("203.0.113.0", 24)), drop()], "packets to 203.0.113.0/24, from eth1 to eth0".to_owned()),
        (vec![meta("l4proto", "gre"), drop()], format!("GRE packets, {BOTH}")),
    ];
    for (rule, expected) in cases {
        assert_eq!(chain("forward", "accept", &[rule]), (vec![], vec![format!("{NAME}{expected}")]));
    }
}

#[test]
fn rules_that_concern_others_or_are_not_understood_are_not_named() {
    let state = |state: &str| matching(json!({ "ct": { "key": "state" } }), "in", json!(state));
    for rule in [
        vec![meta("iifname", "docker0"), drop()],
        vec![
            matching(json!({ "meta": { "key": "iifname" } }), "!=", json!("docker0")),
            ip("daddr", json!("172.17.0.2")),
            drop(),
        ],
        vec![state("invalid"), drop()],
        vec![ip("saddr", json!("@banned")), drop()],
        vec![json!({ "limit": { "rate": 5, "per": "second", "inv": true } }), drop()],
        vec![matching(json!({ "meta": { "key": "mark" } }), "==", json!(7)), drop()],
        vec![ip("saddr", net("192.168.0.0", 16)), ip("daddr", net("192.168.0.0", 16)), drop()],
        vec![
            matching(json!({ "payload": { "protocol": "ip", "field": "saddr" } }), "!=", net("10.0.0.0", 8)),
            meta("iifname", "eth1"),
            drop(),
        ],
        vec![json!({ "mangle": { "key": { "meta": { "key": "mark" } }, "value": 7 } })],
    ] {
        assert_eq!(chain("forward", "accept", std::slice::from_ref(&rule)), (vec![], vec![]), "{rule:?}");
    }
}

#[test]
fn what_earlier_rules_accept_is_not_dropped_by_a_later_one() {
    let accept = || json!({ "accept": null });
    let known = matching(json!({ "ct": { "key": "state" } }), "in", json!(["established", "related"]));
    let out = vec![meta("iifname", "eth1"), meta("oifname", "eth0"), accept()];
    let all = [vec![known.clone(), accept()], out.clone(), vec![drop()]];
    assert_eq!(chain("forward", "accept", &all), (vec![], vec![]));
    let answers_lost = [out, vec![drop()]];
    assert_eq!(chain("forward", "accept", &answers_lost), (vec![format!("{NAME}packets, from eth0 to eth1")], vec![]));
}

#[test]
fn what_a_chain_that_drops_everything_else_drops_before_it_accepts_is_named() {
    let accept = || json!({ "accept": null });
    let known =
        || vec![matching(json!({ "ct": { "key": "state" } }), "in", json!(["established", "related"])), accept()];
    let out = || vec![meta("iifname", "eth1"), meta("oifname", "eth0"), accept()];
    let denied = || vec![ip("saddr", net("10.0.1.0", 24)), drop()];
    let named = format!("{NAME}packets of 10.0.1.0/24, from eth1 to eth0");
    assert_eq!(chain("forward", "drop", &[known(), denied(), out()]), (vec![named], vec![]));
    // What nothing accepts the policy drops anyway, and that is reported with the policy.
    for rules in [vec![known(), out(), denied()], vec![known(), denied()], vec![known(), out(), vec![drop()]]] {
        assert_eq!(chain("forward", "drop", &rules), (vec![], vec![]), "{rules:?}");
    }
}

#[test]
fn the_entries_of_a_map_of_verdicts_count_as_rules() {
    let place = Place {
        system: RuleSystem::Nftables,
        family: "ip".to_owned(),
        table: "x".to_owned(),
        chain: "c".to_owned(),
        owner: Owner::Unknown,
    };
    let base = Base { place, stage: Stage::Forwarding, devices: Vec::new(), end: End::Accepted };
    let named = |entries: Value| {
        let map = json!({ "vmap": { "key": { "meta": { "key": "iifname" } }, "data": { "set": entries } } });
        let rules = read_rules(&base.place, &json!({ "chain": "c", "handle": 7, "expr": [map] }));
        let more = vec![read_rule(&base.place, &json!({ "chain": "more", "expr": [meta("l4proto", "tcp"), drop()] }))];
        reported(&obstacles(&base, &BTreeMap::from([("c".to_owned(), rules), ("more".to_owned(), more)])))
    };
    let to = json!({ "jump": { "target": "more" } });
    assert_eq!(named(json!([["eth1", drop()]])), (vec![format!("{NAME}packets, from eth1 to eth0")], vec![]));
    assert_eq!(
        named(json!([["lo", drop()], ["eth0", to]])),
        (vec![format!("{NAME}TCP packets, from eth0 to eth1")], vec![])
    );
    assert_eq!(named(json!([["eth1", { "accept": null }], ["docker0", drop()]])), (vec![], vec![]));
}

#[test]
fn a_queue_is_a_hint_unless_packets_pass_without_its_program() {
    let queue = |flags: Option<&str>| match flags {
        Some(flags) => json!({ "queue": { "num": 5, "flags": flags } }),
        None => json!({ "queue": { "num": 5 } }),
    };
    let (problems, hints) = chain("forward", "accept", &[vec![meta("iifname", "eth1"), queue(None)]]);
    assert_eq!((problems, hints.len()), (vec![], 1));
    assert!(hints[0].contains("has a program on this server decide about packets between our links"), "{hints:?}");
    assert_eq!(chain("forward", "accept", &[vec![queue(Some("bypass"))]]), (vec![], vec![]));
    let listing = |more: &str| format!("-P FORWARD ACCEPT\n-A FORWARD -s 10.0.1.0/24 -j NFQUEUE --queue-num 5{more}");
    for (more, expected) in [("", 1), (" --queue-bypass", 0)] {
        let obstacles = iptables::read(RuleSystem::LegacyIptables, "filter", &listing(more));
        assert_eq!((reported(&obstacles).0.len(), reported(&obstacles).1.len()), (0, expected));
    }
}

#[test]
fn packets_that_leave_a_chain_do_not_meet_its_next_rules() {
    let to = |kind: &str| json!({ kind: { "target": "elsewhere" } });
    let rules = |kind: &str| [vec![meta("iifname", "eth1"), to(kind)], vec![meta("l4proto", "tcp"), drop()]];
    let named = |pairs: &str| (vec![format!("{NAME}TCP packets, {pairs}")], vec![]);
    assert_eq!(chain("forward", "accept", &rules("goto")), named("from eth0 to eth1"));
    assert_eq!(chain("forward", "accept", &rules("jump")), named(BOTH));
}

#[test]
fn rules_that_ufw_was_told_to_deny_by_are_named() {
    let listing = |rules: &str, reject: &str| {
        format!(
            "-P INPUT DROP\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N ufw-before-forward\n-N ufw-user-forward\n\
             -N ufw-reject-forward\n-A FORWARD -j ufw-before-forward\n-A FORWARD -j ufw-reject-forward\n\
             -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT\n\
             -A ufw-before-forward -j ufw-user-forward\n{rules}{reject}"
        )
    };
    let allowed = "-A ufw-user-forward -i eth1 -o eth0 -j ACCEPT\n";
    let denied = "-A ufw-user-forward -s 10.0.0.0/16 -j DROP\n";
    let reject = "-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable\n";
    let name = "chain FORWARD of table ip filter (ufw) drops what our rules let pass: packets of 10.0.0.0/16";
    let read = |listing: String| iptables::read(RuleSystem::Nftables, "filter", &listing);
    for reject in ["", reject] {
        let obstacles = read(listing(&format!("{denied}{allowed}"), reject));
        assert_eq!(reported(&obstacles), (vec![format!("{name}, from eth1 to eth0")], vec![]));
        assert_eq!(obstacles[0].removal, "iptables-nft -t filter -D ufw-user-forward -s 10.0.0.0/16 -j DROP");
        for rules in [format!("{allowed}{denied}"), allowed.to_owned(), String::new()] {
            assert_eq!(reported(&read(listing(&rules, reject))), (vec![], vec![]), "{rules}");
        }
    }
}

#[test]
fn rules_that_firewalld_was_told_to_deny_by_are_named() {
    let listing = json!({ "nftables": [{ "chain": {
        "family": "inet", "table": "firewalld", "name": "filter_FORWARD", "type": "filter", "hook": "forward",
        "prio": 10, "policy": "accept",
    } }] });
    let accept = || json!({ "accept": null });
    let reject = || vec![json!({ "reject": { "type": "icmpx", "expr": "admin-prohibited" } })];
    let jump = |chain: &str| json!({ "jump": { "target": chain } });
    let goto = |chain: &str| json!({ "goto": { "target": chain } });
    let known = vec![matching(json!({ "ct": { "key": "state" } }), "in", json!(["established", "related"])), accept()];
    let of_all = |denied: Option<Vec<Value>>| {
        let zone = |name: &str| {
            let policy = vec![jump("filter_FWD_policy_bastiond")];
            (name.to_owned(), vec![vec![jump(&format!("{name}_deny"))], policy, reject()])
        };
        let deny = denied.into_iter().collect::<Vec<_>>();
        BTreeMap::from([
            ("filter_FORWARD".to_owned(), vec![known.clone(), vec![jump("filter_FORWARD_ZONES")], reject()]),
            (
                "filter_FORWARD_ZONES".to_owned(),
                vec![vec![meta("iifname", "eth1"), goto("filter_FWD_internal")], vec![goto("filter_FWD_public")]],
            ),
            zone("filter_FWD_internal"),
            zone("filter_FWD_public"),
            (
                "filter_FWD_policy_bastiond".to_owned(),
                vec![vec![jump("filter_FWD_policy_bastiond_deny")], vec![jump("filter_FWD_policy_bastiond_allow")]],
            ),
            ("filter_FWD_policy_bastiond_deny".to_owned(), deny),
            ("filter_FWD_policy_bastiond_allow".to_owned(), vec![vec![ip("saddr", net("10.0.0.0", 16)), accept()]]),
        ])
    };
    let report = |chains: &BTreeMap<String, Vec<Vec<Value>>>| {
        let base = bases(&listing.to_string()).remove(0);
        let read = |(name, rules): (&String, &Vec<Vec<Value>>)| {
            let rule = |expr: &Vec<Value>| read_rule(&base.place, &json!({ "chain": name, "handle": 7, "expr": expr }));
            (name.clone(), rules.iter().map(rule).collect())
        };
        reported(&obstacles(&base, &chains.iter().map(read).collect()))
    };
    assert_eq!(report(&of_all(None)), (vec![], vec![]));
    let name = "chain filter_FORWARD of table inet firewalld (firewalld) drops what our rules let pass: \
                packets of 10.0.1.0/24, from eth1 to eth0";
    let denied = vec![ip("saddr", net("10.0.1.0", 24)), drop()];
    let (problems, hints) = report(&of_all(Some(denied.clone())));
    assert_eq!((problems.len(), hints), (1, vec![]));
    assert!(problems[0].starts_with("chain filter_FORWARD of table inet firewalld"), "{problems:?}");
    assert!(problems[0].contains("packets of 10.0.1.0/24"), "{problems:?} instead of {name}");
    // In the zone of the public link it concerns nobody inside.
    let mut outside = of_all(None);
    outside.insert("filter_FWD_public_deny".to_owned(), vec![denied]);
    assert_eq!(report(&outside), (vec![], vec![]));
}

#[test]
fn addresses_that_are_written_past_connection_tracking_are_a_problem() {
    let write = |field: &str| {
        let key = json!({ "payload": { "protocol": "ip", "field": field } });
        json!({ "mangle": { "key": key, "value": "10.77.0.1" } })
    };
    for (hook, field) in [("prerouting", "saddr"), ("postrouting", "saddr"), ("forward", "daddr")] {
        let (problems, hints) = chain(hook, "accept", &[vec![write(field)]]);
        assert!(problems[0].contains("writes other addresses into packets between our links"), "{problems:?}");
        assert_eq!(hints, Vec::<String>::new());
    }
    assert_eq!(chain("forward", "accept", &[vec![write("dscp")]]), (vec![], vec![]));
}

#[test]
fn what_spoils_packets_in_another_way_is_a_problem_for_a_subnet_and_a_hint_for_a_host() {
    let write = |key: Value, value: u64| json!({ "mangle": { "key": key, "value": value } });
    let payload = |protocol: &str, field: &str| json!({ "payload": { "protocol": protocol, "field": field } });
    let zone = || write(json!({ "ct": { "key": "zone" } }), 5);
    let of = |write: Value| chain("prerouting", "accept", &[vec![ip("saddr", net("10.0.1.0", 24)), write]]);
    for write in [zone(), write(payload("ip", "ttl"), 1), write(payload("tcp", "dport"), 9)] {
        let (problems, hints) = of(write);
        assert_eq!((problems.len(), hints), (1, vec![]), "{problems:?}");
        assert!(problems[0].contains("packets of 10.0.1.0/24, from eth1 to eth0; they or their answers are lost"));
    }
    for write in [write(payload("ip", "ttl"), 65), write(payload("ip", "dscp"), 5)] {
        assert_eq!(of(write), (vec![], vec![]));
    }
    let (problems, hints) = chain("prerouting", "accept", &[vec![ip("saddr", json!("10.0.1.5")), zone()]]);
    assert_eq!((problems, hints.len()), (vec![], 1));
    let listing = |rule: &str| format!("-P PREROUTING ACCEPT\n-A PREROUTING -i eth1 {rule}");
    for (table, rule, expected) in [
        ("mangle", "-j TTL --ttl-set 1", 1),
        ("mangle", "-j TTL --ttl-set 64", 0),
        ("raw", "-j CT --zone 5", 1),
        ("raw", "-p tcp -m tcp --dport 21 -j CT --helper ftp", 0),
    ] {
        let (problems, hints) = reported(&iptables::read(RuleSystem::LegacyIptables, table, &listing(rule)));
        assert_eq!((problems.len(), hints.len()), (expected, 0), "{rule}: {problems:?}");
    }
}

#[test]
fn the_chains_that_docker_ufw_and_firewalld_make_are_no_obstacles() {
    for listings in [
        include_str!("../../../../tests/data/foreign/docker.json"),
        include_str!("../../../../tests/data/foreign/ufw.json"),
        include_str!("../../../../tests/data/foreign/firewalld.json"),
    ] {
        let mut lines = listings.lines();
        let bases = bases(lines.next().unwrap());
        let mut chains: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for rule in lines.flat_map(|listing| objects(listing, "rule")) {
            chains.entry(rule["chain"].as_str().unwrap().to_owned()).or_default().push(rule);
        }
        let of = |base: &Base| -> Vec<Obstacle> {
            let read = |rules: &Vec<Value>| rules.iter().map(|rule| read_rule(&base.place, rule)).collect();
            let chains = chains.iter().map(|(name, rules)| (name.clone(), read(rules))).collect();
            obstacles(base, &chains)
        };
        let found: Vec<Obstacle> = bases.iter().flat_map(of).collect();
        assert_eq!(reported(&found), (vec![], vec![]));
    }
}

#[test]
fn rules_of_the_old_iptables_are_read_likewise() {
    let name = "of the old iptables (rules of iptables) drops what our rules let pass: ";
    let listing = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-N mine\n-A FORWARD -i eth1 -j mine\n\
                   -A FORWARD -p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable\n\
                   -A FORWARD -m comment --comment \"no mail -j ACCEPT\" -p tcp --dport 465 -j DROP\n\
                   -A FORWARD -m set --match-set banned src -j DROP\n-A FORWARD ! -i eth1 -d 10.9.0.0/16 -j DROP\n\
                   -A mine -s 10.0.1.0/24 ! -d 10.0.0.0/8 -j DROP";
    let (problems, hints) = reported(&iptables::read(RuleSystem::LegacyIptables, "filter", listing));
    let expected = format!(
        "chain FORWARD {name}packets of 10.0.1.0/24; TCP packets (25); TCP packets (465), from eth0 to eth1, from eth1 to eth0"
    );
    assert_eq!((problems, hints), (vec![expected], vec![]));
    let listing = "-P PREROUTING ACCEPT\n-P POSTROUTING DROP\n-A POSTROUTING -o lo -j ACCEPT";
    let listing_of = |rule: &str| format!("-P FORWARD ACCEPT\n-A FORWARD {rule} -j DROP");
    for (rule, expected) in [
        ("-m iprange --src-range 10.0.1.0-10.0.1.255", "packets of 10.0.1.0/24, from eth1 to eth0"),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m state ! --state NEW", ""),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", "TCP packets, from eth1 to eth0"),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -m state --state NEW", ""),
    ] {
        let (problems, hints) = reported(&iptables::read(RuleSystem::LegacyIptables, "filter", &listing_of(rule)));
        let expected: Vec<String> = Some(expected)
            .filter(|named| !named.is_empty())
            .map(|named| format!("chain FORWARD {name}{named}"))
            .into_iter()
            .collect();
        assert_eq!((problems, hints), (expected, vec![]), "{rule}");
    }
    let (problems, _) = reported(&iptables::read(RuleSystem::LegacyIptables, "mangle", listing));
    assert_eq!(
        problems,
        ["chain POSTROUTING of table mangle of the old iptables (rules of iptables) drops what our rules let pass: \
          packets, from eth0 to eth1, from eth1 to eth0"]
    );
}

#[test]
fn states_that_nft_hides_are_read_from_iptables() {
    let hidden = json!({ "xt": { "type": "match", "name": "conntrack" } });
    let rule = json!({ "expr": [hidden, drop()] });
    assert!(hides_states(&rule));
    assert!(!hides_states(&json!({ "expr": [{ "xt": { "type": "match", "name": "comment" } }, drop()] })));
    let name = "chain FORWARD of table ip filter (rules of iptables) drops what our rules let pass: packets, from ";
    let listing = |rules: &str| format!("-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n{rules}");
    for (rules, expected) in [
        ("-A FORWARD -i eth1 -m conntrack --ctstate NEW -j DROP", vec![format!("{name}eth1 to eth0")]),
        ("-A FORWARD -m state --state ESTABLISHED -j DROP", vec![format!("{name}eth0 to eth1")]),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP", vec![]),
    ] {
        let obstacles = iptables::read(RuleSystem::Nftables, "filter", &listing(rules));
        let removal = format!("iptables-nft -t filter {}", rules.replace("-A ", "-D "));
        assert_eq!(obstacles[0].removal, removal);
        assert_eq!(reported(&obstacles), (expected, vec![]), "{rules}");
    }
}

#[test]
fn the_interfaces_of_a_chain_at_a_link_are_read_from_its_text() {
    let text = |device: &str| {
        format!("table netdev x {{\n\tchain c {{\n\t\ttype filter hook ingress {device} priority filter;\n\t}}\n}}")
    };
    assert_eq!(devices(&text("device \"eth1\"")), ["eth1"]);
    assert_eq!(devices(&text("devices = { eth1, \"eth2\" }")), ["eth1", "eth2"]);
}
