//! What differs between two configurations, in the words in which an operator wrote them. Pure.
//!
//! A configuration is listed as items: one for each block, for each entry of a list without an order, and for each
//! other key. Items with the same identity are compared. Every field of [`Config`] is taken apart by name, so that a
//! new key cannot be left out.

mod item;
mod items;
mod policy;
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::model::Config;
use item::{Item, place_of};
use items::items;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// What happens to it.
    pub(crate) kind: ChangeKind,
    /// The item as it is going to be, or as it was if it goes: `forward tcp 443 -> 10.0.0.4 "web"`.
    pub(crate) what: String,
    /// As it was, if it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) was: Option<String>,
}

/// What happens to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeKind {
    /// It goes.
    Removed,
    /// It stays with another value.
    Changed,
    /// It is new.
    Added,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            ChangeKind::Removed => '-',
            ChangeKind::Changed => '~',
            ChangeKind::Added => '+',
        };
        write!(f, "{sign} {}", self.what)?;
        self.was.as_ref().map_or(Ok(()), |was| write!(f, " (was: {was})"))
    }
}

/// What turns `before` into `after`, in the order of the file's sections; of each kind of item, first what goes.
pub(crate) fn difference(before: &Config, after: &Config) -> Vec<Change> {
    let (before, after) = (by_identity(items(before)), by_identity(items(after)));
    let identities: BTreeSet<&Identity> = before.keys().chain(after.keys()).collect();
    let mut changes: Vec<(usize, Change)> = Vec::new();
    for identity in identities {
        let change = match (before.get(identity), after.get(identity)) {
            (Some(old), Some(new)) => changed(old, new),
            (Some(old), None) => Some(Change { kind: ChangeKind::Removed, what: old.to_string(), was: None }),
            (None, Some(new)) => Some(Change { kind: ChangeKind::Added, what: new.to_string(), was: None }),
            (None, None) => None,
        };
        changes.extend(change.map(|change| (identity.section, change)));
    }
    changes.sort_by(|(a_section, a), (b_section, b)| (a_section, a.kind).cmp(&(b_section, b.kind)));
    changes.into_iter().map(|(_, change)| change).collect()
}

/// How the same item changes; `None` if it does not.
fn changed(old: &Item<'_>, new: &Item<'_>) -> Option<Change> {
    let change = |what: String, was| Some(Change { kind: ChangeKind::Changed, what, was });
    if old.text != new.text {
        return change(new.to_string(), Some(old.text.clone()));
    }
    // The key that the daemon makes at its first start is read at the next one: nothing changes by that.
    let word = match (&old.secret, &new.secret) {
        (Some(old), Some(new)) if old != new => "another secret",
        (Some(_), None) => "the secret is not there",
        _ => return None,
    };
    change(format!("{new} ({word})"), None)
}

/// What makes an item the same in two configurations.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    /// The place of its kind in the file.
    section: usize,
    name: String,
    /// For the same entry written more than once.
    copy: usize,
}

fn by_identity(items: Vec<Item<'_>>) -> BTreeMap<Identity, Item<'_>> {
    let mut listed = BTreeMap::new();
    for item in items {
        let section = place_of(item.kind);
        let name = if item.identity.is_empty() { item.kind.to_owned() } else { item.identity.clone() };
        let mut identity = Identity { section, name, copy: 0 };
        while listed.contains_key(&identity) {
            identity.copy += 1;
        }
        listed.insert(identity, item);
    }
    listed
}

#[cfg(test)]
mod tests;
