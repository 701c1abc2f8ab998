//! The time, as an argument of everything that waits or expires.

use std::time::{Duration, Instant, SystemTime};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the device started; never goes back.
    pub elapsed: Duration,
    /// Wall-clock time.
    pub wall: SystemTime,
}

/// The kernel's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), wall: SystemTime::now() }
    }
}
