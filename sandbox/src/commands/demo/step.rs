//! The steps of the demo and their checks.

use std::error::Error;
use std::time::Duration;

/// The time limit for expected events.
pub(super) const SOON: Duration = Duration::from_secs(3);

/// The result of a step.
pub(super) type Step<T = ()> = Result<T, Box<dyn Error>>;

/// Fails with the text `problem` unless the condition holds.
pub(super) fn check(condition: bool, problem: &str) -> Step {
    if condition { Ok(()) } else { Err(format!("the demo failed: {problem}").into()) }
}
