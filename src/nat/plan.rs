//! Desired rules and observed table in, one transaction out. Pure.
//!
//! The table stays: its rules are flushed and refilled inside one transaction, so that no packet meets a gateway without
//! rules and named counters keep their values. What was in it and is no longer wanted is deleted in the same transaction.

use std::collections::BTreeSet;

use nftables::schema::{Chain, Element, FlushObject, NfCmd, NfListObject, NfObject, Rule, Set, Table};
use nftables::types::NfFamily;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::{self, Ruleset, TABLE};
use super::observe::Listing;

/// What was applied last, and how nft listed it afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The commands that made the table from nothing.
    pub applied: Vec<Value>,
    /// The listing that was read back.
    pub listing: Listing,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// The table is as it shall be.
    Keep,
    /// Replace the rules.
    Replace {
        /// Why, for the report.
        reasons: Vec<String>,
        /// Whether somebody else changed the table since we made it as it is still wanted.
        drifted: bool,
        /// The transaction.
        commands: Vec<Value>,
    },
}

/// Compares what is wanted with what is there, in nft's own words.
pub fn plan(desired: &Ruleset, observed: Option<&Listing>, memory: Option<&Memory>) -> Plan {
    let wanted = commands(desired, None);
    let unchanged = memory.filter(|memory| memory.applied == wanted);
    let (reasons, drifted) = match (observed, unchanged) {
        (Some(observed), Some(memory)) if *observed == memory.listing => return Plan::Keep,
        (Some(observed), Some(memory)) => (differences(&memory.listing, observed), true),
        (None, Some(_)) => (vec![format!("table inet {TABLE} was gone")], true),
        (None, None) => (vec![format!("table inet {TABLE} loaded")], false),
        (Some(_), None) if memory.is_some() => (vec!["the rules are new".to_owned()], false),
        (Some(_), None) => (vec![format!("table inet {TABLE} replaced: nothing is remembered of it")], false),
    };
    Plan::Replace { reasons, drifted, commands: commands(desired, observed) }
}

/// The transaction that makes the table as desired, starting from `observed`.
pub fn commands(desired: &Ruleset, observed: Option<&Listing>) -> Vec<Value> {
    let table = || Table { family: NfFamily::INet, name: TABLE.into(), handle: None };
    let mut commands =
        vec![typed(NfCmd::Add(NfListObject::Table(table()))), typed(NfCmd::Flush(FlushObject::Table(table())))];
    if let Some(observed) = observed {
        commands.extend(removals(desired, observed));
    }
    for name in &desired.counters {
        // By hand: the crate prints a counter without values as `"bytes": null`.
        commands.push(json!({"add": {"counter": named(name)}}));
    }
    for set in &desired.sets {
        commands.push(typed(NfCmd::Add(NfListObject::Set(Box::new(definition(set))))));
        commands.push(typed(NfCmd::Flush(FlushObject::Set(Box::new(definition(set))))));
        if !set.elements.is_empty() {
            commands.push(typed(NfCmd::Add(NfListObject::Element(Element {
                family: NfFamily::INet,
                table: TABLE.into(),
                name: set.name.into(),
                elem: set.elements.clone().into(),
            }))));
        }
    }
    commands.extend(desired.chains.iter().map(|chain| typed(NfCmd::Add(NfListObject::Chain(declaration(chain))))));
    for chain in &desired.chains {
        commands.extend(chain.rules.iter().map(|rule| {
            typed(NfCmd::Add(NfListObject::Rule(Rule {
                family: NfFamily::INet,
                table: TABLE.into(),
                chain: chain.name.into(),
                expr: rule.clone().into(),
                ..Rule::default()
            })))
        }));
    }
    commands
}

/// Deletes what is not wanted, and what is wanted but of another kind than it is (a chain's hook cannot be changed).
/// The rules are flushed before, so only verdicts in maps still refer to chains.
fn removals(desired: &Ruleset, observed: &Listing) -> Vec<Value> {
    let mut removals = Vec::new();
    // Kinds that we never make: somebody put them into our table. Maps come before chains, since their verdicts hold them.
    for kind in
        ["map", "flowtable", "quota", "limit", "ct helper", "ct timeout", "ct expectation", "synproxy", "secmark"]
    {
        removals.extend(observed.of_kind(kind).map(|there| delete(kind, there)));
    }
    for there in observed.of_kind("chain") {
        let wanted =
            desired.chains.iter().find(|chain| there["name"] == chain.name).map(|chain| value(&declaration(chain)));
        if wanted.is_none_or(|wanted| !same(&wanted, there, &["type", "hook", "prio"])) {
            removals.push(delete("chain", there));
        }
    }
    for there in observed.of_kind("set") {
        let wanted = desired.sets.iter().find(|set| there["name"] == set.name).map(|set| value(&definition(set)));
        if wanted.is_none_or(|wanted| !same_set(&wanted, there)) {
            removals.push(delete("set", there));
        }
    }
    let counters: BTreeSet<&str> = desired.counters.iter().copied().collect();
    let unwanted = |there: &&Value| !there["name"].as_str().is_some_and(|name| counters.contains(name));
    removals.extend(observed.of_kind("counter").filter(unwanted).map(|there| delete("counter", there)));
    removals
}

