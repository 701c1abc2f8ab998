//! Desired rules and observed table in, one transaction out. Pure.
//!
//! The table stays: its rules are flushed and refilled inside one transaction, so that no packet meets a gateway without
//! rules and named counters keep their values. What was in it and is no longer wanted is deleted in the same transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use nftables::schema::{Chain, FlowTable, FlushObject, NfCmd, NfListObject, NfObject, Table};
use nftables::types::{NfFamily, NfHook};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::element::Element;
use super::model::{self, FLOWTABLE, Kind, Ruleset, Set, TABLE, TRIAL};
use super::observe::Listing;
use super::skeleton;

/// Below this a set is emptied and filled again: that is no more work than to find out what differs.
const WORTH_COMPARING: usize = 64;

/// What was applied last, and how nft listed it afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Tells whether the same is wanted again; see [`fingerprint`].
    pub fingerprint: u64,
    /// The listing that was read back.
    pub listing: Listing,
    /// The limit that each meter's elements were made with.
    pub meters: BTreeMap<String, Option<u32>>,
    /// The kernel's generation of all rules at which the listing was true: as long as it is the same, nothing has changed.
    #[serde(skip)]
    pub generation: Option<u32>,
    /// What was applied, for the next difference; a daemon that was started anew has none.
    #[serde(skip)]
    pub ruleset: Option<Ruleset>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// The table is as it shall be.
    Keep,
    /// Change it.
    Replace {
        /// Why, for the report.
        reasons: Vec<String>,
        /// Whether somebody else changed the table since we made it as it is still wanted.
        drifted: bool,
        /// The text that declares what JSON cannot, if something of it is missing.
        skeleton: Option<String>,
        /// The transaction.
        commands: Vec<Command>,
    },
}

/// A command of nft's, as JSON text.
pub type Command = String;

/// A number that is the same for the same table. A daemon of another version may come to another one; it then replaces the
/// rules by the same rules.
pub fn fingerprint(desired: &Ruleset) -> u64 {
    let mut hasher = DefaultHasher::new();
    for command in commands(desired, None, None, None) {
        command.hash(&mut hasher);
    }
    desired.meters.iter().for_each(|meter| (meter.name, meter.limit).hash(&mut hasher));
    hasher.finish()
}

/// Compares what is wanted with what is there, in nft's own words.
pub fn plan(desired: &Ruleset, observed: Option<&Listing>, memory: Option<&Memory>) -> Plan {
    let same = |memory: &&Memory| match &memory.ruleset {
        Some(ruleset) => ruleset == desired,
        None => memory.fingerprint == fingerprint(desired),
    };
    let unchanged = memory.filter(same);
    let (reasons, drifted) = match (observed, unchanged) {
        (Some(observed), Some(memory)) if *observed == memory.listing => return Plan::Keep,
        (Some(observed), Some(memory)) => (differences(&memory.listing, observed), true),
        (None, Some(_)) => (vec![format!("table inet {TABLE} was gone")], true),
        (None, None) => (vec![format!("table inet {TABLE} loaded")], false),
        (Some(_), None) if memory.is_some() => (vec!["the rules are new".to_owned()], false),
        (Some(_), None) => (vec![format!("table inet {TABLE} replaced: nothing is remembered of it")], false),
    };
    // The difference to what was applied is enough only where nobody has changed that.
    let known = memory.filter(|memory| observed == Some(&memory.listing)).and_then(|memory| memory.ruleset.as_ref());
    let meters = memory.map(|memory| &memory.meters);
    let has = |kind: &str, name: &str| {
        observed.is_some_and(|observed| observed.of_kind(kind).any(|there| there["name"] == name))
    };
    Plan::Replace {
        reasons,
        drifted,
        skeleton: skeleton::missing(TABLE, has),
        commands: commands(desired, observed, known, meters),
    }
}

