//! The project's request budget: a token bucket, as the API documentation's "Rate Limiting" describes it.

use std::time::{Duration, SystemTime};

use super::settings::RateLimit;

/// How much of the budget is left. Fractions are kept in thousandths of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    limit: RateLimit,
    milli: u64,
    filled: SystemTime,
}

/// What the `RateLimit-*` headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Requests in a full bucket.
    pub(crate) limit: u32,
    /// Whole requests left.
    pub(crate) remaining: u32,
    /// When the bucket is full again, which is not when the next request is allowed.
    pub(crate) full_again: SystemTime,
}

impl Bucket {
    pub(crate) fn full(limit: RateLimit, now: SystemTime) -> Self {
        Self { limit, milli: u64::from(limit.burst) * 1000, filled: now }
    }

    /// Spends one request. False: there is none left, and nothing is spent.
    pub(crate) fn take(&mut self, now: SystemTime) -> bool {
        self.refill(now);
        let allowed = self.milli >= 1000;
        if allowed {
            self.milli -= 1000;
        }
        allowed
    }

    /// Leaves at most `remaining` requests: other programs of the project have used up the rest.
    pub(crate) fn drain_to(&mut self, remaining: u32, now: SystemTime) {
        self.refill(now);
        self.milli = self.milli.min(u64::from(remaining) * 1000);
    }

    pub(crate) fn budget(&mut self, now: SystemTime) -> Budget {
        self.refill(now);
        let missing = self.capacity() - self.milli;
        // A bucket that never refills is said to be full in an hour: the header has no word for never.
        let until_full = match u64::from(self.limit.refill_per_second) {
            0 if missing > 0 => Duration::from_secs(3600),
            0 => Duration::ZERO,
            rate => Duration::from_millis(missing.div_ceil(rate)),
        };
        Budget {
            limit: self.limit.burst,
            remaining: u32::try_from(self.milli / 1000).unwrap_or(u32::MAX),
            full_again: self.filled + until_full,
        }
    }

    fn capacity(&self) -> u64 {
        u64::from(self.limit.burst) * 1000
    }

    fn refill(&mut self, now: SystemTime) {
        let Ok(passed) = now.duration_since(self.filled) else { return };
        // Whole milliseconds only, and the rest stays on the clock: many short looks add up to the same as a long one.
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let gained = millis.saturating_mul(u64::from(self.limit.refill_per_second));
        self.milli = self.milli.saturating_add(gained).min(self.capacity());
        self.filled += Duration::from_millis(millis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn after(seconds: f64) -> SystemTime {
        START + Duration::from_secs_f64(seconds)
    }

    fn spent(limit: RateLimit) -> Bucket {
        let mut bucket = Bucket::full(limit, START);
        for _ in 0..limit.burst {
            assert!(bucket.take(START));
        }
        bucket
    }

    #[test]
    fn a_full_bucket_allows_a_burst_of_3600_and_not_one_more() {
        let mut bucket = spent(RateLimit::default());
        assert!(!bucket.take(START));
        assert_eq!(bucket.budget(START), Budget { limit: 3600, remaining: 0, full_again: after(3600.0) });
    }

    #[test]
    fn one_request_comes_back_every_second() {
        let mut bucket = spent(RateLimit::default());
        assert!(!bucket.take(after(0.999)));
        assert!(bucket.take(after(1.0)));
        assert!(!bucket.take(after(1.0)));
        assert_eq!(bucket.budget(after(10.0)), Budget { limit: 3600, remaining: 9, full_again: after(3601.0) });
    }

    #[test]
    fn many_short_looks_refill_no_more_and_no_less_than_one_long_one() {
        let mut bucket = spent(RateLimit { burst: 5, refill_per_second: 1 });
        for step in 1..=1999_u32 {
            bucket.budget(START + Duration::from_millis(1) * step + Duration::from_micros(500));
        }
        assert_eq!(bucket.budget(after(1.9995)).remaining, 1);
        assert_eq!(bucket.budget(after(2.0)).remaining, 2);
    }

    #[test]
    fn the_bucket_never_holds_more_than_its_burst() {
        let mut bucket = spent(RateLimit { burst: 3, refill_per_second: 2 });
        let budget = bucket.budget(after(1000.0));
        assert_eq!(budget, Budget { limit: 3, remaining: 3, full_again: after(1000.0) });
    }

    #[test]
    fn a_bucket_that_never_refills_stays_empty() {
        let mut bucket = spent(RateLimit { burst: 1, refill_per_second: 0 });
        assert!(!bucket.take(after(86_400.0)));
        assert_eq!(bucket.budget(after(86_400.0)).full_again, after(90_000.0));
    }

    #[test]
    fn a_clock_that_steps_back_takes_nothing_away() {
        let mut bucket = Bucket::full(RateLimit { burst: 2, refill_per_second: 1 }, after(100.0));
        assert!(bucket.take(after(50.0)));
        assert_eq!(bucket.budget(after(50.0)), Budget { limit: 2, remaining: 1, full_again: after(101.0) });
    }

    #[test]
    fn others_can_use_up_the_budget_but_not_add_to_it() {
        let mut bucket = Bucket::full(RateLimit::default(), START);
        bucket.drain_to(7, START);
        bucket.drain_to(50, START);
        assert_eq!(bucket.budget(START).remaining, 7);
    }
}
