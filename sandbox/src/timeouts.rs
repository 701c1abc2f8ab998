//! Time-outs of tests, scaled for slow machines.

use std::sync::OnceLock;
use std::time::Duration;

/// The environment variable with the factor, a whole number of at least 1, by which every time-out of the sandbox is
/// multiplied. An emulated machine needs it.
pub const FACTOR_VARIABLE: &str = "BASTIOND_TEST_PATIENCE";

/// The time-out multiplied by the factor of [`FACTOR_VARIABLE`]; unchanged if that is unset or not a number.
pub fn scaled(timeout: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let from_environment = || std::env::var(FACTOR_VARIABLE).ok().and_then(|factor| factor.parse().ok());
    timeout * *FACTOR.get_or_init(|| from_environment().unwrap_or(1).max(1))
}
