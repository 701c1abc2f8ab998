//! The lists of many peers: how many objects they become, and how little a change of one of them changes.

use std::fmt::Write as _;

use super::super::plan::commands;
use super::*;
use crate::config::{AccessEntry, Place};

/// A thousand entries of a group: hosts, ranges, and ranges of ports.
fn thousand_entries(group: u32) -> Vec<String> {
    let entry = |n: u32| {
        let (third, fourth) = (n / 250, n % 250);
        match n % 3 {
            0 => format!("10.{}.{third}.{fourth}:tcp/5432", group + 1),
            1 => format!("10.{}.{third}.{fourth}:tcp/{}-{}", group + 1, 1000 + n, 1010 + n),
            _ => format!("10.{}.{}.{}/30:udp/53", group + 20, n / 64, n % 64 * 4),
        }
    };
    (0..1000).map(entry).collect()
}

/// Ten groups of a thousand entries, and so many peers in one of them each.
fn crowd(peers: u32) -> Config {
    let mut text = "[wireguard]\naddresses = [\"10.100.0.1/16\"]\n".to_owned();
    for group in 0..10 {
        let _ = writeln!(text, "[[wireguard.group]]\nname = \"group-{group}\"\nreach = {:?}", thousand_entries(group));
    }
    for number in 0..peers {
        let key = bastiond_tunnel::key::PublicKey(std::array::from_fn(|at| number.to_be_bytes()[at % 4]));
        let address = format!("10.100.{}.{}", 1 + number / 250, number % 250);
        let _ = writeln!(text, "[[wireguard.peer]]\npublic_key = \"{key}\"\nallowed_ips = [\"{address}\"]");
        let _ = writeln!(text, "groups = [\"group-{}\"]", number % 10);
    }
    config(&text)
}

/// The rules for the first peers of a crowd. With `own`, the first one reaches another host by a list of its own.
fn rules_for(crowd: &Config, peers: usize, own: bool) -> Ruleset {
    let mut config = crowd.clone();
    let wireguard = config.wireguard.as_mut().expect("a tunnel");
    wireguard.peers.truncate(peers);
    if own {
        let host = Place::Range("10.0.1.5/32".parse().unwrap());
        wireguard.peers[0].access.lists.reach = Some(vec![AccessEntry::all_of(host)]);
    }
    let site = one_network();
    let tunnel = tunnel(&config, &site, &SeenReturnRoutes::new());
    desired(&config, &site, tunnel.as_ref(), Machine::default())
}

fn map<'a>(rules: &'a Ruleset, name: &str) -> &'a [Element] {
    &rules.sets.iter().find(|set| set.name == *name).expect("the map").elements
}

/// How many elements of each set commands add and delete.
fn element_counts(commands: &[Command]) -> Vec<(String, &'static str, usize)> {
    let count = |command: &Command| match command {
        Command::AddElements { set, elements } => Some((set.to_string(), "add", elements.len())),
        Command::DeleteElements { set, elements } => Some((set.to_string(), "delete", elements.len())),
        _ => None,
    };
    let mut counts: Vec<_> = commands.iter().filter_map(count).collect();
    counts.sort();
    counts
}

#[test]
fn thousands_of_peers_are_elements_and_no_chains_and_one_more_adds_its_own() {
    let crowd = crowd(2001);
    let (few, many) = (rules_for(&crowd, 10, false), rules_for(&crowd, 2000, false));
    assert_eq!((few.chains.len(), few.sets.len()), (many.chains.len(), many.sets.len()));
    assert_eq!((map(&few, "peer_reach").len(), map(&many, "peer_reach").len()), (10, 2000));
    let nothing = Listing(Vec::new());
    let changed = |now: &Ruleset| commands(now, Some(&nothing), Some(&many), None);
    let counts = |set: &str, verb, count| (set.to_owned(), verb, count);
    // The addresses of those that may not log in are joined to ranges.
    let one_more = element_counts(&changed(&rules_for(&crowd, 2001, false)));
    let of_maps: Vec<_> = one_more.into_iter().filter(|(set, ..)| set != "peer_no_ssh4").collect();
    assert_eq!(of_maps, [counts("peer_origin", "add", 1), counts("peer_reach", "add", 1)]);
    // A list of its own moves the first peer to another chain, and has a set of its own.
    let own = changed(&rules_for(&crowd, 2000, true));
    assert_eq!(
        element_counts(&own),
        [counts("own_to_exact", "add", 1), counts("peer_reach", "add", 1), counts("peer_reach", "delete", 1)]
    );
    let new_chains = own.iter().filter(|command| matches!(command, Command::AddChain { .. })).count();
    assert_eq!(new_chains, 1, "the chain of its combination");
}

#[test]
fn maps_to_chains_are_emptied_before_and_filled_after_the_chains_that_they_lead_to() {
    let crowd = crowd(3);
    let (before, after) = (rules_for(&crowd, 3, false), rules_for(&crowd, 3, true));
    let there = |name: &str| json!({"map": {"name": name, "type": "ipv4_addr", "map": "verdict"}});
    let chain = |chain: &super::super::model::Chain| json!({"chain": {"name": chain.name}});
    let maps = ["peer_reach", "peer_origin"].map(there);
    let listing = Listing(maps.into_iter().chain(before.chains.iter().map(chain)).collect());
    for before in [Some(&before), None] {
        let commands = commands(&after, Some(&listing), before, None);
        let position = |is: &dyn Fn(&Command) -> bool| commands.iter().position(is).expect("the command");
        let emptied =
            position(&|command| matches!(command, Command::Flush(ObjectKind::Map, name) if name == "peer_reach"));
        let chain =
            position(&|command| matches!(command, Command::AddChain { name, .. } if name.starts_with("own_reach")));
        let filled = position(&|command| matches!(command, Command::AddElements { set, .. } if set == "peer_reach"));
        assert!(emptied < chain && chain < filled, "{emptied} {chain} {filled}");
        let deleted = commands.iter().position(|command| matches!(command, Command::Delete(ObjectKind::Chain, _)));
        assert!(deleted.is_none_or(|deleted| emptied < deleted));
    }
}
