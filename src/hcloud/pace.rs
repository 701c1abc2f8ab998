//! When to look at the cloud again. Pure: chance is passed in.

use std::time::Duration;

use super::api::RateLimit;

/// hcloud-go's back-off: 1 s doubled with each failure …
const FIRST: Duration = Duration::from_secs(1);
/// … but not up to its 60 s: a route that is missing is an outage for everybody behind it.
const LONGEST: Duration = Duration::from_secs(30);
/// With less than this left of 3600 the calls belong to those who need them more than an idle poll.
const SCARCE: u64 = 100;
/// How much slower an idle poll becomes then.
const SPARING: u32 = 4;

/// Where only a person can help, the person wants to see the help work: no later than this, whatever the poll's interval.
const HELPED: Duration = Duration::from_secs(60);

/// How the last pass went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// All is as wanted, or waits for somebody.
    Settled,
    /// Failed in a way that a person has to mend.
    Stuck,
    /// Failed so often in a row that trying again may help.
    Failing {
        /// From 1.
        times: u32,
    },
}

/// The time until the next look. `chance` is uniform in 0..1: many clients must not come back at once.
pub(super) fn next_look(
    last: Last,
    networks: usize,
    interval: Duration,
    rate_limit: Option<RateLimit>,
    chance: f64,
) -> Duration {
    let networks = u32::try_from(networks.max(1)).unwrap_or(u32::MAX);
    match last {
        Last::Stuck => interval.saturating_mul(networks).min(HELPED),
        Last::Failing { times } => {
            let ceiling = FIRST.saturating_mul(1 << times.saturating_sub(1).min(16)).min(LONGEST);
            FIRST + ceiling.saturating_sub(FIRST).mul_f64(chance)
        }
        Last::Settled if rate_limit.is_some_and(|rate| rate.remaining < SCARCE) => {
            interval.saturating_mul(networks).saturating_mul(SPARING)
        }
        Last::Settled => interval.saturating_mul(networks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(20);

    #[test]
    fn an_idle_day_costs_at_most_200_calls_an_hour_however_many_networks() {
        for networks in 1..=10 {
            let pause = next_look(Last::Settled, networks, POLL, None, 0.0);
            let calls_an_hour = 3600.0 / pause.as_secs_f64() * f64::from(u32::try_from(networks).unwrap());
            assert!(calls_an_hour <= 200.0, "{networks} networks: {calls_an_hour}");
        }
    }

    #[test]
    fn failures_are_retried_after_1_s_and_then_ever_later_up_to_30_s() {
        let looks = |chance| {
            [1, 2, 3, 4, 5, 6, 60].map(|times| next_look(Last::Failing { times }, 2, POLL, None, chance).as_secs())
        };
        assert_eq!(looks(1.0), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(looks(0.0), [1; 7]);
    }

    #[test]
    fn when_calls_are_scarce_an_idle_poll_steps_back() {
        let rate = |remaining| Some(RateLimit { limit: 3600, remaining });
        assert_eq!(next_look(Last::Settled, 1, POLL, rate(99), 0.0), 4 * POLL);
        assert_eq!(next_look(Last::Settled, 1, POLL, rate(100), 0.0), POLL);
    }
}
