//! The file as it stands: names and shapes, nothing checked.
//!
//! Each value is kept with its own verdict ([`Entry`]) and unknown keys are collected instead of ending the read, so that
//! one run can show everything that is wrong.

mod keys;
mod sections;
mod shape;

use toml::de::DeTable;

use super::Problem;

pub use keys::KNOWN_KEYS;
pub(super) use sections::*;
pub(super) use shape::*;

/// Reads a file's text. Only bad syntax ends here: wrong shapes and unknown keys travel on inside the result.
pub(super) fn parse<T: Section>(text: &str) -> Result<T, Problem> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or_else(|| "the file".to_owned(), |span| position(text, span.start));
        Problem::new(at, error.message().trim_end().replace('\n', ", "))
    })?;
    Ok(T::of_table(table.into_inner()))
}

/// `line 3, column 7` of a byte offset, both counted from one as editors do.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
