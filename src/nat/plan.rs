//! Desired rules and observed table in, commands out. Pure.
//!
//! The table stays: its rules are flushed and refilled inside one transaction, so that no packet meets a gateway
//! without rules and named counters keep their values. What was in it and is no longer wanted is deleted in the same
//! transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use nftables::types::NfChainType;
use serde::{Deserialize, Serialize};

use super::command::{Command, ObjectKind, chain_object, set_object};
use super::declarations::{self, Declaration};
use super::drift;
use super::element::Element;
use super::model::{Chain, Meter, Ruleset, Set, SetKind, TABLE};
use super::observe::Listing;
use crate::component;
use crate::outcome::Problem;

/// Smaller sets are emptied and filled again: that is no more work than to find out what differs.
const WORTH_COMPARING: usize = 64;

/// The limit that each meter's elements were made with.
pub(super) type MeterLimits = BTreeMap<String, Option<u32>>;

/// What was applied last, and how nft listed it afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastApplied {
    /// Says whether the same rules are wanted again; see [`fingerprint`].
    pub fingerprint: u64,
    /// What nft listed after the rules were loaded.
    pub listing: Listing,
    pub meters: MeterLimits,
    /// The nat chains of other programs that stood when ours were registered after them, so that ours come first.
    #[serde(default)]
    pub outranked: Vec<String>,
    /// The kernel's generation of all rules at which the listing was true. While it is the same, nothing has changed.
    #[serde(skip)]
    pub generation: Option<u32>,
    /// The rules themselves, for the next difference. `None` after a restart of the daemon.
    #[serde(skip)]
    pub ruleset: Option<Arc<Ruleset>>,
}

/// What the component is going to do.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// What the table is to hold.
    pub(super) desired: Arc<Ruleset>,
    /// `None`: the table is as desired.
    pub(super) change: Option<Change>,
    /// What of the configuration this server cannot do, and what other programs drop.
    pub(super) problems: Vec<Problem>,
    /// What other programs may drop.
    pub(super) hints: Vec<Problem>,
}

/// A change of the table.
#[derive(Debug, PartialEq)]
pub(super) struct Change {
    /// Why, for the report.
    pub reasons: Vec<String>,
    /// Whether another program changed the table after we made it as it is still wanted.
    pub is_repair: bool,
    /// What is declared first, since the transaction cannot declare it.
    pub declarations: Vec<&'static Declaration>,
    /// The transaction.
    pub commands: Vec<Command>,
    /// The nat chains of other programs that ours come before from now on.
    pub outranks: Vec<String>,
}

/// How much a plan changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub commands: usize,
    pub added_elements: usize,
    pub deleted_elements: usize,
}

impl Plan {
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for command in self.change.iter().flat_map(|change| &change.commands) {
            counts.commands += 1;
            match command {
                Command::AddElements { elements, .. } => counts.added_elements += elements.len(),
                Command::DeleteElements { elements, .. } => counts.deleted_elements += elements.len(),
                _ => {}
            }
        }
        counts
    }
}

impl component::Plan for Plan {
    fn steps(&self) -> Vec<String> {
        let reasons = self.change.iter().flat_map(|change| &change.reasons);
        reasons.map(|reason| format!("replace the rules of table inet {TABLE}: {reason}")).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        self.problems.clone()
    }
}

/// A number that is the same for the same table. A daemon of another version may come to another number; it then
/// replaces the rules by the same rules.
pub(super) fn fingerprint(desired: &Ruleset) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut text = String::new();
    for command in commands(desired, None, None, None) {
        text.clear();
        command.write(TABLE, &mut text);
        text.hash(&mut hasher);
    }
    desired.meters.iter().for_each(|meter| (meter.name, meter.limit).hash(&mut hasher));
    hasher.finish()
}

/// Compares what is wanted with what nft lists; `None` if the table is as desired.
pub(super) fn change(desired: &Ruleset, observed: Option<&Listing>, last: Option<&LastApplied>) -> Option<Change> {
    let is_same = |last: &&LastApplied| match &last.ruleset {
        Some(ruleset) => **ruleset == *desired,
        None => last.fingerprint == fingerprint(desired),
    };
    let same = last.filter(is_same);
    let (reasons, is_repair) = match (observed, same) {
        (Some(observed), Some(last)) if *observed == last.listing => return None,
        (Some(observed), Some(last)) => (drift::describe(&last.listing, observed), true),
        (None, Some(_)) => (vec![format!("table inet {TABLE} was gone")], true),
        (None, None) => (vec![format!("table inet {TABLE} loaded")], false),
        (Some(_), None) if last.is_some() => (vec!["the rules are new".to_owned()], false),
        (Some(_), None) => (vec![format!("table inet {TABLE} replaced: nothing is remembered of it")], false),
    };
    // The difference to what was applied is enough only if the table still holds that.
    let before = last.filter(|last| observed == Some(&last.listing)).and_then(|last| last.ruleset.as_deref());
    let exists = |kind: ObjectKind, name: &str| {
        observed.is_some_and(|observed| observed.of_kind(kind.word()).any(|there| there["name"] == name))
    };
    Some(Change {
        reasons,
        is_repair,
        declarations: declarations::missing(exists),
        commands: commands(desired, observed, before, last.map(|last| &last.meters)),
        outranks: Vec::new(),
    })
}

