//! The cloud's component beside the loop: idle until a pass is due, or running one in a task of its own.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::component::reconcile;
use crate::config::Config;
use crate::error::chain;
use crate::hcloud::{Hcloud, SeenRoutes};
use crate::inputs::Inputs;
use crate::outcome::{Outcome, Problem};
use crate::site::Site;

/// Between two passes that the site's changes ask for: an address that comes and goes must not use up the project's API
/// calls.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// After a pass that panicked, or that does not say when it wants the next one.
const PANIC_INTERVAL: Duration = Duration::from_secs(10);
/// How long `end` waits for a running pass.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// While the component is held back; the gateway's pass that ends this requests a cloud pass.
const HELD_BACK_INTERVAL: Duration = Duration::from_secs(3600);

/// A pass in its task. The component is handed back with the outcome.
type Pass = JoinHandle<(Box<Hcloud>, Outcome)>;

/// What happened in the task.
pub(super) enum Event {
    /// A pass is due.
    Due,
    /// A pass ended.
    Done {
        outcome: Outcome,
        /// Whether another one follows at once, because it was requested meanwhile.
        again: bool,
        /// The routes that the networks were seen to have; `None` if the pass panicked.
        seen_routes: Option<SeenRoutes>,
    },
}

/// How soon a pass is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Now: an operator or a new configuration wants it.
    Now,
    /// Soon, but at most one every [`MIN_INTERVAL`]: the site changed.
    Soon,
}

/// The cloud's component and its schedule.
pub(super) struct CloudTask {
    /// Where the component remembers its routes.
    state_directory: PathBuf,
    state: State,
    started: Option<Instant>,
    due: Instant,
}

enum State {
    Idle(Box<Hcloud>),
    Running { pass: Pass, again: bool },
}

impl CloudTask {
    /// Idle, with a pass due at once.
    pub(super) fn new(state_directory: PathBuf) -> Self {
        let hcloud = Box::new(Hcloud::load(&state_directory));
        Self { state_directory, state: State::Idle(hcloud), started: None, due: Instant::now() }
    }

    /// Waits for what happens next. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        let (pass, again) = match &mut self.state {
            State::Idle(_) => {
                sleep_until(self.due).await;
                return Event::Due;
            }
            State::Running { pass, again } => (pass, *again),
        };
        let (seen_routes, hcloud, outcome) = match pass.await {
            Ok((hcloud, outcome)) => (Some(hcloud.seen_routes().clone()), hcloud, outcome),
            Err(error) => {
                let outcome =
                    Outcome::stopped(Problem::new("bug", chain(&error), "this is a bug; the next pass starts afresh"));
                (None, Box::new(Hcloud::load(&self.state_directory)), Outcome { next: Some(PANIC_INTERVAL), ..outcome })
            }
        };
        let pause = if again { Duration::ZERO } else { outcome.next_pass().unwrap_or(PANIC_INTERVAL) };
        self.state = State::Idle(hcloud);
        self.due = Instant::now() + pause;
        Event::Done { outcome, again, seen_routes }
    }

    /// Asks for a pass. If one is running, another one follows it.
    pub(super) fn request(&mut self, urgency: Urgency) {
        match &mut self.state {
            State::Running { again, .. } => *again = true,
            State::Idle(_) => {
                let now = Instant::now();
                let soonest = match (urgency, self.started) {
                    (Urgency::Soon, Some(started)) => (started + MIN_INTERVAL).max(now),
                    _ => now,
                };
                self.due = self.due.min(soonest);
            }
        }
    }

    /// Starts the pass that is due.
    pub(super) fn start(&mut self, config: Config, site: Site) {
        if let State::Idle(hcloud) = &mut self.state {
            let mut hcloud = std::mem::take(hcloud);
            let now = Instant::now();
            self.started = Some(now);
            let pass = tokio::spawn(async move {
                let inputs = Inputs { config: &config, site: &site, tunnel: None, now };
                let outcome = reconcile(&mut *hcloud, &inputs).await;
                (hcloud, outcome)
            });
            self.state = State::Running { pass, again: false };
        }
    }

    /// Postpones the pass that is due: the component is held back.
    pub(super) fn postpone(&mut self) {
        self.due = Instant::now() + HELD_BACK_INTERVAL;
    }

    /// Waits for a running pass to end, or gives it up, and returns the component.
    pub(super) async fn end(self) -> Box<Hcloud> {
        match self.state {
            State::Idle(hcloud) => hcloud,
            State::Running { mut pass, .. } => {
                let ended = tokio::time::timeout(END_TIMEOUT, &mut pass).await;
                pass.abort();
                let ended = ended.ok().and_then(Result::ok).map(|(hcloud, _)| hcloud);
                ended.unwrap_or_else(|| Box::new(Hcloud::load(&self.state_directory)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    async fn next_due(task: &mut CloudTask) -> Duration {
        let start = Instant::now();
        assert!(matches!(task.event().await, Event::Due));
        start.elapsed()
    }

    /// Starts a pass that asks no API.
    fn start(task: &mut CloudTask) {
        let config = config::parse("[hcloud]\nenabled = false", &config::Environment::default()).unwrap();
        task.start(config, Site::default());
    }

    /// Runs one; whether another one follows at once.
    async fn run(task: &mut CloudTask) -> bool {
        start(task);
        matches!(task.event().await, Event::Done { again: true, .. })
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_changes_often_costs_a_pass_every_five_seconds() {
        let mut task = CloudTask::new(PathBuf::from("/nonexistent"));
        assert_eq!(next_due(&mut task).await, Duration::ZERO);
        run(&mut task).await;
        for _ in 0..10 {
            task.request(Urgency::Soon);
        }
        assert_eq!(next_due(&mut task).await, MIN_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_an_operator_asks_for_starts_at_once() {
        let mut task = CloudTask::new(PathBuf::from("/nonexistent"));
        run(&mut task).await;
        task.request(Urgency::Now);
        assert_eq!(next_due(&mut task).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_during_a_pass_is_followed_by_another_pass() {
        let mut task = CloudTask::new(PathBuf::from("/nonexistent"));
        start(&mut task);
        task.request(Urgency::Soon);
        assert!(matches!(task.event().await, Event::Done { again: true, .. }));
        assert_eq!(next_due(&mut task).await, Duration::ZERO);
        assert!(!run(&mut task).await);
    }
}
