//! The file as it stands: names and shapes, nothing checked.
//!
//! Each value is kept with its own verdict ([`Entry`]) and unknown keys are collected instead of ending the read, so that
//! one run can show everything that is wrong.

mod keys;
mod sections;
mod shape;

use toml::Table;

use super::Problem;

pub use keys::KNOWN_KEYS;
pub(super) use sections::*;
pub(super) use shape::*;

/// Reads a file's text. Only bad syntax ends here: wrong shapes and unknown keys travel on inside the result.
pub(super) fn parse<T: Section>(text: &str) -> Result<T, Problem> {
    text.parse::<Table>().map(T::of_table).map_err(|error| {
        let at = error.span().map_or_else(|| "the file".to_owned(), |span| position(text, span.start));
        let literal = error.span().and_then(|span| text.get(span)).unwrap_or_default();
        let reason = if is_too_large(literal) {
            format!("{literal} is larger than any number that is meant here")
        } else {
            error.message().trim_end().replace('\n', ", ")
        };
        Problem::new(at, reason)
    })
}

/// A whole number beyond 64 bits, which ends the read: TOML promises no more (TOML 1.0, "Integer").
fn is_too_large(literal: &str) -> bool {
    let plain = literal.replace('_', "");
    let digits = plain.trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && plain.parse::<i64>().is_err()
}

/// `line 3, column 7` of a byte offset, both counted from one as editors do.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
