//! What a syntax error of TOML most likely means in this file.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use super::KNOWN_KEYS;

/// Quotation marks that word processors and web pages put in place of `"`.
const CURLY_QUOTES: [char; 8] = ['“', '”', '„', '‟', '‘', '’', '«', '»'];
/// What ends a word.
const BETWEEN_WORDS: [char; 10] = [' ', '\t', ',', '[', ']', '{', '}', '=', '#', '"'];
/// The longest word that is quoted, in bytes: an IPv6 range is shorter.
const MAX_WORD: usize = 64;

/// Sections that a file may have several times, with two brackets around their header.
const REPEATED: [&str; 13] = [
    "site.private",
    "nat.forward",
    "nat.static",
    "nat.static.open",
    "egress.allow",
    "egress.deny",
    "network",
    "network.allow",
    "network.deny",
    "tenants.allow",
    "firewall.service",
    "wireguard.group",
    "wireguard.peer",
];

/// What to write instead, and the bytes of the text that it is about, which may begin before the place where the parser
/// stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub(super) reason: String,
    pub(super) span: Range<usize>,
}

/// The advice for the likeliest mistakes; `None` if the parser's own message has to do. `span` is where the parser
/// stopped, `message` what it says.
pub(super) fn advice(text: &str, span: &Range<usize>, message: &str) -> Option<Advice> {
    if message.contains("duplicate key") {
        return Some(Advice { reason: duplicate(text, span)?, span: span.clone() });
    }
    if message.contains("key with no value") {
        return key_of_several_words(text, span.start);
    }
    let span = word_at(text, span.start)?;
    let reason = about_word(text.get(span.clone())?, message)?;
    Some(Advice { reason, span })
}

fn about_word(word: &str, message: &str) -> Option<String> {
    if word.contains(CURLY_QUOTES) {
        return Some("curly quotes do not enclose a text; write straight ones: \"".to_owned());
    }
    if word.parse::<IpAddr>().is_ok() || word.parse::<IpNet>().is_ok() || looks_like_address(word) {
        return Some(format!("{word} is an address; put addresses in quotes: \"{word}\""));
    }
    if is_range(word) {
        return Some(format!("{word} is a range; put ranges in quotes: \"{word}\""));
    }
    if matches!(word.to_lowercase().as_str(), "true" | "false" | "yes" | "no" | "on" | "off") {
        return Some(format!("{word} is no switch of TOML; write true or false, in lower case and without quotes"));
    }
    let is_text = word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(is_plain);
    let expects_value = message.contains("must be quoted") || message.contains("boolean") || message.contains("float");
    (expects_value && is_text).then(|| format!("{word} is a text; put texts in quotes: \"{word}\""))
}

/// `public key = …`, or a section's header without brackets before the key: `wireguard.peer name = …`.
fn key_of_several_words(text: &str, at: usize) -> Option<Advice> {
    let start = text.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..)?.lines().next()?;
    let (key, _) = line.split_once('=')?;
    let words: Vec<&str> = key.split_whitespace().collect();
    let [first, .., last] = words[..] else { return None };
    if !words.iter().all(|word| word.chars().all(is_plain)) {
        return None;
    }
    let start = start + (key.len() - key.trim_start().len());
    let span = start..start + key.trim().len();
    let joined = words.join("_");
    let last_part = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let reason = if KNOWN_KEYS.iter().any(|known| last_part(known) == last_part(&joined)) {
        format!("a key has no spaces; did you mean `{joined}`?")
    } else if KNOWN_KEYS.iter().any(|known| known.strip_prefix(first).is_some_and(|rest| rest.starts_with('.'))) {
        let header = if REPEATED.contains(&first) { format!("[[{first}]]") } else { format!("[{first}]") };
        format!("a key has no spaces; a section has a line of its own, {header}, and its keys follow: {last} = …")
    } else {
        format!("a key has no spaces: `{}`", key.trim())
    };
    Some(Advice { reason, span })
}

/// The word around a position, if it is short.
fn word_at(text: &str, at: usize) -> Option<Range<usize>> {
    let is_edge = |c: char| c.is_whitespace() || BETWEEN_WORDS.contains(&c);
    let (before, after) = (text.get(..at)?, text.get(at..)?);
    let start = before.rfind(is_edge).map_or(0, |edge| edge + before[edge..].chars().next().map_or(1, char::len_utf8));
    let end = after.find(is_edge).map_or(text.len(), |edge| at + edge);
    (start < end && end - start <= MAX_WORD).then_some(start..end)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-' | '_' | '@')
}

