//! How long tests wait, on machines that are much slower than those that people and continuous integration have.

use std::sync::OnceLock;
use std::time::Duration;

/// A whole number in the environment: every time-out of the sandbox is that many times as long. An emulated machine needs it.
pub const PATIENCE: &str = "BASTIOND_TEST_PATIENCE";

/// A time-out as this machine needs it.
pub fn scaled(timeout: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let written = || std::env::var(PATIENCE).ok().and_then(|factor| factor.parse().ok());
    timeout * *FACTOR.get_or_init(|| written().unwrap_or(1).max(1))
}
