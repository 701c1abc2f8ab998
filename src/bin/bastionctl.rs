//! `bastionctl`, the operator's tool: arguments, one call, one print, exit code.

use std::process::ExitCode;

use bastiond::cli::Bastionctl;
use bastiond::operator;
use clap::Parser;

fn main() -> ExitCode {
    operator::run(&Bastionctl::parse())
}
