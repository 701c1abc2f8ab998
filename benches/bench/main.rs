//! Compares bastiond with the alternatives in one run on one machine: `make bench`, or `make bench CASE=gateway` for a
//! part.
//!
//! It prints tables and writes `target/bench/results.json`. It does not fail because of a number, since the machine may
//! be busy.

mod case;
mod daemon;
mod gateway;
mod iperf;
mod machine;
mod results;
mod run;
mod table;
mod tunnel;
mod units;

use std::path::Path;
use std::process::ExitCode;

use case::Case;
use run::{Result, Selection};

fn main() -> ExitCode {
    if let Err(error) = sandbox::isolation::enter() {
        eprintln!("{}", sandbox::isolation::explain(&error));
        return ExitCode::FAILURE;
    }
    match measure_all(&Selection::from_arguments(std::env::args().skip(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(selection: &Selection) -> Result {
    if cfg!(debug_assertions) {
        return Err("this is a debug build, and so is the daemon next to it: use `make bench`".into());
    }
    let programs = programs();
    println!("{}\n", machine::description());
    let mut cases: Vec<Case> = Vec::new();
    cases.extend(gateway::measure(selection, programs)?);
    cases.extend(daemon::measure(selection, programs)?);
    cases.extend(tunnel::measure(selection, programs, target(programs))?);
    if cases.is_empty() {
        return Err("no case has this name; the names begin with gateway/, daemon/ or tunnel/".into());
    }
    table::print(&cases);
    let path = target(programs).join("bench/results.json");
    results::write(&path, &cases)?;
    println!("{}\nwritten to {}", machine::load(), path.display());
    Ok(())
}

/// The directory of `bastiond` and `bastionctl`, built with the profile of this program.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bastiond")).parent().expect("the path of a program has a directory")
}

/// Cargo's target directory, which has the compared programs and the results in its `bench`.
fn target(programs: &Path) -> &Path {
    programs.parent().unwrap_or(programs)
}
