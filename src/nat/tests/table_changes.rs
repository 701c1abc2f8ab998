//! From the listed table to the desired one: what counts as a change, and the commands that make it.

use super::super::plan::{change, commands, fingerprint};
use super::*;
use crate::component::Plan as _;

/// Commands as JSON.
fn as_json(commands: &[Command]) -> Vec<Value> {
    let json = |command: &Command| {
        let mut text = String::new();
        command.write(TABLE, &mut text);
        serde_json::from_str(&text).unwrap()
    };
    commands.iter().map(json).collect()
}

/// The table as nft 1.0.6 lists it after the rules of `one_network` were loaded.
fn listed() -> Listing {
    observe::normalise(include_str!("../../../tests/data/tables/one-network.json")).unwrap()
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
fn a_table_as_it_was_applied_is_not_changed() {
    assert_eq!(change(&rules("", &one_network()), Some(&listed()), Some(&last_applied())), None);
}

#[test]
fn values_of_counters_and_handles_are_no_drift() {
    let text = include_str!("../../../tests/data/tables/one-network.json");
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
    let mut dormant = listed();
    dormant.0.push(json!({ observe::DORMANT: {} }));
    assert_eq!(drift(Some(&dormant)), ["the table was dormant, so that its chains saw no packets"]);
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
fn the_listing_that_version_0_1_0_kept_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let nat_json =
        r#"{"fingerprint":7,"listing":[{"table":{"family":"inet","name":"bastiond"}}],"meters":{"flows":null}}"#;
    std::fs::write(directory.path().join("nat.json"), nat_json).unwrap();
    let last = Nat::load(directory.path(), directory.path()).last_applied.unwrap();
    assert_eq!((last.fingerprint, last.listing.0.len(), last.meters["flows"]), (7, 1, None));
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
fn a_text_that_is_no_listing_is_an_error() {
    for text in ["", "{}", "[]", "{\"nftables\": 3}", "{\"nftables\": [{\"table\""] {
        observe::normalise(text).unwrap_err();
    }
}

#[test]
fn rules_that_refer_to_a_flowtable_are_flushed_before_it_is_replaced() {
    let one = Site { public: None, ..one_network() };
    let mut two = one.clone();
    two.private.push(PrivateLink::example("eth2", "10.2.0.2", "10.2.0.0/16"));
    let [before, after] =
        [&one, &two].map(|site| desired(&config(""), site, None, Machine { fastpath: true, ..Machine::default() }));
    let forward = |rules: &Ruleset| rules.chains.iter().find(|chain| chain.name == "forward").cloned();
    assert_eq!(forward(&before), forward(&after), "without paths the chain does not name the links");
    let there = json!({"flowtable": {"family": "inet", "table": TABLE, "name": "fastpath", "dev": "eth1"}});
    let commands = as_json(&commands(&after, Some(&Listing(vec![there])), Some(&before), None));
    let place = |wanted: Value| commands.iter().position(|command| *command == wanted);
    let flush = json!({"flush": {"chain": {"family": "inet", "table": TABLE, "name": "forward"}}});
    let delete = json!({"delete": {"flowtable": {"family": "inet", "table": TABLE, "name": "fastpath"}}});
    assert!(place(flush.clone()).is_some() && place(flush) < place(delete), "{commands:#?}");
}
