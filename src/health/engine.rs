//! When which path is probed, and what follows from the results. A pure state machine: the time is passed in.
//!
//! One probe of a path is a round: it asks each target of the path until one answers, and ends as [`Outcome::Passed`]
//! or [`Outcome::Missed`]. A path is lost after [`MISSES`] missed rounds in a row. After the first missed one the
//! rounds follow each other faster, so a path that dies is called lost within
//! [`INTERVAL`] + [`MISSES`] × [`RETRY_INTERVAL`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::memory::Proven;
use super::path::{Path, PathReport, PathState};
use crate::net::ServerId;

/// Between the beginnings of two rounds of a path.
pub const INTERVAL: Duration = Duration::from_secs(3);
/// Between the beginnings of two rounds of a path that missed the last one and is not lost yet; also the least time
/// between two rounds that changes ask for.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a round may take. Shorter than [`RETRY_INTERVAL`], so that rounds of one path never overlap.
pub const ROUND_TIMEOUT: Duration = Duration::from_millis(950);
/// How many rounds in a row are missed before a path is lost.
pub const MISSES: u32 = 3;

/// A point in time, on the clock that measures and on the one that operators read.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals.
    pub at: Instant,
    /// Seconds since 1970-01-01 UTC, for reports.
    pub unix: u64,
}

/// How a round of a path ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A target answered.
    Passed {
        /// How long the answer took.
        round_trip: Duration,
        /// What else was noticed, such as another target that does not answer; may be empty.
        note: String,
    },
    /// No target answered, or the answers prove that packets took another way.
    Missed {
        /// What is known about the reason; a hint, never more.
        reason: String,
    },
    /// Nothing could be sent, so nothing is known about the path.
    Cannot {
        /// Why.
        reason: String,
    },
}

/// A path that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedPath {
    /// The path.
    pub path: Path,
    /// Why nothing can be sent on it, if so.
    pub cannot: Option<String>,
    /// Whether its probes should come back, once one did. Otherwise a missed path is never more than unproven.
    pub is_expected: bool,
}

/// What a change of a path's state was, for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: Path,
    /// Its state before.
    pub from: PathState,
    /// Its state now.
    pub to: PathState,
    /// Why.
    pub detail: String,
}

/// All paths that are probed.
#[derive(Debug)]
pub struct Engine {
    paths: BTreeMap<Path, Tracked>,
    proven: Proven,
}

#[derive(Debug)]
struct Tracked {
    state: PathState,
    since_unix: u64,
    round_trip: Option<Duration>,
    detail: String,
    /// Missed rounds in a row.
    misses: u32,
    /// See [`WantedPath::is_expected`].
    is_expected: bool,
    /// Whether nothing is to be sent.
    is_forbidden: bool,
    /// When the newest round began.
    started: Option<Instant>,
    /// When the next round is due; `None` while one runs, or if nothing can be sent.
    due: Option<Instant>,
    /// Whether another round is to follow the one that runs as soon as possible: something changed meanwhile.
    again: bool,
}

impl Engine {
    /// An engine without paths. `proven`: the paths that have passed on this server.
    pub fn new(proven: Proven) -> Self {
        Self { paths: BTreeMap::new(), proven }
    }

    /// Replaces the list of paths. A path that stays keeps its state; a new one is probed at once.
    pub fn follow(&mut self, wanted: &[WantedPath], now: Now) {
        self.paths.retain(|path, _| wanted.iter().any(|wanted| wanted.path == *path));
        for WantedPath { path, cannot, is_expected } in wanted {
            let tracked = self.paths.entry(path.clone()).or_insert_with(|| Tracked::new(now));
            tracked.is_expected = *is_expected;
            match cannot {
                Some(reason) => {
                    tracked.enter(PathState::Cannot, now);
                    tracked.detail.clone_from(reason);
                    tracked.is_forbidden = true;
                    tracked.due = None;
                }
                None if tracked.is_forbidden => *tracked = Tracked { is_expected: *is_expected, ..Tracked::new(now) },
                None => {}
            }
        }
    }

    /// Begins a round of each path at once, as if none ran: those that did run were given up.
    pub fn restart(&mut self, wanted: &[WantedPath], now: Now) {
        self.follow(wanted, now);
        for tracked in self.paths.values_mut().filter(|tracked| !tracked.is_forbidden) {
            tracked.due = Some(now.at);
        }
    }