/// The transaction that makes the table as desired, starting from `observed`; only the difference, where it is known to hold
/// the `before` rules. `meters`: the limits that the meters' elements were made with.
pub fn commands(
    desired: &Ruleset,
    observed: Option<&Listing>,
    before: Option<&Ruleset>,
    meters: Option<&BTreeMap<String, Option<u32>>>,
) -> Vec<Command> {
    let mut commands = vec![typed(NfCmd::Add(NfListObject::Table(table())))];
    let changed: Vec<&model::Chain> = match before {
        // A flowtable between other links is another one, and cannot be replaced while a rule refers to it.
        Some(before) => {
            let offloads = |chain: &model::Chain| before.fastpath != desired.fastpath && chain.base.is_some();
            desired.chains.iter().filter(|chain| offloads(chain) || !before.chains.contains(chain)).collect()
        }
        None => desired.chains.iter().collect(),
    };
    match before {
        Some(before) => {
            let stands = |chain: &&&model::Chain| before.chains.iter().any(|other| other.name == chain.name);
            commands.extend(
                changed.iter().filter(stands).map(|chain| text(&json!({"flush": {"chain": named(&chain.name)}}))),
            );
            // Chains that are to go may refer to each other.
            let gone = before.chains.iter().filter(|old| desired.chains.iter().all(|chain| chain.name != old.name));
            commands.extend(gone.map(|chain| text(&json!({"flush": {"chain": named(&chain.name)}}))));
        }
        None => commands.push(typed(NfCmd::Flush(FlushObject::Table(table())))),
    }
    if let Some(observed) = observed {
        commands.extend(removals(desired, observed).iter().map(text));
    }
    // By hand: the crate prints a counter without values as `"bytes": null`.
    commands.extend(desired.counters.iter().map(|name| text(&json!({"add": {"counter": named(name)}}))));
    for set in &desired.sets {
        contents(set, before.and_then(|before| before.sets.iter().find(|old| old.name == set.name)), &mut commands);
    }
    if observed.is_some() {
        let made_otherwise = |meter: &&model::Meter| meters.and_then(|m| m.get(meter.name)) != Some(&meter.limit);
        let stale = desired.meters.iter().filter(made_otherwise);
        commands.extend(stale.map(|meter| text(&json!({"flush": {"set": named(meter.name)}}))));
    }
    if !desired.fastpath.is_empty() && before.is_none_or(|before| before.fastpath != desired.fastpath) {
        commands.push(typed(NfCmd::Add(NfListObject::FlowTable(flowtable(desired)))));
    }
    commands.extend(changed.iter().map(|chain| typed(NfCmd::Add(NfListObject::Chain(declaration(chain))))));
    for chain in changed {
        commands.extend(chain.rules.iter().map(|rule| {
            text(&json!({"add": {"rule": {"family": "inet", "table": TABLE, "chain": chain.name, "expr": rule}}}))
        }));
    }
    commands
}

/// Makes a set hold what it shall.
fn contents(set: &Set, before: Option<&Set>, commands: &mut Vec<Command>) {
    match before.filter(|before| before.kind == set.kind) {
        Some(before) if before.elements == set.elements => {}
        Some(before) if set.elements.len().max(before.elements.len()) > WORTH_COMPARING => {
            let missing_in = |list: &[Element], element: &&Element| list.binary_search(element).is_err();
            let gone = before.elements.iter().filter(|element| missing_in(&set.elements, element));
            let new = set.elements.iter().filter(|element| missing_in(&before.elements, element));
            commands.extend(elements("delete", &set.name, gone, Element::write_key));
            commands.extend(elements("add", &set.name, new, Element::write));
        }
        _ => {
            if set.kind != Kind::Map {
                commands.push(text(&json!({"add": {"set": definition(set)}})));
            }
            let kind = if set.kind == Kind::Map { "map" } else { "set" };
            commands.push(text(&json!({"flush": {kind: named(&set.name)}})));
            commands.extend(elements("add", &set.name, set.elements.iter(), Element::write));
        }
    }
}

/// The command that adds or deletes elements; none where there are none.
fn elements<'a>(
    verb: &str,
    set: &str,
    elements: impl Iterator<Item = &'a Element>,
    write: impl Fn(&Element, &mut String),
) -> Option<Command> {
    let mut elements = elements.peekable();
    elements.peek()?;
    let mut command =
        format!("{{\"{verb}\":{{\"element\":{{\"family\":\"inet\",\"table\":\"{TABLE}\",\"name\":\"{set}\",\"elem\":[");
    while let Some(element) = elements.next() {
        write(element, &mut command);
        if elements.peek().is_some() {
            command.push(',');
        }
    }
    command.push_str("]}}}");
    Some(command)
}

