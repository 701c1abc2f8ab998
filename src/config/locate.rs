//! Finds where in the file the key of a diagnostic is. Pure.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place};
use super::raw::KNOWN_KEYS;

/// A step of a key: a name, or the index of a list.
enum Step<'a> {
    Name(Cow<'a, str>),
    Index(usize),
}

/// Adds to each diagnostic the place of its key in `text`, and the names of the blocks in it: `nat.forward "web".to`
/// for `nat.forward[3].to`. `of_file` is the beginning of the keys of this file, without which they are looked up;
/// diagnostics with other keys stay as they are, and so do those that have a place already.
pub(super) fn locate(diagnostics: &mut [Diagnostic], text: &str, of_file: Option<&str>) {
    let Ok(table) = DeTable::parse(text) else { return };
    let root = DeValue::Table(table.into_inner());
    for diagnostic in diagnostics.iter_mut().filter(|diagnostic| diagnostic.place.is_none()) {
        let key = match of_file {
            None => Some(diagnostic.key.as_str()),
            Some(file) => diagnostic.key.strip_prefix(file).and_then(|rest| rest.strip_prefix(": ")),
        };
        let Some(key) = key else { continue };
        let section = if of_file.is_some() { "wireguard.peer." } else { "" };
        let found = find(&root, section, key);
        // A key that is missing in a peer's file belongs to the file as a whole.
        let Some(span) = found.span.or(of_file.map(|_| 0..0)) else { continue };
        let place = Place::new(text, span, of_file);
        diagnostic.key = found.name;
        diagnostic.place = Some(place);
    }
}

/// Where a key is, as far as it exists, and how it is called with the names of blocks.
struct Found {
    span: Option<Range<usize>>,
    name: String,
}

/// `section` is what stands before the keys of this file in [`KNOWN_KEYS`].
fn find(root: &DeValue<'_>, section: &str, key: &str) -> Found {
    let (mut span, mut name, mut here) = (None, String::new(), Some(root));
    for step in steps(key) {
        match step {
            Step::Name(step) => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(&step);
                let entry = here.and_then(DeValue::as_table).and_then(|table| table.get_key_value(step.as_ref()));
                here = entry.map(|(_, value)| value.get_ref());
                if let Some((key, value)) = entry {
                    // An unknown key has no value that could be right.
                    let is_known = KNOWN_KEYS.contains(&format!("{section}{}", without_indexes(&name)).as_str());
                    span = Some(if is_known { value.span() } else { key.span() });
                }
            }
            Step::Index(index) => {
                let element = here.and_then(DeValue::as_array).and_then(|list| list.get(index));
                here = element.map(toml::Spanned::get_ref);
                let label = here.and_then(DeValue::as_table).and_then(|block| block.get("name"));
                let label = label.and_then(|label| label.get_ref().as_str());
                name += &label.map_or_else(|| format!("[{index}]"), |label| format!(" {label:?}"));
                span = element.map(toml::Spanned::span).or(span);
            }
        }
    }
    Found { span, name }
}

/// The steps of `nat.forward[3].to` or `firewall."odd key"`.
fn steps(key: &str) -> Vec<Step<'_>> {
    let (mut steps, mut rest) = (Vec::new(), key);
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.char_indices().scan(false, |escaped, (at, c)| {
                let is_end = c == '"' && !*escaped;
                *escaped = c == '\\' && !*escaped;
                Some((at, is_end))
            });
            let end = end.into_iter().find(|&(_, is_end)| is_end).map_or(quoted.len(), |(at, _)| at);
            steps.push(Step::Name(Cow::Borrowed(&quoted[..end])));
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else if let Some(index) = rest.strip_prefix('[') {
            let (number, after) = index.split_once(']').unwrap_or((index, ""));
            let Ok(number) = number.parse() else { break };
            steps.push(Step::Index(number));
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            steps.push(Step::Name(Cow::Borrowed(&rest[..end])));
            rest = &rest[end..];
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    steps
}

/// `nat.static.open` for `nat.static "web".open[1]`.
fn without_indexes(name: &str) -> String {
    let (mut plain, mut depth, mut quoted) = (String::with_capacity(name.len()), 0_u32, false);
    for c in name.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' if !quoted => depth += 1,
            ']' if !quoted => depth = depth.saturating_sub(1),
            ' ' => {}
            _ if quoted || depth > 0 => {}
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(text: &str, key: &str) -> (String, usize, usize) {
        let mut diagnostics = [Diagnostic::new(key, "is wrong")];
        locate(&mut diagnostics, text, None);
        let place = diagnostics[0].place.as_ref().expect("the key exists");
        (diagnostics[0].key.clone(), place.line, place.column)
    }

    #[test]
    fn a_value_and_an_unknown_key_are_found() {
        let text =
            "[log]\nlevel = \"loud\"\n[firewall]\nssh_form = []\n\"odd key\" = 1\nssh_from = [\"1.2.3.4\",\n 5]\n";
        assert_eq!(located(text, "log.level"), ("log.level".to_owned(), 2, 9));
        assert_eq!(located(text, "firewall.ssh_form"), ("firewall.ssh_form".to_owned(), 4, 1));
        assert_eq!(located(text, "firewall.\"odd key\""), ("firewall.odd key".to_owned(), 5, 1));
        assert_eq!(located(text, "firewall.ssh_from[1]"), ("firewall.ssh_from[1]".to_owned(), 7, 2));
    }

    #[test]
    fn a_block_has_its_name_and_a_missing_key_the_place_of_its_block() {
        let text = "[[nat.forward]]\nto = \"x\"\n[[nat.forward]]\nname = \"web\"\nport = 443\n";
        assert_eq!(located(text, "nat.forward[0].to"), ("nat.forward[0].to".to_owned(), 2, 6));
        assert_eq!(located(text, "nat.forward[1].to"), ("nat.forward \"web\".to".to_owned(), 3, 1));
        assert_eq!(located(text, "nat.forward[1].port"), ("nat.forward \"web\".port".to_owned(), 5, 8));
    }
}
