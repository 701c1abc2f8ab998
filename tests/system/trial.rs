//! The form of these tests, which may take a minute and print their progress.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::shared::Result;

/// The time limit of a change of the service.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);

/// A test named as a sentence.
pub(crate) fn trial(name: &'static str, test: fn() -> Result) -> Trial {
    let run = move || {
        // The failure is printed at once, before later tests can hang.
        test().inspect_err(|error| eprintln!("\n{name}: {}", error.message().unwrap_or_default()))
    };
    Trial::test(name, run)
}

/// Prints a value that a test has measured.
pub(crate) fn print_measurement(what: &str, figure: impl std::fmt::Display) {
    eprintln!("    {what}: {figure}");
}
