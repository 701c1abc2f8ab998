//! Collects what is wrong, and reads single values so that each wrong one is reported under its key.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, hash_map};
use std::fmt::Display;

use super::natural_order::natural_order;
use super::suggestion::{quoted, similar_key};
use crate::config::diagnostic::Diagnostic;
use crate::config::protocol::IpProtocol;
use crate::config::raw::Entry;

/// The errors and warnings so far.
#[derive(Default)]
pub(super) struct Diagnostics {
    pub(super) errors: Vec<Diagnostic>,
    /// What is allowed but probably a mistake.
    pub(super) warnings: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn error(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.errors.push(Diagnostic::new(key, reason));
    }

    /// A syntax error in one of the other files.
    pub(super) fn syntax_error(&mut self, file: &str, mut error: Diagnostic) {
        error.key = format!("{file}: {}", error.key);
        if let Some(place) = &mut error.place {
            place.file = Some(file.to_owned());
        }
        self.errors.push(error);
    }

    pub(super) fn warn(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.warnings.push(Diagnostic::new(key, reason));
    }

    /// The warnings if there are no errors, else the errors; both sorted by key, and by line in one file.
    pub(super) fn into_warnings(mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        let sort = |diagnostics: &mut Vec<Diagnostic>| {
            diagnostics
                .sort_by(|one, other| one.key.cmp(&other.key).then_with(|| natural_order(&one.reason, &other.reason)));
        };
        if self.errors.is_empty() {
            sort(&mut self.warnings);
            return Ok(self.warnings);
        }
        sort(&mut self.errors);
        Err(self.errors)
    }

    /// The value if there is one of the right shape. A wrong shape is an error.
    pub(super) fn value<T>(&mut self, key: &str, entry: Entry<T>) -> Option<T> {
        match entry {
            Entry::Absent => None,
            Entry::Good(value) => Some(value),
            Entry::Bad(reason) => {
                self.error(key, reason);
                None
            }
        }
    }

    pub(super) fn section_or_default<T: Default>(&mut self, key: &str, entry: Entry<T>) -> T {
        self.value(key, entry).unwrap_or_default()
    }

    /// The text, or `None` if it is absent or `auto`.
    pub(super) fn unless_auto(&mut self, key: &str, entry: Entry<String>) -> Option<String> {
        self.value(key, entry).filter(|text| text != "auto")
    }

    /// The list's elements of the right shape, each with its own key: `firewall.ssh_from[1]`.
    pub(super) fn elements<T>(&mut self, key: &str, list: Vec<Entry<T>>) -> Vec<(String, T)> {
        let mut elements = Vec::with_capacity(list.len());
        for (index, entry) in list.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            if let Some(element) = self.value(&key, entry) {
                elements.push((key, element));
            }
        }
        elements
    }

    /// The value of a block's key. Formats the key's full name only for an error, because there may be ten thousand
    /// blocks.
    pub(super) fn field<T>(&mut self, block: &str, name: &str, entry: Entry<T>) -> Option<T> {
        match entry {
            Entry::Absent => None,
            Entry::Good(value) => Some(value),
            Entry::Bad(reason) => {
                self.error(format!("{block}.{name}"), reason);
                None
            }
        }
    }

    /// The value of a block's key, parsed by `parse`, whose error is reported.
    pub(super) fn parse_field<T: Borrow<B>, B: ?Sized, U>(
        &mut self,
        block: &str,
        name: &str,
        entry: Entry<T>,
        parse: impl FnOnce(&B) -> Result<U, String>,
    ) -> Option<U> {
        let value = self.field(block, name, entry)?;
        parse(value.borrow()).map_err(|reason| self.error(format!("{block}.{name}"), reason)).ok()
    }

    /// The elements of a block's list, parsed by `parse`, each with its index; `None` if there is no list. An element
    /// that is listed twice is an error. An empty list is an error with the text `empty`, unless that is `None`.
    pub(super) fn parse_list<T: Borrow<B>, B: ?Sized, U: Copy + Ord + Display>(
        &mut self,
        block: &str,
        name: &str,
        entry: Entry<Vec<Entry<T>>>,
        empty: Option<&str>,
        parse: impl Fn(&B) -> Result<U, String>,
    ) -> Option<Vec<(usize, U)>> {
        let list = self.field(block, name, entry)?;
        if let Some(empty) = empty.filter(|_| list.is_empty()) {
            self.error(format!("{block}.{name}"), empty);
        }
        let (mut elements, mut seen) = (Vec::with_capacity(list.len()), BTreeSet::new());
        for (index, entry) in list.into_iter().enumerate() {
            let key = || format!("{block}.{name}[{index}]");
            let element = match entry {
                Entry::Absent => continue,
                Entry::Good(value) => parse(value.borrow()),
                Entry::Bad(reason) => Err(reason),
            };
            match element {
                Ok(element) if seen.insert(element) => elements.push((index, element)),
                Ok(element) => self.error(key(), format!("{element} is listed twice; remove one of them")),
                Err(reason) => self.error(key(), reason),
            }
        }
        Some(elements)
    }

    /// Reports a required key that is missing. `meaning` says what the key is for.
    pub(super) fn require<T>(&mut self, block: &str, name: &str, entry: &Entry<T>, meaning: &str) {
        if matches!(entry, Entry::Absent) {
            self.error(format!("{block}.{name}"), format!("is missing: {meaning}"));
        }
    }

    /// Reports a key with ports beside a protocol that has none.
    pub(super) fn refuse_ports<T>(&mut self, block: &str, name: &str, entry: &Entry<T>, protocol: IpProtocol) {
        if !matches!(entry, Entry::Absent) {
            self.error(format!("{block}.{name}"), protocol.refused_ports(name));
        }
    }

    /// Reports names that several blocks have in common.
    pub(super) fn check_names_are_unique<'a>(
        &mut self,
        blocks: impl IntoIterator<Item = (&'a str, &'a Option<String>)>,
    ) {
        let mut names = HashMap::new();
        for (block, name) in blocks {
            let Some(name) = name else { continue };
            match names.entry(name) {
                hash_map::Entry::Vacant(free) => _ = free.insert(block),
                hash_map::Entry::Occupied(earlier) => {
                    let reason = format!("is also the name of {}; choose another name", earlier.get());
                    self.error(format!("{block}.name"), reason);
                }
            }
        }
    }

    /// Reports keys that the section does not have, each with the known key that is most similar.
    pub(super) fn reject_unknown_keys(&mut self, section: &str, unknown: &[String]) {
        if unknown.is_empty() {
            return;
        }
        let dot = if section.is_empty() { "" } else { "." };
        self.reject_unknown_keys_with_prefix(&format!("{section}{dot}"), section, unknown);
    }

    /// The same for keys whose full name does not begin with their section.
    pub(super) fn reject_unknown_keys_with_prefix(&mut self, prefix: &str, section: &str, unknown: &[String]) {
        for name in unknown {
            let reason = match similar_key(section, name) {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => "unknown key; config.example.toml lists all keys".to_owned(),
            };
            self.error(format!("{prefix}{}", quoted(name)), reason);
        }
    }
}
