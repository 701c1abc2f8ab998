//! The account of what is wrong, and what is said of keys that are unknown.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, hash_map};
use std::fmt::Display;

use super::Problem;
use super::raw::{Entry, KNOWN_KEYS};

/// Below this a suggestion would be a guess ("dns" is nobody's slip for "log").
const RESEMBLANCE: f64 = 0.85;

/// The problems found so far.
#[derive(Default)]
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Problem>,
}

impl Findings {
    pub(super) fn report(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.problems.push(Problem::new(key, reason));
    }

    pub(super) fn warn(&mut self, key: impl Into<String>, reason: impl Into<String>) {
        self.warnings.push(Problem::new(key, reason));
    }

    /// The value if there is one of the right shape; a wrong shape is reported.
    pub(super) fn value<T>(&mut self, key: &str, entry: Entry<T>) -> Option<T> {
        match entry {
            Entry::Absent => None,
            Entry::Good(value) => Some(value),
            Entry::Bad(reason) => {
                self.report(key, reason);
                None
            }
        }
    }

    pub(super) fn section<T: Default>(&mut self, key: &str, entry: Entry<T>) -> T {
        self.value(key, entry).unwrap_or_default()
    }

    /// The text if there is one, or `None` for `auto`.
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

    /// The value of a block's key. The key's full name is made up only for a report: blocks come by the ten thousand.
    pub(super) fn field<T>(&mut self, block: &str, name: &str, entry: Entry<T>) -> Option<T> {
        match entry {
            Entry::Absent => None,
            Entry::Good(value) => Some(value),
            Entry::Bad(reason) => {
                self.report(format!("{block}.{name}"), reason);
                None
            }
        }
    }

    /// The same, as `read` understands it or tells why it does not.
    pub(super) fn read<T: Borrow<B>, B: ?Sized, U>(
        &mut self,
        block: &str,
        name: &str,
        entry: Entry<T>,
        read: impl FnOnce(&B) -> Result<U, String>,
    ) -> Option<U> {
        let value = self.field(block, name, entry)?;
        read(value.borrow()).map_err(|reason| self.report(format!("{block}.{name}"), reason)).ok()
    }

    /// The elements of a block's list as `read` understands them, each with its index; `None` where there is no list. What is
    /// listed twice is reported, and so is an empty list, with the reason `empty`.
    pub(super) fn list<T: Borrow<B>, B: ?Sized, U: Copy + Ord + Display>(
        &mut self,
        block: &str,
        name: &str,
        entry: Entry<Vec<Entry<T>>>,
        empty: Option<&str>,
        read: impl Fn(&B) -> Result<U, String>,
    ) -> Option<Vec<(usize, U)>> {
        let list = self.field(block, name, entry)?;
        if let Some(empty) = empty.filter(|_| list.is_empty()) {
            self.report(format!("{block}.{name}"), empty);
        }
        let (mut elements, mut seen) = (Vec::with_capacity(list.len()), BTreeSet::new());
        for (index, entry) in list.into_iter().enumerate() {
            let key = || format!("{block}.{name}[{index}]");
            let element = match entry {
                Entry::Absent => continue,
                Entry::Good(value) => read(value.borrow()),
                Entry::Bad(reason) => Err(reason),
            };
            match element {
                Ok(element) if seen.insert(element) => elements.push((index, element)),
                Ok(element) => self.report(key(), format!("{element} is listed twice")),
                Err(reason) => self.report(key(), reason),
            }
        }
        Some(elements)
    }

    /// Reports a key that has to be there and is not.
    pub(super) fn needed<T>(&mut self, block: &str, name: &str, entry: &Entry<T>, reason: &str) {
        if matches!(entry, Entry::Absent) {
            self.report(format!("{block}.{name}"), format!("is needed: {reason}"));
        }
    }

    /// Reports names that several blocks have.
    pub(super) fn names_differ<'a>(&mut self, blocks: impl IntoIterator<Item = (&'a str, &'a Option<String>)>) {
        let mut names = HashMap::new();
        for (block, name) in blocks {
            let Some(name) = name else { continue };
            match names.entry(name) {
                hash_map::Entry::Vacant(free) => _ = free.insert(block),
                hash_map::Entry::Occupied(earlier) => {
                    self.report(format!("{block}.name"), format!("is also the name of {}", earlier.get()));
                }
            }
        }
    }

    /// Keys that the section does not have, each with the known one that looks most like it.
    pub(super) fn unknown(&mut self, section: &str, unknown: &[String]) {
        if unknown.is_empty() {
            return;
        }
        let dot = if section.is_empty() { "" } else { "." };
        self.unknown_below(&format!("{section}{dot}"), section, unknown);
    }

    /// The same for keys that are told with another beginning than their section's.
    pub(super) fn unknown_below(&mut self, prefix: &str, section: &str, unknown: &[String]) {
        for name in unknown {
            let reason = match similar(section, name) {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => "unknown key".to_owned(),
            };
            self.report(format!("{prefix}{}", quoted(name)), reason);
        }
    }
}

