//! When the next pass of the cloud's component runs. Pure: chance is passed in.

use std::time::Duration;

use super::api::RateLimit;
use crate::backoff::Backoff;

/// Starts at 1 s, like hcloud-go's back-off, but ends at 30 s instead of 60 s: a missing route is an outage for all
/// private hosts.
pub(super) const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// With fewer calls than this left (of 3600 an hour), idle polls become rarer and leave the calls to other clients.
const SCARCE_CALLS: u64 = 100;
/// The factor of the poll interval then.
const SCARCE_FACTOR: u32 = 4;
/// The longest poll interval after an error that a person has to correct, so that the correction takes effect soon.
const STUCK_INTERVAL: Duration = Duration::from_secs(60);

/// The result of the last pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollOutcome {
    /// The routes are as wanted, or something outside has to come first.
    Settled,
    /// The pass failed, and a person has to correct something.
    Stuck,
    /// The pass failed, and a retry may succeed.
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