/// Registers our nat chains anew if one of `rivals` came since the last time: of chains with the same priority, the
/// kernel asks the one that was registered last. Both are in one transaction, so that the old ones serve until the new
/// ones do. For a table that is otherwise as desired; `None` if ours come first.
pub(super) fn overtake(desired: &Ruleset, rivals: &[String], last: Option<&LastApplied>) -> Option<Change> {
    let last = last?;
    let new: Vec<&String> = rivals.iter().filter(|rival| !last.outranked.contains(rival)).collect();
    if new.is_empty() {
        return None;
    }
    let is_nat = |chain: &&Chain| chain.base.is_some_and(|base| base.kind == NfChainType::NAT);
    let mut commands = vec![Command::AddTable];
    for Chain { name, base, rules } in desired.chains.iter().filter(is_nat) {
        commands.push(Command::Flush(ObjectKind::Chain, name.clone()));
        commands.push(Command::Delete(ObjectKind::Chain, name.clone()));
        commands.push(Command::AddChain { name: name.clone(), base: *base });
        commands.extend(rules.iter().map(|rule| Command::AddRule { chain: name.clone(), rule: rule.clone() }));
    }
    // The number in brackets is for us.
    let without_number = |rival: &&String| rival.split(" (").next().unwrap_or_default().to_owned();
    let names: Vec<String> = new.iter().map(without_number).collect();
    Some(Change {
        reasons: vec![format!("{} translated before ours", names.join(", "))],
        is_repair: true,
        declarations: Vec::new(),
        commands,
        outranks: rivals.to_vec(),
    })
}

/// The transaction that makes the table as desired, starting from `observed`. Where the table is known to hold the
/// rules
/// `before`, it has only the difference. `limits`: those that the meters' elements were made with.
pub(super) fn commands(
    desired: &Ruleset,
    observed: Option<&Listing>,
    before: Option<&Ruleset>,
    limits: Option<&MeterLimits>,
) -> Vec<Command> {
    let mut commands = vec![Command::AddTable];
    let changed = changed_chains(desired, before);
    match before {
        Some(before) => commands.extend(flushed_chains(desired, before, &changed)),
        None => commands.push(Command::FlushTable),
    }
    // Maps to chains keep chains from being deleted, so they are emptied first. They are declared after the chains, since
    // nft sends the elements of a new set of ranges together with the set.
    let mut maps = Vec::new();
    for set in desired.sets.iter().filter(|set| set.kind.leads_to_chains()) {
        let before = before.and_then(|before| before.sets.iter().find(|old| old.name == set.name));
        change_elements(set, before, &mut maps);
    }
    let empties_existing = |command: &Command| match command {
        Command::Flush(kind, name) => {
            observed.is_some_and(|observed| observed.of_kind(kind.word()).any(|there| there["name"] == **name))
        }
        Command::DeleteElements { .. } => true,
        _ => false,
    };
    let (emptied, maps): (Vec<Command>, Vec<Command>) = maps.into_iter().partition(empties_existing);
    commands.extend(emptied);
    if let Some(observed) = observed {
        commands.extend(removals(desired, observed));
    }
    commands.extend(desired.counters.iter().copied().map(Command::AddCounter));
    for set in desired.sets.iter().filter(|set| !set.kind.leads_to_chains()) {
        let before = before.and_then(|before| before.sets.iter().find(|old| old.name == set.name));
        change_elements(set, before, &mut commands);
    }
    if observed.is_some() {
        let is_stale = |meter: &&Meter| limits.and_then(|limits| limits.get(meter.name)) != Some(&meter.limit);
        let stale = desired.meters.iter().filter(is_stale);
        commands.extend(stale.map(|meter| Command::Flush(ObjectKind::Set, meter.name.into())));
    }
    if !desired.fastpath.is_empty() && before.is_none_or(|before| before.fastpath != desired.fastpath) {
        commands.push(Command::AddFlowtable(desired.fastpath.clone()));
    }
    let add_chain = |chain: &&Chain| Command::AddChain { name: chain.name.clone(), base: chain.base };
    commands.extend(changed.iter().map(add_chain));
    commands.extend(maps);
    for chain in changed {
        let add_rule = |rule: &_| Command::AddRule { chain: chain.name.clone(), rule: Vec::clone(rule) };
        commands.extend(chain.rules.iter().map(add_rule));
    }
    commands
}