fn table() -> Table<'static> {
    Table { family: NfFamily::INet, name: TABLE.into(), handle: None }
}

/// Deletes what is not wanted, and what is wanted but of another kind than it is (a chain's hook cannot be changed).
/// The rules are flushed before, so only verdicts in maps still refer to chains.
fn removals(desired: &Ruleset, observed: &Listing) -> Vec<Value> {
    let mut removals = Vec::new();
    // Kinds that we never make: somebody put them into our table. Maps come before chains, since their verdicts hold them.
    let strange_maps = observed.of_kind("map").filter(|there| !there["name"].as_str().is_some_and(is_our_map));
    removals.extend(strange_maps.map(|there| delete("map", there)));
    for kind in ["quota", "limit", "ct helper", "ct timeout", "ct expectation", "synproxy", "secmark"] {
        removals.extend(observed.of_kind(kind).map(|there| delete(kind, there)));
    }
    for there in observed.of_kind("flowtable") {
        if !is_wanted_flowtable(desired, there) {
            removals.push(delete("flowtable", there));
        }
    }
    for there in observed.of_kind("chain") {
        let wanted =
            desired.chains.iter().find(|chain| there["name"] == *chain.name).map(|chain| value(&declaration(chain)));
        if wanted.is_none_or(|wanted| !same(&wanted, there, &["type", "hook", "prio"])) {
            removals.push(delete("chain", there));
        }
    }
    for there in observed.of_kind("set") {
        let name = there["name"].as_str().unwrap_or_default();
        let wanted = desired.sets.iter().find(|set| set.name == name).map(definition);
        if wanted.is_none_or(|wanted| !same_set(&wanted, there)) && !skeleton::declares("set", name) {
            removals.push(delete("set", there));
        }
    }
    let counters: BTreeSet<&str> = desired.counters.iter().copied().collect();
    let unwanted = |there: &&Value| !there["name"].as_str().is_some_and(|name| counters.contains(name));
    removals.extend(observed.of_kind("counter").filter(unwanted).map(|there| delete("counter", there)));
    removals
}

fn is_our_map(name: &str) -> bool {
    skeleton::declares("map", name)
}

/// Whether a flowtable is ours and between the right links: nft lists a single one as a word.
fn is_wanted_flowtable(desired: &Ruleset, there: &Value) -> bool {
    let devices: BTreeSet<&str> = match &there["dev"] {
        Value::Array(devices) => devices.iter().filter_map(Value::as_str).collect(),
        Value::String(device) => BTreeSet::from([device.as_str()]),
        _ => BTreeSet::new(),
    };
    there["name"] == FLOWTABLE && devices == desired.fastpath.iter().map(crate::net::InterfaceName::as_str).collect()
}

/// What replaces the whole table, with all that it counted, for when it cannot be changed in place: a text, and a transaction.
/// Between them nothing is forwarded.
pub(super) fn anew(desired: &Ruleset) -> (String, Vec<Command>) {
    let closed = "{ type filter hook forward priority filter - 5; policy drop; }";
    // Added first, so that the deletion has something to delete whatever happened meanwhile.
    let skeleton = skeleton::missing(TABLE, |_, _| false).unwrap_or_default();
    let text = format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\n{skeleton}add chain inet {TABLE} forward {closed}\n"
    );
    (text, commands(desired, None, None, None))
}

/// What adds the elements of a set to one that stands, whatever that holds.
pub(super) fn additions(desired: &Ruleset, name: &str) -> Vec<Command> {
    let sets = desired.sets.iter().filter(|set| set.name == *name);
    sets.filter_map(|set| elements("add", &set.name, set.elements.iter(), Element::write)).collect()
}

/// What [`anew`] is tried with, beside the table that stands: a text, and a transaction that is only to be checked.
pub(super) fn trial(desired: &Ruleset) -> (String, Vec<Command>) {
    let named = format!("\"table\":\"{TABLE}\"");
    let elsewhere = format!("\"table\":\"{TRIAL}\"");
    let skeleton = skeleton::missing(TRIAL, |_, _| false).unwrap_or_default();
    let text = format!("add table inet {TRIAL}\ndelete table inet {TRIAL}\n{skeleton}");
    let commands = commands(desired, None, None, None);
    // The first two are about the table as a whole. Names of tables are nowhere else, and no text of ours has quotes.
    (text, commands.iter().skip(2).map(|command| command.replace(&named, &elsewhere)).collect())
}

