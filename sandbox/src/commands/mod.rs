//! The subcommands of the program.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod shell;

use std::error::Error;
use std::process::ExitCode;

/// The result of a subcommand. Errors are printed.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// The error and its causes on one line.
pub(crate) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
