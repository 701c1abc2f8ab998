//! `bastiond`, the daemon: arguments, configuration, logging, run, exit code.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::path::Path;
use std::process::ExitCode;

use bastiond::cli::{Bastiond, Subcommand};
use bastiond::component::Error as _;
use bastiond::config::{self, Environment};
use bastiond::error::chain;
use bastiond::{daemon, exit, site, systemd};
use clap::Parser;
use tokio::runtime::Runtime;
use zeroizing_alloc::ZeroAlloc;

/// Session keys live in memory of the protocol core and of ring, which do not wipe it. Whatever is freed is wiped; nothing is
/// freed while packets pass.
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
        None => {}
    }
    let config = match config::load(&arguments.config, &environment) {
        Ok(config) => config,
        Err(error) => return exit::wrong_configuration(&error),
    };
    let log_level = systemd::start_logging(config.log.level);
    let kept = systemd::inherited_descriptors();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failure(&error),
    };
    let ended = runtime.block_on(daemon::run(arguments.config, environment, config, log_level, kept));
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

/// Before the network is up. A wrong configuration must not leave the gate open, so it is told, and the gate shut.
fn boot(path: &Path, environment: &Environment) -> ExitCode {
    let config = config::load(path, environment);
    systemd::start_logging(config.as_ref().map_or(tracing::Level::INFO, |config| config.log.level));
    let wrong = config.as_ref().err().map(exit::wrong_configuration);
    let booted = match runtime() {
        Ok(runtime) => runtime.block_on(daemon::run_boot(config.ok(), environment)),
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

/// For a daemon that is not root.
fn ssh_ports(environment: &Environment) -> ExitCode {
    match site::record_ssh_ports(&environment.runtime_directory()) {
        Ok(ports) => {
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            println!("sshd's ports: {}", ports.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => exit::failure(&error),
    }
}
