//! `bastiond-tunnel`, the tunnel's data plane by itself: arguments, environment, run, exit code.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::process::ExitCode;

use bastiond_tunnel::cli::BastiondTunnel;
use bastiond_tunnel::error::chain;
use bastiond_tunnel::standalone::{self, Environment};
use clap::Parser;
use zeroizing_alloc::ZeroAlloc;

/// Session keys live in memory of the protocol core and of ring, which do not wipe it. Whatever is freed is wiped;
/// nothing is freed while packets pass.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let arguments = match BastiondTunnel::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Err: standard output and standard error are closed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match Environment::from_process().and_then(|environment| standalone::run(&arguments, environment)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bastiond-tunnel: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
