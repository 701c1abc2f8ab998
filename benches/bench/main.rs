//! Compares bastiond with the alternatives in one run on one machine: `make bench`, or `make bench CASE=gateway` for a
//! part.
//!
//! It prints tables and writes `target/bench/results.json`. It does not fail because of a number, since the machine may
//! be busy.

mod case;
mod daemon;
mod gateway;
mod machine;
mod results;
mod table;
mod tunnel;
mod units;

use std::path::Path;
use std::process::ExitCode;

use case::Case;

/// The result of a benchmark. Errors are printed and end the run.
type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    if let Err(error) = sandbox::isolation::enter() {
        eprintln!("{}", sandbox::isolation::explain(&error));
        return ExitCode::FAILURE;
    }
    match run(&Selection::from_arguments(std::env::args().skip(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(selection: &Selection) -> Result {
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

/// The environment variable with the number of rounds, for a shorter run.
const RUNS: &str = "RUNS";

/// The number of rounds: the default, or that of the environment.
fn rounds(default: usize) -> Result<usize> {
    let Ok(text) = std::env::var(RUNS) else { return Ok(default) };
    match text.parse() {
        Ok(rounds @ 1..) => Ok(rounds),
        _ => Err(format!("{RUNS}={text}: the number of rounds must be 1 or more").into()),
    }
}

/// The directory of `bastiond` and `bastionctl`, built with the profile of this program.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bastiond")).parent().expect("the path of a program has a directory")
}

/// Cargo's target directory, which has the compared programs and the results in its `bench`.
fn target(programs: &Path) -> &Path {
    programs.parent().unwrap_or(programs)
}

/// The cases to run: those whose names begin with one of the words, or all.
#[derive(Debug)]
struct Selection(Vec<String>);

impl Selection {
    /// Takes the words from the arguments, without the option that `cargo bench` adds.
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Self {
        Self(arguments.filter(|word| !word.is_empty() && !word.starts_with('-')).collect())
    }

    fn has(&self, case: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| case.starts_with(word.as_str()))
    }
}
