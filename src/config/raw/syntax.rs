//! What a syntax error of TOML most likely means in this file.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

/// Quotation marks that word processors and web pages put in place of `"`.
const CURLY_QUOTES: [char; 8] = ['“', '”', '„', '‟', '‘', '’', '«', '»'];
/// What ends a word.
const BETWEEN_WORDS: [char; 10] = [' ', '\t', ',', '[', ']', '{', '}', '=', '#', '"'];
/// The longest word that is quoted, in bytes: an IPv6 range is shorter.
const MAX_WORD: usize = 64;

/// What to write instead, for the likeliest mistakes; `None` if the parser's own message has to do. `span` is where the
/// parser stopped, `message` what it says.
pub(super) fn advice(text: &str, span: &Range<usize>, message: &str) -> Option<String> {
    if message.contains("duplicate key") {
        return duplicate(text, span);
    }
    let word = word_at(text, span.start)?;
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

/// The word around a position, if it is short.
fn word_at(text: &str, at: usize) -> Option<&str> {
    let is_edge = |c: char| c.is_whitespace() || BETWEEN_WORDS.contains(&c);
    let (before, after) = (text.get(..at)?, text.get(at..)?);
    let start = before.rfind(is_edge).map_or(0, |edge| edge + before[edge..].chars().next().map_or(1, char::len_utf8));
    let end = after.find(is_edge).map_or(text.len(), |edge| at + edge);
    let word = &text[start..end];
    (!word.is_empty() && word.len() <= MAX_WORD).then_some(word)
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
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }

    #[test]
    fn other_mistakes_keep_the_words_of_the_parser() {
        assert_eq!(reason("[nat"), "unclosed table, expected `]`");
        assert_eq!(reason("a ="), "string values must be quoted, expected literal string");
        assert!(reason(&format!("a = {}", "x".repeat(100))).starts_with("string values must be quoted"));
    }
}
