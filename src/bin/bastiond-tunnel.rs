//! `bastiond-tunnel`, the tunnel's data plane by itself: arguments, environment, run, exit code.

use std::alloc::System;
use std::process::ExitCode;

use bastiond::cli::BastiondTunnel;
use bastiond::exit;
use bastiond::wireguard::standalone::{self, Environment};
use clap::Parser;
use zeroizing_alloc::ZeroAlloc;

/// Session keys live in memory of the protocol core and of ring, which do not wipe it. Whatever is freed is wiped; nothing is
/// freed while packets pass.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let arguments = match BastiondTunnel::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return exit::arguments(&error),
    };
    match Environment::of_process().and_then(|environment| standalone::run(&arguments, environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::failure(&error),
    }
}
