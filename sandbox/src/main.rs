//! `sandbox`: opens the world for a person.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A world of network namespaces shaped like a Hetzner network, with a fake Hetzner Cloud.
///
/// Everything happens in namespaces of the program's own; the machine's network stays as it is.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say whether this machine can host the world, and what is missing.
    Check,
    /// Show what bastiond does, from nothing to a gateway and back; ends by itself.
    Demo(commands::demo::Options),
    /// Open the world and a shell in it; the world ends with the shell.
    Shell(commands::shell::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Check => commands::check::run(),
        Command::Demo(options) => commands::demo::run(&options),
        Command::Shell(options) => commands::shell::run(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("sandbox: {}", commands::explain(error.as_ref()));
        ExitCode::FAILURE
    })
}
