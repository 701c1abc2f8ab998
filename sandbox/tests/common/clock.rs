//! A clock that tests advance, so that results do not depend on the speed of the machine.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sandbox::cloud::{Cloud, Settings};

/// A clock that stands still until a test advances it. It starts on 2023-11-14 at 22:13:20 UTC.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Mutex<SystemTime>>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))))
    }

    /// A cloud that uses this clock.
    pub(crate) fn cloud(&self, settings: Settings) -> Cloud {
        let now = self.0.clone();
        Cloud::with_clock(settings, move || *now.lock().expect("no test panicked here"))
    }

    pub(crate) fn step(&self, by: Duration) {
        *self.0.lock().expect("no test panicked here") += by;
    }
}
