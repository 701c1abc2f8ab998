//! Exit codes, and the messages that are printed with them. Units and scripts rely on the codes.

use std::process::ExitCode;

use crate::config::{self, Severity};
use crate::error::chain;
use crate::report::Health;

/// `EX_USAGE` of sysexits.h.
const WRONG_ARGUMENTS: u8 = 64;
/// `EX_CONFIG` of sysexits.h: the unit does not restart on it.
const WRONG_CONFIGURATION: u8 = 78;
/// What monitoring plug-ins end with if they cannot tell.
const NO_DAEMON: u8 = 3;

/// Prints what clap says of the arguments. Help and version succeed, wrong arguments fail.
pub fn arguments(error: &clap::Error) -> ExitCode {
    // Err: the output is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(WRONG_ARGUMENTS) } else { ExitCode::SUCCESS }
}

/// The code of `bastionctl status` and `reconcile`. Monitoring plug-ins use the same numbers for OK, WARNING and
/// CRITICAL.
pub fn health(health: Health) -> ExitCode {
    ExitCode::from(match health {
        Health::Healthy => 0,
        Health::Waiting => 1,
        Health::Degraded => 2,
    })
}

/// Prints why the configuration is wrong, each problem with the line of the file that it is about.
pub fn wrong_configuration(error: &config::Error) -> ExitCode {
    eprintln!("{}: {}", program(), chain(error));
    for problem in error.diagnostics() {
        eprintln!("{}", problem.excerpt(error.path(), Severity::Error));
    }
    ExitCode::from(WRONG_CONFIGURATION)
}

/// Prints why the daemon finds the configuration wrong: the same lines as [`wrong_configuration`].
pub(crate) fn refused_configuration(reason: &str, problems: &[String]) -> ExitCode {
    eprintln!("{}: {reason}", program());
    for problem in problems {
        eprintln!("  {problem}");
    }
    ExitCode::from(WRONG_CONFIGURATION)
}

/// Prints any other error, on one line with its causes.
pub fn failure(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("{}: {}", program(), chain(error));
    ExitCode::FAILURE
}

/// Prints why the daemon did not answer.
pub fn no_daemon(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("{}: {}", program(), chain(error));
    ExitCode::from(NO_DAEMON)
}

/// The name that the program was started with.
fn program() -> String {
    let name = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = name.as_deref().and_then(std::path::Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "bastiond".to_owned())
}