/// The chains that are not in the table as they are desired.
fn changed_chains<'a>(desired: &'a Ruleset, before: Option<&Ruleset>) -> Vec<&'a Chain> {
    let Some(before) = before else { return desired.chains.iter().collect() };
    // A flowtable between other links is another one, and cannot be replaced while a rule refers to it.
    let refers_to_flowtable = |chain: &Chain| before.fastpath != desired.fastpath && chain.base.is_some();
    let is_changed = |chain: &&Chain| refers_to_flowtable(chain) || !before.chains.contains(chain);
    desired.chains.iter().filter(is_changed).collect()
}

/// Empties the chains that are refilled and those that are deleted: chains may refer to each other.
fn flushed_chains(desired: &Ruleset, before: &Ruleset, changed: &[&Chain]) -> Vec<Command> {
    let exists = |chain: &&&Chain| before.chains.iter().any(|other| other.name == chain.name);
    let is_gone = |old: &&Chain| desired.chains.iter().all(|chain| chain.name != old.name);
    let refilled = changed.iter().filter(exists).map(|chain| &chain.name);
    let gone = before.chains.iter().filter(is_gone).map(|chain| &chain.name);
    refilled.chain(gone).map(|name| Command::Flush(ObjectKind::Chain, name.clone())).collect()
}

/// Makes a set hold its desired elements.
fn change_elements(set: &Set, before: Option<&Set>, commands: &mut Vec<Command>) {
    match before.filter(|before| before.kind == set.kind) {
        Some(before) if before.elements == set.elements => {}
        Some(before) if set.elements.len().max(before.elements.len()) > WORTH_COMPARING => {
            let only_in = |list: &[Element], other: &[Element]| -> Arc<[Element]> {
                list.iter().filter(|element| other.binary_search(element).is_err()).cloned().collect()
            };
            let (gone, new) = (only_in(&before.elements, &set.elements), only_in(&set.elements, &before.elements));
            if !gone.is_empty() {
                commands.push(Command::DeleteElements { set: set.name.clone(), elements: gone });
            }
            if !new.is_empty() {
                commands.push(Command::AddElements { set: set.name.clone(), elements: new });
            }
        }
        _ => {
            let kind = set.kind.object();
            if set.kind != SetKind::Map {
                commands.push(Command::AddSet { name: set.name.clone(), kind: set.kind.clone() });
            }
            commands.push(Command::Flush(kind, set.name.clone()));
            commands.extend(add_all_elements(set));
        }
    }
}

/// Adds all elements of a set; `None` if it has none.
fn add_all_elements(set: &Set) -> Option<Command> {
    let (set, elements) = (&set.name, &set.elements);
    (!elements.is_empty()).then(|| Command::AddElements { set: set.clone(), elements: Arc::clone(elements) })
}

/// Deletes what is not wanted, and what is wanted but of another kind than it is (a chain's hook cannot be changed).
/// The rules are flushed before, so only verdicts in maps still refer to chains.
fn removals(desired: &Ruleset, observed: &Listing) -> Vec<Command> {
    let mut removals = Vec::new();
    let mut delete_where = |kind: ObjectKind, is_unwanted: &dyn Fn(&str, &serde_json::Value) -> bool| {
        for there in observed.of_kind(kind.word()) {
            let name = there["name"].as_str().unwrap_or_default();
            if is_unwanted(name, there) {
                removals.push(Command::Delete(kind, name.to_owned().into()));
            }
        }
    };
    // Maps come before chains, since verdicts in them refer to chains.
    let is_wanted_set = |name: &str, there: &serde_json::Value| {
        let wanted = desired.sets.iter().find(|set| set.name == name && set.kind != SetKind::Map);
        wanted.is_some_and(|set| drift::is_same_set(&set_object(TABLE, name, &set.kind), there))
    };
    delete_where(ObjectKind::Map, &|name, there| {
        !is_wanted_set(name, there) && !declarations::declares(ObjectKind::Map, name)
    });
    for kind in ObjectKind::FOREIGN {
        delete_where(kind, &|_, _| true);
    }
    delete_where(ObjectKind::Flowtable, &|_, there| !drift::is_desired_flowtable(desired, there));
    delete_where(ObjectKind::Chain, &|name, there| {
        let wanted = desired.chains.iter().find(|chain| chain.name == name);
        let wanted = wanted.map(|chain| chain_object(TABLE, name, chain.base));
        wanted.is_none_or(|wanted| !drift::has_same(&wanted, there, &["type", "hook", "prio"]))
    });
    delete_where(ObjectKind::Set, &|name, there| {
        !is_wanted_set(name, there) && !declarations::declares(ObjectKind::Set, name)
    });
    let counters: BTreeSet<&str> = desired.counters.iter().copied().collect();
    delete_where(ObjectKind::Counter, &|name, _| !counters.contains(name));
    removals
}

/// Adds the elements of one set to a table that stands, whatever that set holds there.
pub(super) fn additions(desired: &Ruleset, name: &str) -> Vec<Command> {
    desired.sets.iter().filter(|set| set.name == *name).filter_map(add_all_elements).collect()
}