    /// Something changed that may matter to every path: each is probed as soon as [`RETRY_INTERVAL`] allows.
    pub fn probe_soon(&mut self, now: Now) {
        for tracked in self.paths.values_mut().filter(|tracked| !tracked.is_forbidden) {
            match &mut tracked.due {
                Some(due) => *due = (*due).min(tracked.started.map_or(now.at, |at| now.at.max(at + RETRY_INTERVAL))),
                None => tracked.again = true,
            }
        }
    }

    /// When the next round is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.paths.values().filter_map(|tracked| tracked.due).min()
    }

    /// The paths whose round begins now. Each must be [finished](Self::finish) within [`ROUND_TIMEOUT`].
    pub fn start_due(&mut self, now: Now) -> Vec<Path> {
        let is_due = |tracked: &Tracked| tracked.due.is_some_and(|due| due <= now.at);
        let due = self.paths.iter_mut().filter(|(_, tracked)| is_due(tracked));
        let start = |(path, tracked): (&Path, &mut Tracked)| {
            tracked.due = None;
            tracked.started = Some(now.at);
            tracked.again = false;
            path.clone()
        };
        due.map(start).collect()
    }

    /// Takes the result of a round; the change of the path's state, if there is one. Results of paths that are not
    /// followed any more are ignored.
    pub fn finish(&mut self, path: &Path, outcome: Outcome, now: Now) -> Option<Change> {
        let tracked = self.paths.get_mut(path).filter(|tracked| !tracked.is_forbidden)?;
        let before = tracked.state;
        match outcome {
            Outcome::Passed { round_trip, note } => {
                self.proven.add(path);
                tracked.misses = 0;
                tracked.round_trip = Some(round_trip);
                tracked.detail = note;
                tracked.enter(PathState::Ok, now);
            }
            Outcome::Missed { reason } => {
                tracked.misses = tracked.misses.saturating_add(1);
                if tracked.misses >= MISSES {
                    let is_proven = tracked.is_expected && self.proven.contains(path);
                    tracked.detail = reason;
                    tracked.enter(if is_proven { PathState::Lost } else { PathState::Unproven }, now);
                }
            }
            Outcome::Cannot { reason } => {
                tracked.misses = 0;
                tracked.detail = reason;
                tracked.enter(PathState::Cannot, now);
            }
        }
        tracked.schedule(now);
        let change = Change { path: path.clone(), from: before, to: tracked.state, detail: tracked.detail.clone() };
        (change.from != change.to).then_some(change)
    }

    /// Says which server this is, once that is known.
    pub fn set_server(&mut self, server: Option<ServerId>) {
        self.proven = std::mem::take(&mut self.proven).on(server);
    }

    /// The paths that have passed on this server.
    pub fn proven(&self) -> &Proven {
        &self.proven
    }

    /// What is known about each path.
    pub fn reports(&self) -> Vec<PathReport> {
        let report = |(path, tracked): (&Path, &Tracked)| PathReport {
            path: path.clone(),
            state: tracked.state,
            since_unix: tracked.since_unix,
            round_trip_us: tracked.round_trip.and_then(|round_trip| u64::try_from(round_trip.as_micros()).ok()),
            detail: tracked.detail.clone(),
        };
        self.paths.iter().map(report).collect()
    }
}

impl Tracked {
    /// A path that nothing is known about; its first round is due at once.
    fn new(now: Now) -> Self {
        Self {
            state: PathState::Unproven,
            since_unix: now.unix,
            round_trip: None,
            detail: String::new(),
            misses: 0,
            is_expected: true,
            is_forbidden: false,
            started: None,
            due: Some(now.at),
            again: false,
        }
    }

    fn enter(&mut self, state: PathState, now: Now) {
        if self.state != state {
            self.state = state;
            self.since_unix = now.unix;
        }
        if state != PathState::Ok {
            self.round_trip = None;
        }
    }

    fn schedule(&mut self, now: Now) {
        let is_suspected = (1..MISSES).contains(&self.misses);
        let pause = if is_suspected || self.again { RETRY_INTERVAL } else { INTERVAL };
        self.due = Some(self.started.map_or(now.at, |started| now.at.max(started + pause)));
        self.again = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path::Nat { network: "10.0.0.0/16".parse().unwrap(), egress: Some("198.51.100.2".parse().unwrap()) }
    }

