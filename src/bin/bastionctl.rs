//! `bastionctl`, the operator's tool: arguments, one call, one print, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use bastiond::cli::Bastionctl;
use bastiond::exit;
use clap::Parser;

fn main() -> ExitCode {
    match Bastionctl::try_parse() {
        Ok(arguments) => bastiond::run_operator(&arguments),
        Err(error) => exit::arguments(&error),
    }
}
