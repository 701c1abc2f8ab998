//! What a test of this kind is, and tells whoever reads along: it may take a minute.

use std::time::Duration;

use libtest_mimic::Trial;

use crate::shared::Result;

/// For a service to come up or change its mind.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// A test named as a sentence.
pub(crate) fn trial(name: &'static str, test: fn() -> Result) -> Trial {
    let told = move || {
        // At once, too: whoever waits for a machine that hangs wants to know what went wrong before.
        test().inspect_err(|error| eprintln!("\n{name}: {}", error.message().unwrap_or_default()))
    };
    Trial::test(name, told)
}

/// A figure that a test has measured, for whoever reads along.
pub(crate) fn tell(what: &str, figure: impl std::fmt::Display) {
    eprintln!("    {what}: {figure}");
}