    fn wanted(cannot: Option<&str>) -> Vec<WantedPath> {
        vec![WantedPath { path: path(), cannot: cannot.map(str::to_owned), is_expected: true }]
    }

    fn passed() -> Outcome {
        Outcome::Passed { round_trip: Duration::from_micros(400), note: String::new() }
    }

    fn missed() -> Outcome {
        Outcome::Missed { reason: "no answer".to_owned() }
    }

    /// An engine with one path, and a clock.
    struct Bench {
        engine: Engine,
        start: Instant,
        now: Now,
    }

    impl Bench {
        fn new(proven: Proven) -> Self {
            let start = Instant::now();
            let now = Now { at: start, unix: 1000 };
            let mut engine = Engine::new(proven);
            engine.follow(&wanted(None), now);
            Self { engine, start, now }
        }

        /// Waits for the next round, which takes `takes`; what changed, and how many milliseconds after the start.
        fn round(&mut self, outcome: Outcome, takes: Duration) -> (Option<Change>, u128) {
            self.wait(self.engine.next_due().unwrap());
            assert_eq!(self.engine.start_due(self.now), [path()]);
            assert_eq!(self.engine.next_due(), None, "no second round begins while one runs");
            self.wait(self.now.at + takes);
            (self.engine.finish(&path(), outcome, self.now), self.now.at.duration_since(self.start).as_millis())
        }

        fn wait(&mut self, until: Instant) {
            self.now.at = self.now.at.max(until);
            self.now.unix = 1000 + self.now.at.duration_since(self.start).as_secs();
        }

        fn state(&self) -> (PathState, u64) {
            let report = &self.engine.reports()[0];
            (report.state, report.since_unix)
        }
    }

    const QUICK: Duration = Duration::from_millis(1);

