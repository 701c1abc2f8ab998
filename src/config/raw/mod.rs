//! The file before it is checked: names and types of values.
//!
//! Each value has its own result ([`Entry`]), and unknown keys are collected, so that one run can report every error.

mod keys;
mod sections;
mod shape;
mod syntax;

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Place};

pub(super) use keys::KNOWN_KEYS;
pub(super) use sections::*;
pub(super) use shape::*;

/// Parses a file's text. Only a syntax error is returned; wrong types and unknown keys are part of the result.
pub(super) fn parse<T: Section>(text: &str) -> Result<T, Box<Diagnostic>> {
    let table = DeTable::parse(text).map_err(|error| Box::new(syntax_error(text, &error)))?;
    Ok(T::from_table(table.into_inner()))
}

/// Its key is the position, counted from 1 as in editors.
fn syntax_error(text: &str, error: &toml::de::Error) -> Diagnostic {
    let message = error.message().trim_end().replace('\n', ", ");
    let Some(span) = error.span() else { return Diagnostic::new("the file", message) };
    let place = Place::new(text, span.clone(), None);
    let advice = if place.is_hidden() { None } else { syntax::advice(text, &span, &message) };
    let (reason, place) = match advice {
        Some(syntax::Advice { reason, span }) => (reason, Place::new(text, span, None)),
        None => (message, place),
    };
    let key = format!("line {}, column {}", place.line, place.column);
    Diagnostic { place: Some(place), ..Diagnostic::new(key, reason) }
}
