//! The rate limit of a project: a token bucket, by the API documentation, "Rate Limiting".

use std::time::{Duration, SystemTime};

use super::settings::RateLimit;

/// The requests that are left, in thousandths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bucket {
    limit: RateLimit,
    milli: u64,
    filled: SystemTime,
}

/// The values of the `RateLimit-*` headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// The number of requests in a full bucket.
    pub(crate) limit: u32,
    /// The number of whole requests left.
    pub(crate) remaining: u32,
    /// When the bucket is full again; the next request may be allowed earlier.
    pub(crate) full_again: SystemTime,
}

impl Bucket {
    pub(crate) fn full(limit: RateLimit, now: SystemTime) -> Self {
        Self { limit, milli: u64::from(limit.burst) * 1000, filled: now }
    }

    /// Takes one request from the bucket; `false` if none is left.
    pub(crate) fn take(&mut self, now: SystemTime) -> bool {
        self.refill(now);
        let allowed = self.milli >= 1000;
        if allowed {
            self.milli -= 1000;
        }
        allowed
    }

    /// Leaves at most `remaining` requests, as if other programs had used up the rest.
    pub(crate) fn drain_to(&mut self, remaining: u32, now: SystemTime) {
        self.refill(now);
        self.milli = self.milli.min(u64::from(remaining) * 1000);
    }

    pub(crate) fn budget(&mut self, now: SystemTime) -> Budget {
        self.refill(now);
        let missing = self.capacity() - self.milli;
        // The header cannot say "never", so a bucket that never refills reports an hour.
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
        // Only whole milliseconds count and the rest is kept, so that many short intervals refill as much as a long
        // one.
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
    fn many_short_intervals_refill_as_much_as_one_long_interval() {
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
    fn draining_never_adds_requests() {
        let mut bucket = Bucket::full(RateLimit::default(), START);
        bucket.drain_to(7, START);
        bucket.drain_to(50, START);
        assert_eq!(bucket.budget(START).remaining, 7);
    }
}