    #[test]
    fn a_path_that_dies_is_lost_after_three_misses_and_within_seven_seconds() {
        let mut bench = Bench::new(Proven::default());
        assert_eq!(bench.round(passed(), QUICK).0.map(|change| change.to), Some(PathState::Ok));
        // The path dies right after a round that passed.
        let died = bench.now.at;
        assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0, None);
        assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0, None);
        let (change, _) = bench.round(missed(), ROUND_TIMEOUT);
        let change = change.unwrap();
        assert_eq!((change.from, change.to, change.detail.as_str()), (PathState::Ok, PathState::Lost, "no answer"));
        assert!(bench.now.at.duration_since(died) < Duration::from_secs(7));
        assert_eq!(bench.engine.reports()[0].round_trip_us, None);
    }

    #[test]
    fn two_misses_and_a_pass_change_nothing() {
        let mut bench = Bench::new(Proven::default());
        bench.round(passed(), QUICK);
        for _ in 0..5 {
            for outcome in [missed(), missed(), passed()] {
                assert_eq!(bench.round(outcome, ROUND_TIMEOUT).0, None);
            }
        }
        assert_eq!(bench.state(), (PathState::Ok, 1000));
    }

    #[test]
    fn a_path_that_lives_again_is_ok_within_one_interval() {
        let mut bench = Bench::new(Proven::default());
        bench.round(passed(), QUICK);
        for _ in 0..10 {
            bench.round(missed(), ROUND_TIMEOUT);
        }
        let lives = bench.now.at;
        let (change, _) = bench.round(passed(), QUICK);
        assert_eq!(change.map(|change| (change.from, change.to)), Some((PathState::Lost, PathState::Ok)));
        assert!(bench.now.at.duration_since(lives) <= INTERVAL);
    }

    #[test]
    fn a_path_that_never_passed_is_unproven_and_one_that_passed_in_an_earlier_life_is_lost() {
        let mut bench = Bench::new(Proven::default());
        for _ in 0..10 {
            assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0, None);
        }
        assert_eq!(bench.state(), (PathState::Unproven, 1000));
        assert_eq!(bench.engine.reports()[0].detail, "no answer");
        let mut proven = Proven::default();
        proven.add(&path());
        let mut bench = Bench::new(proven);
        assert_eq!(bench.state().0, PathState::Unproven);
        let changes: Vec<_> = (0..4).filter_map(|_| bench.round(missed(), ROUND_TIMEOUT).0).collect();
        assert_eq!(changes.len(), 1);
        assert_eq!((changes[0].from, changes[0].to), (PathState::Unproven, PathState::Lost));
    }

    #[test]
    fn a_path_that_is_not_expected_to_pass_is_ok_or_unproven() {
        let mut bench = Bench::new(Proven::default());
        bench.round(passed(), QUICK);
        let unexpected = wanted(None).into_iter().map(|path| WantedPath { is_expected: false, ..path });
        bench.engine.follow(&unexpected.collect::<Vec<_>>(), bench.now);
        let changes: Vec<_> = (0..5).filter_map(|_| bench.round(missed(), ROUND_TIMEOUT).0).collect();
        assert_eq!(changes.iter().map(|change| change.to).collect::<Vec<_>>(), [PathState::Unproven]);
        bench.engine.follow(&wanted(None), bench.now);
        assert_eq!(bench.round(missed(), ROUND_TIMEOUT).0.map(|change| change.to), Some(PathState::Lost));
    }

    #[test]
    fn a_change_brings_the_next_round_forward_but_rounds_stay_a_second_apart() {
        let mut bench = Bench::new(Proven::default());
        bench.round(passed(), QUICK);
        bench.engine.probe_soon(bench.now);
        let (_, first) = bench.round(passed(), QUICK);
        assert_eq!(first, 1001);
        // Many changes while a round runs: one more round.
        bench.wait(bench.engine.next_due().unwrap());
        bench.engine.start_due(bench.now);
        for _ in 0..100 {
            bench.engine.probe_soon(bench.now);
        }
        bench.engine.finish(&path(), passed(), bench.now);
        assert_eq!(bench.engine.next_due().unwrap().duration_since(bench.now.at), RETRY_INTERVAL);
        // A path that was quiet for a while is probed at once.
        bench.round(passed(), QUICK);
        bench.wait(bench.now.at + RETRY_INTERVAL * 2);
        bench.engine.probe_soon(bench.now);
        assert_eq!(bench.engine.next_due(), Some(bench.now.at));
    }

    #[test]
    fn an_hour_of_constant_changes_costs_at_most_3600_rounds() {
        let mut bench = Bench::new(Proven::default());
        let mut rounds = 0;
        while bench.now.at.duration_since(bench.start) < Duration::from_secs(3600) {
            bench.engine.probe_soon(bench.now);
            bench.round(if rounds % 2 == 0 { missed() } else { passed() }, QUICK);
            rounds += 1;
        }
        assert!(rounds <= 3601, "{rounds}");
    }

    #[test]
    fn a_path_on_which_nothing_can_be_sent_is_not_probed_until_that_ends() {
        let mut bench = Bench::new(Proven::default());
        bench.round(passed(), QUICK);
        bench.engine.follow(&wanted(Some("the list forbids it")), bench.now);
        assert_eq!((bench.state().0, bench.engine.next_due()), (PathState::Cannot, None));
        bench.engine.probe_soon(bench.now);
        assert_eq!(bench.engine.next_due(), None);
        assert_eq!(bench.engine.finish(&path(), missed(), bench.now), None, "a late result");
        bench.engine.follow(&wanted(None), bench.now);
        assert_eq!((bench.state().0, bench.engine.next_due()), (PathState::Unproven, Some(bench.now.at)));
    }

    #[test]
    fn a_round_that_could_send_nothing_says_nothing_about_the_path_and_is_tried_again() {
        let mut bench = Bench::new(Proven::default());
        bench.round(passed(), QUICK);
        let cannot = Outcome::Cannot { reason: "no interface".to_owned() };
        let (change, _) = bench.round(cannot, QUICK);
        assert_eq!(change.map(|change| change.to), Some(PathState::Cannot));
        bench.engine.follow(&wanted(None), bench.now);
        let (change, _) = bench.round(passed(), QUICK);
        assert_eq!(change.map(|change| (change.from, change.to)), Some((PathState::Cannot, PathState::Ok)));
    }

    #[test]
    fn a_path_that_goes_is_forgotten_and_one_that_stays_keeps_its_state() {
        let mut bench = Bench::new(Proven::default());
        bench.round(passed(), QUICK);
        bench.wait(bench.now.at + Duration::from_secs(2));
        bench.engine.follow(&wanted(None), bench.now);
        assert_eq!(bench.state(), (PathState::Ok, 1000));
        bench.engine.follow(&[], bench.now);
        assert_eq!(bench.engine.reports(), []);
        assert_eq!(bench.engine.finish(&path(), passed(), bench.now), None);
    }
}
