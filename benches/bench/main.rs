//! Side by side with the alternatives, in one go on one machine: `make bench`, or `make bench CASE=gateway` for a part.
//!
//! Prints tables and writes `target/bench/results.json`. Nothing here fails because of a number: the machine that runs
//! it may be busy.

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

/// Whatever went wrong, it is printed and that was it.
type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    if let Err(error) = sandbox::isolation::enter() {
        eprintln!("{}", sandbox::isolation::explain(&error));
        return ExitCode::FAILURE;
    }
    match run(&Selection::of_arguments(std::env::args().skip(1))) {
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
        return Err("no case has such a name; cases are called gateway/…, daemon/… and tunnel/…".into());
    }
    table::print(&cases);
    let path = target(programs).join("bench/results.json");
    results::write(&path, &cases)?;
    println!("{}\nwritten to {}", machine::load(), path.display());
    Ok(())
}

/// In the environment: how often to measure, for those who have no time.
const RUNS: &str = "RUNS";

/// How often a part is measured: so often, unless the environment says otherwise.
fn rounds(usual: usize) -> Result<usize> {
    let Ok(text) = std::env::var(RUNS) else { return Ok(usual) };
    match text.parse() {
        Ok(rounds @ 1..) => Ok(rounds),
        _ => Err(format!("{RUNS}={text}: how often to measure, 1 or more").into()),
    }
}

/// Where cargo put `bastiond` and `bastionctl`, built as this program is.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_bastiond")).parent().expect("a program lies in a directory")
}

/// Cargo's target directory: what is measured against, and what came out, lie in its `bench`.
fn target(programs: &Path) -> &Path {
    programs.parent().unwrap_or(programs)
}

/// Which cases shall run: those whose names begin with one of the words, or all.
#[derive(Debug)]
struct Selection(Vec<String>);

impl Selection {
    /// `cargo bench` adds an option of its own.
    fn of_arguments(arguments: impl Iterator<Item = String>) -> Self {
        Self(arguments.filter(|word| !word.is_empty() && !word.starts_with('-')).collect())
    }

    fn has(&self, case: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| case.starts_with(word.as_str()))
    }
}