/// Whether a listing can be that of the desired rules: the same chains with as many rules, the same sets and counters, and
/// nothing else. nft words rules its own way, so they are counted, not compared.
pub(super) fn holds(desired: &Ruleset, listing: &Listing) -> bool {
    let known = ["table", "chain", "rule", "set", "map", "counter", "flowtable"];
    let foreign = listing.0.iter().any(|object| !known.iter().any(|kind| object.get(kind).is_some()));
    let names =
        |kind| -> BTreeSet<&str> { listing.of_kind(kind).filter_map(|object| object["name"].as_str()).collect() };
    let chains = desired.chains.iter().all(|chain| {
        let wanted = value(&declaration(chain));
        let rules = listing.of_kind("rule").filter(|rule| rule["chain"] == *chain.name).count();
        let is_wanted = |there: &Value| same(&wanted, there, &["name", "type", "hook", "prio", "policy"]);
        rules == chain.rules.len() && listing.of_kind("chain").any(is_wanted)
    });
    let sets = desired.sets.iter().all(|set| {
        let kind = if set.kind == Kind::Map { "map" } else { "set" };
        let mut there = listing.of_kind(kind).filter(|there| there["name"] == *set.name);
        there.any(|there| there.get("elem").is_none() == set.elements.is_empty())
    });
    let mut named_sets: BTreeSet<&str> = skeleton::names("set").collect();
    for set in desired.sets.iter().filter(|set| set.kind != Kind::Map) {
        named_sets.insert(&set.name);
    }
    let flowtables = usize::from(!desired.fastpath.is_empty());
    !foreign
        && chains
        && sets
        && names("chain") == desired.chains.iter().map(|chain| &*chain.name).collect()
        && names("set") == named_sets
        && names("map") == skeleton::names("map").collect()
        && names("counter") == desired.counters.iter().copied().collect()
        && listing.of_kind("flowtable").count() == flowtables
        && listing.of_kind("flowtable").all(|there| is_wanted_flowtable(desired, there))
}

/// Deletes the table.
pub(super) fn deletion() -> Command {
    typed(NfCmd::Delete(NfListObject::Table(table())))
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

/// By hand, since the elements' own types are: the crate's would have to hold an empty list of its expressions.
fn definition(set: &Set) -> Value {
    let (fields, flags) = match &set.kind {
        Kind::Ranges(fields) => (fields, Some(["interval"])),
        Kind::Exact(fields) => (fields, None),
        Kind::Map => return Value::Null,
    };
    let key = if let [single] = fields.as_slice() { json!(single) } else { json!(fields) };
    let mut definition = json!({"family": "inet", "table": TABLE, "name": set.name, "type": key});
    if let Some(flags) = flags {
        definition["flags"] = json!(flags);
    }
    definition
}

fn flowtable(desired: &Ruleset) -> FlowTable<'static> {
    let devices: Vec<_> = desired.fastpath.iter().map(|name| name.as_str().to_owned().into()).collect();
    FlowTable {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: FLOWTABLE.into(),
        handle: None,
        hook: Some(NfHook::Ingress),
        prio: Some(0),
        dev: Some(devices.into()),
    }
}

fn declaration(chain: &model::Chain) -> Chain<'static> {
    Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: chain.name.clone(),
        _type: chain.base.map(|base| base.kind),
        hook: chain.base.map(|base| base.hook),
        prio: chain.base.map(|base| base.priority),
        policy: chain.base.map(|base| base.policy),
        ..Chain::default()
    }
}

fn typed(command: NfCmd<'static>) -> Command {
    text(&value(&NfObject::CmdObject(command)))
}

fn text(command: &Value) -> Command {
    command.to_string()
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
    let others = |listing: &Listing| -> Vec<Value> {
        let known = |object: &Value| ["rule", "chain"].iter().any(|kind| object.get(kind).is_some());
        let compared = |object: &Value| {
            ["set", "map"].iter().any(|kind| {
                before.of_kind(kind).any(|set| object.get(kind).is_some_and(|there| there["name"] == set["name"]))
            })
        };
        listing.0.iter().filter(|object| !known(object) && !compared(object)).cloned().collect()
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
