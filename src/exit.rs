//! Exit codes, and the words that go with them. A contract: units and scripts rely on the codes.

use std::process::ExitCode;

use crate::config;
use crate::error::chain;

/// `EX_CONFIG` of sysexits.h: the unit does not restart on it.
const WRONG_CONFIGURATION: u8 = 78;

/// Help and version are no failure; wrong arguments are one like any other.
pub fn arguments(error: &clap::Error) -> ExitCode {
    // Err: nobody is left to read it.
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The configuration is wrong: every problem on a line of its own.
pub fn wrong_configuration(error: &config::Error) -> ExitCode {
    eprintln!("{}: {}", program(), chain(error));
    for problem in error.diagnostics() {
        eprintln!("  {problem}");
    }
    ExitCode::from(WRONG_CONFIGURATION)
}

/// Anything else.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("{}: {}", program(), chain(error));
    ExitCode::FAILURE
}

/// The name that the program was started by.
fn program() -> String {
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = name.as_deref().and_then(std::path::Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "bastiond".to_owned())
}
