//! The file before it is checked: names and types of values.
//!
//! Each value has its own result ([`Entry`]), and unknown keys are collected, so that one run can report every error.

mod keys;
mod sections;
mod shape;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;

pub(super) use keys::KNOWN_KEYS;
pub(super) use sections::*;
pub(super) use shape::*;

/// Parses a file's text. Only a syntax error is returned; wrong types and unknown keys are part of the result.
pub(super) fn parse<T: Section>(text: &str) -> Result<T, Diagnostic> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or_else(|| "the file".to_owned(), |span| position(text, span.start));
        Diagnostic::new(at, error.message().trim_end().replace('\n', ", "))
    })?;
    Ok(T::from_table(table.into_inner()))
}

/// The position of a byte offset: `line 3, column 7`, both counted from 1 as in editors.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
