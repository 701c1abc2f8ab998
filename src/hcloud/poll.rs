//! When to ask the cloud again. Pure: chance is passed in.

use std::time::Duration;

use super::api::RateLimit;
use crate::backoff::Backoff;

/// hcloud-go's back-off, which starts at 1 s, but not up to its 60 s: a route that is missing is an outage for
/// everybody behind it.
pub(super) const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// With fewer calls than this left of 3600 an hour, idle polls leave them to those who need them more.
const SCARCE_CALLS: u64 = 100;
/// How much slower an idle poll becomes then.
const SCARCE_FACTOR: u32 = 4;
/// Where only a person can help, the person wants to see the help work: no later than this, whatever the poll's
/// interval.
const STUCK_INTERVAL: Duration = Duration::from_secs(60);

/// How the last pass went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollOutcome {
    /// All is as wanted, or waits for somebody.
    Settled,
    /// Failed in a way that a person has to mend.
    Stuck,
    /// Failed in a way that may pass.
    Transient,
}

/// The time until the next pass. `retry` counts the transient failures in a row; `chance` is uniform in 0..1.
pub(super) fn next_poll(
    outcome: PollOutcome,
    retry: &mut Backoff,
    networks: usize,
    interval: Duration,
    rate_limit: Option<RateLimit>,
    chance: f64,
) -> Duration {
    if outcome == PollOutcome::Transient {
        return retry.failed_with_jitter(chance);
    }
    retry.succeeded();
    let interval = interval.saturating_mul(u32::try_from(networks.max(1)).unwrap_or(u32::MAX));
    let calls_are_scarce = rate_limit.is_some_and(|rate| rate.remaining < SCARCE_CALLS);
    match outcome {
        PollOutcome::Stuck => interval.min(STUCK_INTERVAL),
        _ if calls_are_scarce => interval.saturating_mul(SCARCE_FACTOR),
        _ => interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(20);

    fn settled(networks: usize, rate_limit: Option<RateLimit>) -> Duration {
        next_poll(PollOutcome::Settled, &mut { RETRY }, networks, INTERVAL, rate_limit, 0.0)
    }

    #[test]
    fn an_idle_day_costs_at_most_200_calls_an_hour_however_many_networks() {
        for networks in 1..=10 {
            let calls_an_hour =
                3600.0 / settled(networks, None).as_secs_f64() * f64::from(u32::try_from(networks).unwrap());
            assert!(calls_an_hour <= 200.0, "{networks} networks: {calls_an_hour}");
        }
    }

    #[test]
    fn transient_failures_are_retried_after_1_s_and_then_later_up_to_30_s() {
        let mut retry = RETRY;
        let mut poll = |outcome| next_poll(outcome, &mut retry, 2, INTERVAL, None, 1.0).as_secs();
        assert_eq!([0; 7].map(|_| poll(PollOutcome::Transient)), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(poll(PollOutcome::Stuck), 40);
        assert_eq!(poll(PollOutcome::Transient), 1);
    }

    #[test]
    fn when_calls_are_scarce_an_idle_poll_becomes_rarer() {
        let rate = |remaining| Some(RateLimit { limit: 3600, remaining });
        assert_eq!(settled(1, rate(99)), 4 * INTERVAL);
        assert_eq!(settled(1, rate(100)), INTERVAL);
    }
}
