//! Exit codes, and the words that go with them. A contract: units and scripts rely on the codes.

use std::process::ExitCode;

use crate::config;
use crate::report::chain;

/// `EX_CONFIG` of sysexits.h: the unit does not restart on it.
const WRONG_CONFIGURATION: u8 = 78;

/// The configuration is wrong: every problem on a line of its own.
pub fn wrong_configuration(error: &config::Error) -> ExitCode {
    eprintln!("bastiond: {}", chain(error));
    for problem in error.problems() {
        eprintln!("  {problem}");
    }
    ExitCode::from(WRONG_CONFIGURATION)
}

/// Anything else.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("bastiond: {}", chain(error));
    ExitCode::FAILURE
}
