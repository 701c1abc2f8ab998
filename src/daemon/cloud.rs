//! The cloud's lane: at rest until a look is due, or looking in a task of its own.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::{self, Config};
use crate::hcloud::{Hcloud, WantedReturnRoutes, wanted_return_routes};
use crate::inputs::SeenReturnRoutes;
use crate::outcome::Outcome;
use crate::site::Site;

/// After a look that panicked.
const RETRY: Duration = Duration::from_secs(10);
/// Between two looks that nobody asked for: an address that comes and goes must not eat the project's budget of calls.
const AT_LEAST: Duration = Duration::from_secs(5);
/// How long a running look may go on when the daemon needs the room for something else.
const FAREWELL: Duration = Duration::from_secs(20);

/// What a look comes to: the room is handed back with it.
type Look = (Box<Hcloud>, Outcome, Duration);

/// What a look is about.
pub(super) struct Subject {
    pub(super) config: config::Hcloud,
    pub(super) site: Site,
    pub(super) wanted_return_routes: WantedReturnRoutes,
}

impl Subject {
    pub(super) fn of(config: &Config, site: &Site) -> Self {
        Self {
            config: config.hcloud.clone(),
            site: site.clone(),
            wanted_return_routes: wanted_return_routes(config, site),
        }
    }
}

/// What happened in the lane.
pub(super) enum Event {
    /// It is time to look.
    Due,
    /// A look is over: what it came to, and whether another one follows at once.
    Done {
        /// What it came to.
        outcome: Outcome,
        /// Somebody wants a fresh one.
        again: bool,
        /// What the networks send here for the tunnel; `None`: the look broke off.
        seen_return_routes: Option<SeenReturnRoutes>,
    },
}

/// How soon a look is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Now: a person or a new configuration wants it.
    Now,
    /// Soon, but not in a storm: the site changed.
    Soon,
}

/// The lane.
pub(super) struct Lane {
    work: Work,
    started: Option<Instant>,
    due: Instant,
}

enum Work {
    Resting(Box<Hcloud>),
    Looking { task: JoinHandle<Look>, again: bool },
}

impl Lane {
    /// At rest, with a look due at once.
    pub(super) fn new() -> Self {
        Self { work: Work::Resting(Box::default()), started: None, due: Instant::now() }
    }

    /// What happens next. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        let (task, again) = match &mut self.work {
            Work::Resting(_) => {
                sleep_until(self.due).await;
                return Event::Due;
            }
            Work::Looking { task, again } => (task, *again),
        };
        let (seen_return_routes, (hcloud, outcome, pause)) = match task.await {
            Ok(look) => (Some(look.0.seen_return_routes().clone()), look),
            Err(error) => {
                let outcome = Outcome::failed(&error, "this is a bug; the next look starts afresh");
                (None, (Box::default(), outcome, RETRY))
            }
        };
        self.work = Work::Resting(hcloud);
        self.due = Instant::now() + if again { Duration::ZERO } else { pause };
        Event::Done { outcome, again, seen_return_routes }
    }

    /// Wants a look; one that is on its way is followed by another.
    pub(super) fn want(&mut self, urgency: Urgency) {
        match &mut self.work {
            Work::Looking { again, .. } => *again = true,
            Work::Resting(_) => {
                let now = Instant::now();
                let soonest = match (urgency, self.started) {
                    (Urgency::Soon, Some(started)) => (started + AT_LEAST).max(now),
                    _ => now,
                };
                self.due = self.due.min(soonest);
            }
        }
    }

    /// Starts the look that is due.
    pub(super) fn look(&mut self, subject: Subject) {
        if let Work::Resting(hcloud) = &mut self.work {
            let mut hcloud = std::mem::take(hcloud);
            self.started = Some(Instant::now());
            let task = tokio::spawn(async move {
                let Subject { config, site, wanted_return_routes } = subject;
                let (outcome, pause) = hcloud.reconcile(&config, &site, &wanted_return_routes).await;
                (hcloud, outcome, pause)
            });
            self.work = Work::Looking { task, again: false };
        }
    }

    /// Lets the look that is due wait: the rules do not stand.
    pub(super) fn put_off(&mut self) {
        self.due = Instant::now() + Duration::from_secs(3600);
    }

    /// Takes the room out of the lane, after the look on its way has ended or was given up.
    pub(super) async fn end(self) -> Box<Hcloud> {
        match self.work {
            Work::Resting(hcloud) => hcloud,
            Work::Looking { mut task, .. } => {
                let ended = tokio::time::timeout(FAREWELL, &mut task).await;
                task.abort();
                ended.ok().and_then(Result::ok).map(|(hcloud, ..)| hcloud).unwrap_or_default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next_due(lane: &mut Lane) -> Duration {
        let start = Instant::now();
        assert!(matches!(lane.event().await, Event::Due));
        start.elapsed()
    }

    /// A look that asks nobody.
    async fn look(lane: &mut Lane) -> bool {
        let config = config::parse("[hcloud]\nenabled = false", &config::Environment::default()).unwrap();
        lane.look(Subject::of(&config, &Site::default()));
        matches!(lane.event().await, Event::Done { again: true, .. })
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_flaps_costs_a_look_every_five_seconds() {
        let mut lane = Lane::new();
        assert_eq!(next_due(&mut lane).await, Duration::ZERO);
        look(&mut lane).await;
        for _ in 0..10 {
            lane.want(Urgency::Soon);
        }
        assert_eq!(next_due(&mut lane).await, AT_LEAST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_is_not_kept_waiting() {
        let mut lane = Lane::new();
        look(&mut lane).await;
        lane.want(Urgency::Now);
        assert_eq!(next_due(&mut lane).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_during_a_look_is_followed_by_another_look() {
        let mut lane = Lane::new();
        let config = config::parse("[hcloud]\nenabled = false", &config::Environment::default()).unwrap();
        lane.look(Subject::of(&config, &Site::default()));
        lane.want(Urgency::Soon);
        assert!(matches!(lane.event().await, Event::Done { again: true, .. }));
        assert_eq!(next_due(&mut lane).await, Duration::ZERO);
        assert!(!look(&mut lane).await);
    }
}