/// The name as it would stand in the file, on one line whatever it holds.
fn quoted(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { name.to_owned() } else { format!("{name:?}") }
}

/// The known key, or section, that an unknown one was probably meant to be.
///
/// Only last parts are compared, since whole keys of one section look alike by their beginning. One of the same section wins;
/// then the one that looks most alike, and among equals the nearest section's. Keys of other sections' blocks, which are called
/// `name` and `port`, are nobody's slip.
fn similar(section: &str, name: &str) -> Option<&'static str> {
    const OWN: u8 = 2;
    let section = without_indexes(section);
    let name = name.to_lowercase();
    let sections = KNOWN_KEYS.iter().filter_map(|known| known.rsplit_once('.')).map(|(section, _)| section);
    let scored = KNOWN_KEYS.iter().copied().chain(sections).map(|known| {
        let (known_section, known_name) = known.rsplit_once('.').unwrap_or(("", known));
        // Its own section's, or that of a block in it.
        let nearness = if known_section == section { OWN } else { u8::from(known_section.starts_with(&section)) };
        (strsim::jaro_winkler(&name, known_name), nearness, known)
    });
    let is_strange = |known: &str| known.matches('.').count() > 1;
    let near = scored
        .filter(|&(resemblance, nearness, known)| resemblance > RESEMBLANCE && (nearness > 0 || !is_strange(known)));
    let best = near.max_by(|a, b| (a.1 == OWN).cmp(&(b.1 == OWN)).then(a.0.total_cmp(&b.0)).then(a.1.cmp(&b.1)));
    best.map(|(.., known)| known)
}

/// The section of a block in it: `nat.static.open` of `nat.static[0].open[1]`.
fn without_indexes(block: &str) -> String {
    block.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_led_to_the_key_that_was_meant() {
        for (section, slip, meant) in [
            ("", "firewal", Some("firewall")),
            ("", "HCloud", Some("hcloud")),
            ("", "private", Some("site.private")),
            ("", "ssh_from", Some("firewall.ssh_from")),
            ("", "dns", None),
            ("", "", None),
            ("hcloud", "take_ovr", Some("hcloud.take_over")),
            ("hcloud", "ssh_from", Some("firewall.ssh_from")),
            ("hcloud", "x", None),
            ("firewall", "ssh_port", Some("firewall.ssh_ports")),
            ("firewall", "rules", None),
            ("site", "public_iface", Some("site.public_interface")),
            ("site", "interface", Some("site.private.interface")),
            ("site", "privat", Some("site.private")),
            ("site.private[3]", "netwrk", Some("site.private.network")),
            ("site.private[3]", "gateway", None),
            ("log", "private", Some("site.private")),
            ("nat", "private", Some("nat.static.private")),
            ("wireguard", "port", None),
            ("wireguard", "listen_prt", Some("wireguard.listen_port")),
            ("wireguard", "peers", Some("wireguard.peer")),
            ("wireguard", "allowed_ips", Some("wireguard.peer.allowed_ips")),
            ("wireguard.peer[3]", "allowedips", Some("wireguard.peer.allowed_ips")),
            ("wireguard.peer[3]", "interface", Some("wireguard.interface")),
            ("nat", "forwards", Some("nat.forward")),
            ("nat.forward[3]", "form", Some("nat.forward.from")),
            ("nat.static[3]", "opn", Some("nat.static.open")),
            ("nat.static[3].open[1]", "port", Some("nat.static.open.ports")),
            ("firewall.service[0]", "port", Some("firewall.service.ports")),
            ("egress.deny[1]", "port", Some("egress.deny.ports")),
            ("", "networks", Some("network")),
        ] {
            assert_eq!(similar(section, slip), meant, "{slip} in [{section}]");
        }
    }

    #[test]
    fn a_key_that_needs_quotes_is_shown_in_quotes() {
        assert_eq!(quoted("take-over_2"), "take-over_2");
        assert_eq!(quoted("log.level"), "\"log.level\"");
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
