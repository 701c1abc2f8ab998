//! Foreign text, made fit for a terminal and a log.
//!
//! Error messages of an API, names of networks and answers on a socket are other people's. Printed as they are, they
//! could move the cursor, forge lines, or be shown in another order than they are stored in.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::{Deserialize as _, Deserializer};
use serde_json::Value;

/// The text with every character escaped that is not printed as itself: control characters, separators other than the
/// space, characters that change the direction of writing, and those that have no shape at all. What is only an accent
/// without a letter is escaped too. `\u{202e}` is what such a character becomes.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_printable(character) {
            escaped.push(character);
        } else {
            write!(escaped, "{}", character.escape_debug()).expect("writing to a string does not fail");
        }
    }
    Cow::Owned(escaped)
}

/// The standard library's list of printable characters decides (`char::escape_debug`); it escapes quotes and the
/// backslash too, which are harmless.
fn is_printable(character: char) -> bool {
    matches!(character, ' '..='~') || character.escape_debug().eq([character])
}

/// Deserializes a string as [`printable`] text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(printable(&String::deserialize(deserializer)?).into_owned())
}

/// The same for a string that may be missing.
pub(crate) fn deserialize_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(|text| printable(&text).into_owned()))
}

/// Makes every string in a JSON value printable, line by line: an answer may hold texts of several lines.
pub(crate) fn make_printable(value: &mut Value) {
    match value {
        Value::String(text) => {
            let lines: Vec<Cow<'_, str>> = text.split('\n').map(printable).collect();
            if lines.iter().any(|line| matches!(line, Cow::Owned(_))) {
                *text = lines.join("\n");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_printable),
        Value::Object(members) => members.values_mut().for_each(make_printable),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped_and_the_rest_stays() {
        let kept = ["", "plain", "Größe 10 µs, \"quoted\" \\ 'x'", "東京", "a -> b"];
        assert_eq!(kept.map(|text| printable(text).into_owned()), kept.map(str::to_owned));
        for (text, expected) in [
            ("\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
            ("one\ntwo\r", "one\\ntwo\\r"),
            ("evil\u{202e}txt", "evil\\u{202e}txt"),
            ("\u{2066}\u{2069}\u{200f}\u{61c}", "\\u{2066}\\u{2069}\\u{200f}\\u{61c}"),
            ("a\u{2028}b\u{2029}c\u{a0}d", "a\\u{2028}b\\u{2029}c\\u{a0}d"),
            ("\u{9b}31m\u{7f}\u{feff}\u{200b}", "\\u{9b}31m\\u{7f}\\u{feff}\\u{200b}"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn every_string_of_an_answer_is_made_printable_and_keeps_its_lines() {
        let mut value =
            serde_json::json!({"a": ["x\u{1b}[1m", 1, null], "b": {"c": "one\ntwo\u{202e}"}, "d": "good\n"});
        make_printable(&mut value);
        let expected =
            serde_json::json!({"a": ["x\\u{1b}[1m", 1, null], "b": {"c": "one\ntwo\\u{202e}"}, "d": "good\n"});
        assert_eq!(value, expected);
    }
}
