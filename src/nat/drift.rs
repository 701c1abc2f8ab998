//! Listings compared: with each other, in words for the operator, and with the desired rules. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::command::{ObjectKind, chain_object};
use super::declarations;
use super::model::{FLOWTABLE, Ruleset, TABLE};
use super::observe::{DORMANT, Listing};
use crate::net::InterfaceName;

/// What has changed between two listings, in words that an operator can act on. At least one line.
pub(super) fn describe(before: &Listing, now: &Listing) -> Vec<String> {
    let mut found = chains(before, now);
    if now.of_kind(DORMANT).next().is_some() {
        found.push("the table was dormant, so that its chains saw no packets".to_owned());
    }
    for kind in ["set", "map"] {
        for set in before.of_kind(kind) {
            let name = set["name"].as_str().unwrap_or_default();
            match now.of_kind(kind).find(|there| there["name"] == set["name"]) {
                None => found.push(format!("{kind} {name} was gone")),
                Some(there) if there != set => found.push(format!("{kind} {name} had other contents")),
                Some(_) => {}
            }
        }
    }
    let is_new_chain = |chain: &Value| !before.of_kind("chain").any(|known| known["name"] == chain["name"]);
    if others(before, before) != others(now, before) || now.of_kind("chain").any(is_new_chain) {
        found.push("sets, counters or foreign objects had changed".to_owned());
    }
    if found.is_empty() {
        found.push("the table had changed".to_owned());
    }
    found
}

/// What differs in the chains of `before`.
fn chains(before: &Listing, now: &Listing) -> Vec<String> {
    let mut found = Vec::new();
    let rules = |listing: &Listing, chain: &Value| -> Vec<Value> {
        listing.of_kind("rule").filter(|rule| rule["chain"] == *chain).cloned().collect()
    };
    for chain in before.of_kind("chain") {
        let name = chain["name"].as_str().unwrap_or_default();
        match now.of_kind("chain").find(|there| there["name"] == chain["name"]) {
            None => found.push(format!("chain {name} was gone")),
            Some(there) if there != chain => found.push(format!("chain {name} had another declaration")),
            Some(_) => {
                let (wanted, there) = (rules(before, &chain["name"]), rules(now, &chain["name"]));
                let lost = wanted.iter().filter(|rule| !there.contains(rule)).count();
                let added = there.iter().filter(|rule| !wanted.contains(rule)).count();
                if lost > 0 {
                    found.push(format!("{lost} rule(s) of chain {name} were gone"));
                }
                if added > 0 {
                    found.push(format!("{added} foreign rule(s) stood in chain {name}"));
                }
                if lost + added == 0 && wanted != there {
                    found.push(format!("the rules of chain {name} stood in another order"));
                }
            }
        }
    }
    found
}

/// The objects of `listing` that are neither chains, nor rules, nor sets or maps of `before`.
fn others<'a>(listing: &'a Listing, before: &Listing) -> Vec<&'a Value> {
    let is_chain = |object: &Value| ["rule", "chain", DORMANT].iter().any(|kind| object.get(kind).is_some());
    let is_known_set = |object: &Value| {
        ["set", "map"].iter().any(|kind| {
            before.of_kind(kind).any(|set| object.get(kind).is_some_and(|there| there["name"] == set["name"]))
        })
    };
    listing.0.iter().filter(|object| !is_chain(object) && !is_known_set(object)).collect()
}

/// Whether a listing can be that of the desired rules: the same chains with as many rules, the same sets and counters,
/// and nothing else. nft words rules its own way, so they are counted, not compared.
pub(super) fn is_listing_of(desired: &Ruleset, listing: &Listing) -> bool {
    let known = ["table", "chain", "rule", "set", "map", "counter", "flowtable"];
    let foreign = listing.0.iter().any(|object| !known.iter().any(|kind| object.get(kind).is_some()));
    let names = |kind: ObjectKind| -> BTreeSet<&str> {
        listing.of_kind(kind.word()).filter_map(|object| object["name"].as_str()).collect()
    };
    let chains = desired.chains.iter().all(|chain| {
        let wanted = chain_object(TABLE, &chain.name, chain.base);
        let rules = listing.of_kind("rule").filter(|rule| rule["chain"] == *chain.name).count();
        let is_wanted = |there: &Value| has_same(&wanted, there, &["name", "type", "hook", "prio", "policy"]);
        rules == chain.rules.len() && listing.of_kind("chain").any(is_wanted)
    });
    let sets = desired.sets.iter().all(|set| {
        let mut there = listing.of_kind(set.kind.object().word()).filter(|there| there["name"] == *set.name);
        there.any(|there| there.get("elem").is_none() == set.elements.is_empty())
    });
    let wanted_names = |kind: ObjectKind| {
        let mut wanted: BTreeSet<&str> = declarations::names(kind).collect();
        wanted.extend(desired.sets.iter().filter(|set| set.kind.object() == kind).map(|set| &*set.name));
        wanted
    };
    let flowtables = usize::from(!desired.fastpath.is_empty());
    !foreign
        && chains
        && sets
        && names(ObjectKind::Chain) == desired.chains.iter().map(|chain| &*chain.name).collect()
        && names(ObjectKind::Set) == wanted_names(ObjectKind::Set)
        && names(ObjectKind::Map) == wanted_names(ObjectKind::Map)
        && names(ObjectKind::Counter) == desired.counters.iter().copied().collect()
        && listing.of_kind("flowtable").count() == flowtables
        && listing.of_kind("flowtable").all(|there| is_desired_flowtable(desired, there))
}

/// Whether a listed flowtable is ours and between the desired links. nft lists a single link as a word.
pub(super) fn is_desired_flowtable(desired: &Ruleset, there: &Value) -> bool {
    let devices: BTreeSet<&str> = match &there["dev"] {
        Value::Array(devices) => devices.iter().filter_map(Value::as_str).collect(),
        Value::String(device) => BTreeSet::from([device.as_str()]),
        _ => BTreeSet::new(),
    };
    there["name"] == FLOWTABLE && devices == desired.fastpath.iter().map(InterfaceName::as_str).collect()
}

/// Whether two objects agree in these fields, which nft lists as it was given them.
pub(super) fn has_same(wanted: &Value, there: &Value, fields: &[&str]) -> bool {
    fields.iter().all(|&field| wanted.get(field) == there.get(field))
}

/// A set or map is the same if its key and its values' type are. Flags are compared as text: nft 1.0.6 lists an array,
/// later ones a single word.
pub(super) fn is_same_set(wanted: &Value, there: &Value) -> bool {
    let words = |flags: Option<&Value>| -> BTreeSet<String> {
        match flags {
            Some(Value::Array(flags)) => flags.iter().filter_map(|flag| flag.as_str().map(str::to_owned)).collect(),
            Some(Value::String(flag)) => BTreeSet::from([flag.clone()]),
            _ => BTreeSet::new(),
        }
    };
    has_same(wanted, there, &["type", "map"]) && words(wanted.get("flags")) == words(there.get("flags"))
}
