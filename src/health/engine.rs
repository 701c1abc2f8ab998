//! When which path is probed, and what follows from the results. A pure state machine: the time is passed in.
//!
//! One probe of a path is a round: it asks each target of the path until one answers, and ends as [`Outcome::Passed`]
//! or [`Outcome::Missed`]. A path is lost after [`MISSES`] missed rounds in a row. After the first missed one the
//! rounds follow each other faster, so a path that dies is called lost within
//! [`INTERVAL`] + [`MISSES`] × [`RETRY_INTERVAL`].
//!
//! There may be hundreds of addresses, each with a path. Such paths take turns: one round begins every [`TURN`] at
//! most, of the path that has waited longest, and first of those that missed their last round. So however many they
//! are, and whatever happens to them, the packets in an hour are bounded; with [`PROMPT_TURNS`] of them or fewer, none
//! is lost for longer than ten seconds unnoticed.

use std::collections::{BTreeMap, BTreeSet};
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
/// Between the beginnings of two rounds of paths that take turns.
pub const TURN: Duration = Duration::from_millis(250);
/// So many paths that take turns are noticed to be lost within ten seconds.
pub const PROMPT_TURNS: usize = 20;
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
    /// Whether it is one of many: its rounds are spread ([`TURN`]).
    pub takes_turns: bool,
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
    /// When the newest round of a path that takes turns began.
    last_turn: Option<Instant>,
}

/// See [`WantedPath::takes_turns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turns {
    Takes,
    Ignores,
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
    turns: Turns,
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
        Self { paths: BTreeMap::new(), proven, last_turn: None }
    }

    /// Replaces the list of paths. A path that stays keeps its state; a new one is probed at once.
    pub fn follow(&mut self, wanted: &[WantedPath], now: Now) {
        let stays: BTreeSet<&Path> = wanted.iter().map(|wanted| &wanted.path).collect();
        self.paths.retain(|path, _| stays.contains(path));
        for WantedPath { path, cannot, is_expected, takes_turns } in wanted {
            let tracked = self.paths.entry(path.clone()).or_insert_with(|| Tracked::new(now));
            let turns = if *takes_turns { Turns::Takes } else { Turns::Ignores };
            (tracked.is_expected, tracked.turns) = (*is_expected, turns);
            match cannot {
                Some(reason) => {
                    tracked.enter(PathState::Cannot, now);
                    tracked.detail.clone_from(reason);
                    tracked.is_forbidden = true;
                    tracked.due = None;
                }
                None if tracked.is_forbidden => {
                    *tracked = Tracked { is_expected: *is_expected, turns, ..Tracked::new(now) };
                }
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
        let due = |takes_turns: bool| {
            let paths = self.paths.values().filter(move |tracked| tracked.takes_turns() == takes_turns);
            paths.filter_map(|tracked| tracked.due).min()
        };
        let turn = due(true).map(|due| self.next_turn().map_or(due, |turn| due.max(turn)));
        due(false).into_iter().chain(turn).min()
    }

    /// When the next round of a path that takes turns may begin; `None`: at any time.
    fn next_turn(&self) -> Option<Instant> {
        self.last_turn.map(|last| last + TURN)
    }

    /// The path whose turn it is, if there is one.
    fn in_turn(&self, now: Now) -> Option<Path> {
        if self.next_turn().is_some_and(|turn| turn > now.at) {
            return None;
        }
        let waiting = self.paths.iter().filter(|(_, tracked)| tracked.takes_turns() && tracked.is_due(now));
        let first = waiting.min_by_key(|(_, tracked)| (!tracked.is_suspected(), tracked.started));
        first.map(|(path, _)| path.clone())
    }

    /// The paths whose round begins now. Each must be [finished](Self::finish) within [`ROUND_TIMEOUT`].
    pub fn start_due(&mut self, now: Now) -> Vec<Path> {
        let in_turn = self.in_turn(now);
        if in_turn.is_some() {
            self.last_turn = Some(now.at);
        }
        let begins = |path: &Path, tracked: &Tracked| {
            if tracked.takes_turns() { in_turn.as_ref() == Some(path) } else { tracked.is_due(now) }
        };
        let due = self.paths.iter_mut().filter(|(path, tracked)| begins(path, tracked));
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
            turns: Turns::Ignores,
            is_forbidden: false,
            started: None,
            due: Some(now.at),
            again: false,
        }
    }

    fn takes_turns(&self) -> bool {
        self.turns == Turns::Takes
    }

    fn is_due(&self, now: Now) -> bool {
        self.due.is_some_and(|due| due <= now.at)
    }

    /// Whether it missed its newest round and is not known to be lost yet.
    fn is_suspected(&self) -> bool {
        (1..MISSES).contains(&self.misses)
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
        let pause = if self.is_suspected() || self.again { RETRY_INTERVAL } else { INTERVAL };
        self.due = Some(self.started.map_or(now.at, |started| now.at.max(started + pause)));
        self.again = false;
    }
}

#[cfg(test)]
mod tests;
