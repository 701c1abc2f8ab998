//! The clock of a cloud, which tests can replace, and the time format of the API.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Returns the current time, for everything in the cloud that waits or expires.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A clock that never steps back: the system time when the cloud was created, plus the monotonic time since. A timer
/// that slept for an action's duration is never early by this clock.
pub(crate) fn steady() -> Clock {
    let (day, start) = (SystemTime::now(), Instant::now());
    Arc::new(move || day + start.elapsed())
}

/// Whole seconds since 1970, the form of the `RateLimit-Reset` header. Times before 1970 count as 0.
pub(crate) fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// RFC 3339 in UTC with whole seconds, as in the API documentation: `2016-01-30T23:55:00Z`.
pub(crate) fn rfc3339(at: SystemTime) -> String {
    let seconds = unix_seconds(at);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day counted from 1970-01-01. It uses eras of 400 years (146097 days) that begin on 1 March,
/// so that the leap day is the last day of a year.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_api_documentation_writes_them() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_454_198_100, "2016-01-30T23:55:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_795_219_200, "2026-11-21T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, written) in cases {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), written);
        }
    }

    #[test]
    fn the_steady_clock_starts_at_the_system_time_and_never_steps_back() {
        let clock = steady();
        let first = clock();
        assert!(SystemTime::now().duration_since(first).unwrap_or_default() < Duration::from_secs(5));
        assert!(clock() >= first);
    }
}
