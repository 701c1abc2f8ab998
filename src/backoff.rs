//! Exponential back-off: how long to wait before the next attempt. Pure: time and chance are passed in by the caller.

use std::time::Duration;

/// Delays that double with each failure in a row, up to a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// The first delay, and the longest one.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Counts a failure, and says how long to wait before the next attempt.
    pub(crate) fn failed(&mut self) -> Duration {
        // 2^16 times any sensible first delay is beyond any sensible longest one.
        let delay = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Like [`Backoff::failed`], but with a random delay between the first one and that, so that many clients do not
    /// retry at once. `chance` is uniform in 0..1.
    pub(crate) fn failed_with_jitter(&mut self, chance: f64) -> Duration {
        let delay = self.failed();
        self.first + delay.saturating_sub(self.first).mul_f64(chance)
    }

    /// Starts over: an attempt succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hcloud() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(30))
    }

    #[test]
    fn delays_double_up_to_the_longest_and_start_over_after_a_success() {
        let mut backoff = hcloud();
        let delays: Vec<u64> = (0..7).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        backoff.succeeded();
        assert_eq!(backoff.failed().as_secs(), 1);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.failed().as_secs(), 30);
    }

    #[test]
    fn jitter_stays_between_the_first_delay_and_the_doubled_one() {
        let delays = |chance| {
            let mut backoff = hcloud();
            [0; 6].map(|_| backoff.failed_with_jitter(chance).as_secs())
        };
        assert_eq!(delays(1.0), [1, 2, 4, 8, 16, 30]);
        assert_eq!(delays(0.0), [1; 6]);
    }
}
