//! `sandbox`: the simulated network for people.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Network namespaces connected like a Hetzner network, with a fake Hetzner Cloud.
///
/// The program works in namespaces of its own and does not change the machine's network.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check whether this machine can run the sandbox, and print what is missing.
    Check,
    /// Show what bastiond does, from its start to `bastionctl down`, then exit.
    Demo(commands::demo::Options),
    /// Start the network and a shell in it. The network ends with the shell.
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