/// The transaction that replaces the whole table, with what it counted: for when it cannot be changed in place.
pub(super) fn anew(desired: &Ruleset) -> Vec<Value> {
    let table = Table { family: NfFamily::INet, name: TABLE.into(), handle: None };
    // Added first, so that the deletion has something to delete whatever happened meanwhile.
    let mut commands =
        vec![typed(NfCmd::Add(NfListObject::Table(table.clone()))), typed(NfCmd::Delete(NfListObject::Table(table)))];
    commands.extend(self::commands(desired, None));
    commands
}

/// Whether a listing can be that of the desired rules: the same chains with as many rules, the same sets and counters, and
/// nothing else. nft words rules its own way, so they are counted, not compared.
pub(super) fn holds(desired: &Ruleset, listing: &Listing) -> bool {
    let known = ["table", "chain", "rule", "set", "counter"];
    let foreign = listing.0.iter().any(|object| !known.iter().any(|kind| object.get(kind).is_some()));
    let names =
        |kind| -> BTreeSet<&str> { listing.of_kind(kind).filter_map(|object| object["name"].as_str()).collect() };
    let chains = desired.chains.iter().all(|chain| {
        let wanted = value(&declaration(chain));
        let rules = listing.of_kind("rule").filter(|rule| rule["chain"] == chain.name).count();
        let is_wanted = |there: &Value| same(&wanted, there, &["name", "type", "hook", "prio", "policy"]);
        rules == chain.rules.len() && listing.of_kind("chain").any(is_wanted)
    });
    let sets = desired.sets.iter().all(|set| {
        let empty = |there: &Value| there["elem"].as_array().is_none_or(Vec::is_empty);
        listing.of_kind("set").any(|there| there["name"] == set.name && empty(there) == set.elements.is_empty())
    });
    !foreign
        && chains
        && sets
        && names("chain") == desired.chains.iter().map(|chain| chain.name).collect()
        && names("set") == desired.sets.iter().map(|set| set.name).collect()
        && names("counter") == desired.counters.iter().copied().collect()
}

fn delete(kind: &str, there: &Value) -> Value {
    let name = there["name"].as_str().unwrap_or_default();
    json!({"delete": {kind: named(name)}})
}

fn named(name: &str) -> Value {
    json!({"family": "inet", "table": TABLE, "name": name})
}

/// nft lists what it was given for these fields.
fn same(wanted: &Value, there: &Value, fields: &[&str]) -> bool {
    fields.iter().all(|&field| wanted.get(field) == there.get(field))
}

/// A set is the same if its key is. Flags are compared as text: nft 1.0.6 lists an array, later ones a single word.
fn same_set(wanted: &Value, there: &Value) -> bool {
    let words = |flags: Option<&Value>| -> BTreeSet<String> {
        match flags {
            Some(Value::Array(flags)) => flags.iter().filter_map(|flag| flag.as_str().map(str::to_owned)).collect(),
            Some(Value::String(flag)) => BTreeSet::from([flag.clone()]),
            _ => BTreeSet::new(),
        }
    };
    same(wanted, there, &["type"]) && words(wanted.get("flags")) == words(there.get("flags"))
}

fn definition(set: &model::Set) -> Set<'static> {
    Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: set.name.into(),
        handle: None,
        set_type: set.key.clone(),
        policy: None,
        flags: Some([set.flag].into()),
        elem: None,
        timeout: None,
        gc_interval: None,
        size: None,
        comment: None,
    }
}

fn declaration(chain: &model::Chain) -> Chain<'static> {
    Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: chain.name.into(),
        _type: chain.base.map(|base| base.kind),
        hook: chain.base.map(|base| base.hook),
        prio: chain.base.map(|base| base.priority),
        policy: chain.base.map(|base| base.policy),
        ..Chain::default()
    }
}

fn typed(command: NfCmd<'static>) -> Value {
    value(&NfObject::CmdObject(command))
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("the nftables crate's types have string keys only, which JSON can hold")
}

/// What somebody changed, in words an operator can act on.
fn differences(before: &Listing, now: &Listing) -> Vec<String> {
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
    let others = |listing: &Listing| -> Vec<Value> {
        listing
            .0
            .iter()
            .filter(|object| object.get("rule").is_none() && object.get("chain").is_none())
            .cloned()
            .collect()
    };
    if others(before) != others(now)
        || now.of_kind("chain").any(|chain| !before.of_kind("chain").any(|b| b["name"] == chain["name"]))
    {
        found.push("sets, counters or foreign objects had changed".to_owned());
    }
    if found.is_empty() {
        found.push("the table had changed".to_owned());
    }
    found
}