/// Digits and dots like an IPv4 address, perhaps a wrong one, with or without a prefix length.
fn looks_like_address(word: &str) -> bool {
    let address = word.split('/').next().unwrap_or_default();
    address.matches('.').count() == 3 && address.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// `30000-30100`
fn is_range(word: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    word.split_once('-').is_some_and(|(first, last)| number(first) && number(last))
}

/// A table or a key that is there twice, with the line of the first one where that is a table.
fn duplicate(text: &str, span: &Range<usize>) -> Option<String> {
    let start = text.get(..span.start)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..)?.lines().next()?.trim();
    let name = text.get(span.clone())?;
    if !line.starts_with('[') {
        return Some(format!("{name} is set twice in this block; remove one of the two"));
    }
    let header = line.split(']').next().unwrap_or(line).trim_start_matches('[').trim();
    let is_same = |other: &str| {
        let other = other.trim();
        other.starts_with('[') && other.split(']').next().unwrap_or(other).trim_start_matches('[').trim() == header
    };
    let earlier = text[..start].lines().position(is_same).map(|index| index + 1);
    let place = earlier.map_or_else(|| "above".to_owned(), |line| format!("in line {line}"));
    Some(format!("the table [{header}] is there already, {place}; write its keys there, under one header"))
}

#[cfg(test)]
mod tests {
    use super::super::{RawConfig, parse};

    fn reason(text: &str) -> String {
        parse::<RawConfig>(text).unwrap_err().reason
    }

    #[test]
    fn the_likeliest_mistakes_have_words_of_their_own() {
        for (text, expected) in [
            ("ssh_from = [203.0.113.7]", "203.0.113.7 is an address; put addresses in quotes: \"203.0.113.7\""),
            ("a = [\"10.0.0.4\", 10.0.0.0/8]", "10.0.0.0/8 is an address; put addresses in quotes: \"10.0.0.0/8\""),
            ("a = [fd00::/8]", "fd00::/8 is an address; put addresses in quotes: \"fd00::/8\""),
            ("port = 30000-30100", "30000-30100 is a range; put ranges in quotes: \"30000-30100\""),
            ("ports = [22, 2200-2300]", "2200-2300 is a range; put ranges in quotes: \"2200-2300\""),
            ("level = “debug”", "curly quotes do not enclose a text; write straight ones: \""),
            ("level = ‘debug’", "curly quotes do not enclose a text; write straight ones: \""),
            ("protocol = tcp", "tcp is a text; put texts in quotes: \"tcp\""),
            ("ssh_ban = 10m", "10m is a text; put texts in quotes: \"10m\""),
            ("enabled = True", "True is no switch of TOML; write true or false, in lower case and without quotes"),
            (
                "[firewall]\n[nat]\n\n[firewall]",
                "the table [firewall] is there already, in line 1; write its keys there, under one header",
            ),
            ("a = 1\na = 2", "a is set twice in this block; remove one of the two"),
            ("[[wireguard.peer]]\npublic key = \"x\"", "a key has no spaces; did you mean `public_key`?"),
            ("wireguard.listen port = 1", "a key has no spaces; did you mean `wireguard.listen_port`?"),
            (
                "wireguard.peer key =",
                "a key has no spaces; a section has a line of its own, [[wireguard.peer]], and its keys follow: key = …",
            ),
            (
                "log level = \"info\"",
                "a key has no spaces; a section has a line of its own, [log], and its keys follow: level = …",
            ),
            ("my own key = 1", "a key has no spaces: `my own key`"),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }

    #[test]
    fn the_whole_word_is_marked() {
        let marked = |text: &str| {
            let place = parse::<RawConfig>(text).unwrap_err().place.unwrap();
            let (line, column) = (place.line, place.column);
            (line, column, place.marked().to_owned())
        };
        assert_eq!(marked("a = 1\nto = 10.0.0.4 # web"), (2, 6, "10.0.0.4".to_owned()));
        assert_eq!(marked("a = [\"10.0.0.4\", 10.0.0.0/8]"), (1, 18, "10.0.0.0/8".to_owned()));
        assert_eq!(marked("ports = [22, 2200-2300]"), (1, 14, "2200-2300".to_owned()));
        assert_eq!(marked("  public key = \"x\""), (1, 3, "public key".to_owned()));
        // Where the parser's own message has to do, the place is the parser's.
        assert_eq!(marked("[nat"), (1, 5, String::new()));
    }

    #[test]
    fn other_mistakes_keep_the_words_of_the_parser() {
        assert_eq!(reason("[nat"), "unclosed table, expected `]`");
        assert_eq!(reason("a ="), "string values must be quoted, expected literal string");
        assert!(reason(&format!("a = {}", "x".repeat(100))).starts_with("string values must be quoted"));
    }
}
