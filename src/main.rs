//! `bastiond`, the daemon: arguments, configuration, logging, run, exit code.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::path::Path;
use std::process::ExitCode;

use bastiond::cli::{Bastiond, Subcommand};
use bastiond::{ComponentError as _, Environment, chain, exit};
use clap::Parser;
use tokio::runtime::Runtime;
use zeroizing_alloc::ZeroAlloc;

/// The protocol core and ring do not wipe the memory of session keys. This allocator wipes all memory that is freed;
/// nothing is freed while packets pass.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let arguments = match Bastiond::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::arguments(&error),
    };
    let environment = Environment::from_process();
    match arguments.subcommand {
        Some(Subcommand::Boot) => return boot(&arguments.config, &environment),
        Some(Subcommand::SshPorts) => return ssh_ports(&environment),
        Some(Subcommand::SavedSettings) => {
            print!("{}", bastiond::saved_settings(&environment.state_directory()));
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    let start = match bastiond::start_configuration(&arguments.config, &environment) {
        Ok(start) => start,
        Err(error) => return exit::wrong_configuration(&error),
    };
    let log_level = bastiond::start_logging(start.config.log.level);
    let inherited = bastiond::inherited_descriptors();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failure(&error),
    };
    let ended = runtime.block_on(bastiond::run_daemon(arguments.config, environment, start, log_level, inherited));
    // A name that does not resolve must not keep the daemon from ending.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// One thread: the daemon waits most of the time, and the data path is the kernel's.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Loads rules before the network is up. If the configuration is wrong, that is reported, and the one that was applied
/// last counts, which the daemon will use too. Without any, rules that forward nothing are loaded, so that the gateway
/// is never open.
fn boot(path: &Path, environment: &Environment) -> ExitCode {
    let start = bastiond::start_configuration(path, environment);
    bastiond::start_logging(start.as_ref().map_or(tracing::Level::INFO, |start| start.config.log.level));
    let (config, wrong) = match start {
        Ok(start) => {
            let wrong = start.fallback.as_ref().map(|fallback| exit::wrong_configuration(&fallback.error));
            let is_last_good = start.fallback.is_some_and(|fallback| fallback.applied.is_some());
            (Some(start.config), wrong.filter(|_| !is_last_good))
        }
        Err(error) => (None, Some(exit::wrong_configuration(&error))),
    };
    let booted = match runtime() {
        Ok(runtime) => runtime.block_on(bastiond::run_boot(config, environment)),
        Err(error) => return exit::failure(&error),
    };
    match booted {
        Ok(()) => wrong.unwrap_or(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(advice = error.advice(), "{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Records the ports of sshd for a daemon that is not root.
fn ssh_ports(environment: &Environment) -> ExitCode {
    match bastiond::record_ssh_ports(&environment.runtime_directory()) {
        Ok(ports) => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            println!("sshd's ports: {}", ports.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => exit::failure(&error),
    }
}
