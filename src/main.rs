//! `bastiond`, the daemon: arguments, configuration, logging, run, exit code.

use std::alloc::System;
use std::process::ExitCode;

use bastiond::cli::Bastiond;
use bastiond::config::{self, Environment};
use bastiond::report::chain;
use bastiond::{daemon, exit, systemd};
use clap::Parser;
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
    let environment = Environment::of_process();
    let config = match config::load(&arguments.config, &environment) {
        Ok(config) => config,
        Err(error) => return exit::wrong_configuration(&error),
    };
    let log_level = systemd::start_logging(config.log.level);
    let kept = systemd::kept_descriptors();
    // One thread: the daemon waits most of the time, and the data path is the kernel's.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
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
