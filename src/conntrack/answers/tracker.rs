//! What the reads say about each forward and static address. Pure.
//!
//! A flow counts as unanswered when two reads in succession find it so. Flows that were answered may be old: a
//! connection of yesterday stays in the table although its host is down now. So only one that began after the first
//! suspicion proves that the host answers; while old ones are there, silence is believed after five minutes, and
//! without any at once.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::redirects::Target;

/// How long an unanswered flow counts, and an answer excuses others.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// From so many unanswered flows on, silence is believed.
const ENOUGH: u64 = 3;

/// What is known about a target that has unanswered flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Finding {
    pub target: Target,
    /// Unanswered flows of the last five minutes.
    pub unanswered: u64,
    /// Whether a flow that began meanwhile was answered.
    pub is_answered: bool,
    /// Whether the host answers nothing.
    pub is_silent: bool,
}

/// What is remembered from read to read.
#[derive(Debug, Default)]
pub(in super::super) struct Tracker {
    /// The flows that the last read found unanswered, by the kernel's number; whether they are counted already.
    waiting: HashMap<u32, bool>,
    records: BTreeMap<Target, Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// When unanswered flows were counted, and how many.
    unanswered: VecDeque<(Instant, u64)>,
    /// When the answered flows were looked at first.
    suspected: Option<Instant>,
    /// When they were looked at last.
    looked: Option<Instant>,
    /// Those that were there then.
    answered: HashSet<u32>,
    /// When one that had begun since was found.
    answered_at: Option<Instant>,
    is_silent: bool,
}

impl Record {
    fn count(&self) -> u64 {
        self.unanswered.iter().map(|(_, count)| count).sum()
    }

    fn is_answered(&self, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| now.saturating_duration_since(at) < WINDOW)
    }
}

impl Tracker {
    /// Takes over the flows that a read found unanswered.
    pub(super) fn note_unanswered(&mut self, found: Vec<(u32, Target)>, now: Instant) {
        let before = std::mem::take(&mut self.waiting);
        let mut counts: BTreeMap<Target, u64> = BTreeMap::new();
        for (id, target) in found {
            let counted = before.get(&id).copied();
            if counted == Some(false) {
                *counts.entry(target).or_default() += 1;
            }
            self.waiting.insert(id, counted.is_some());
        }
        for (target, count) in counts {
            self.records.entry(target).or_default().unanswered.push_back((now, count));
        }
        self.records.retain(|_, record| {
            while record.unanswered.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
                record.unanswered.pop_front();
            }
            !record.unanswered.is_empty()
        });
    }

    /// The targets whose answered flows are to be looked at, the one that has waited longest first.
    pub(super) fn suspects(&self) -> Vec<Target> {
        let mut suspects: Vec<(Option<Instant>, Target)> =
            self.records.iter().map(|(target, record)| (record.looked, *target)).collect();
        suspects.sort_unstable();
        suspects.into_iter().map(|(_, target)| target).collect()
    }

    /// Takes over the numbers of a target's answered flows; `None`: there are too many to say anything.
    pub(super) fn note_answered(&mut self, target: Target, answered: Option<HashSet<u32>>, now: Instant) {
        let Some(record) = self.records.get_mut(&target) else { return };
        record.looked = Some(now);
        let Some(answered) = answered else {
            record.is_silent = false;
            return;
        };
        let suspected = *record.suspected.get_or_insert(now);
        if suspected != now && answered.iter().any(|id| !record.answered.contains(id)) {
            record.answered_at = Some(now);
        }
        let is_old = now.saturating_duration_since(suspected) >= WINDOW;
        record.is_silent = record.count() >= ENOUGH && !record.is_answered(now) && (answered.is_empty() || is_old);
        record.answered = answered;
    }

    /// Whether flows wait for an answer, or have waited in vain.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty() || !self.records.is_empty()
    }

    /// What is known now.
    pub(super) fn findings(&self, now: Instant) -> Vec<Finding> {
        let finding = |(target, record): (&Target, &Record)| Finding {
            target: *target,
            unanswered: record.count(),
            is_answered: record.is_answered(now),
            is_silent: record.is_silent,
        };
        self.records.iter().map(finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::redirects::Redirect;
    use super::*;

    const WEB: Target = Target { redirect: Redirect::Forward(0), protocol: 6, is_named: true };
    const MAIL: Target = Target { redirect: Redirect::Forward(1), protocol: 6, is_named: true };

    /// Reads every 10 s, with the unanswered flows of web and the answered ones of both.
    struct Reads {
        tracker: Tracker,
        now: Instant,
    }

    impl Reads {
        fn new() -> Self {
            Self { tracker: Tracker::default(), now: Instant::now() }
        }

        fn read(&mut self, unanswered: &[u32], answered: &[u32]) -> Option<Finding> {
            self.now += Duration::from_secs(10);
            self.tracker.note_unanswered(unanswered.iter().map(|id| (*id, WEB)).collect(), self.now);
            for target in self.tracker.suspects() {
                self.tracker.note_answered(target, Some(answered.iter().copied().collect()), self.now);
            }
            self.tracker.findings(self.now).into_iter().find(|finding| finding.target == WEB)
        }
    }

    fn finding(unanswered: u64, is_answered: bool, is_silent: bool) -> Finding {
        Finding { target: WEB, unanswered, is_answered, is_silent }
    }

    #[test]
    fn a_host_is_silent_when_three_flows_wait_in_two_reads_and_none_is_answered() {
        let mut reads = Reads::new();
        assert_eq!(reads.read(&[1, 2], &[]), None);
        assert_eq!(reads.read(&[1, 2, 3], &[]), Some(finding(2, false, false)));
        assert_eq!(reads.read(&[2, 3], &[]), Some(finding(3, false, true)));
        assert!(reads.tracker.waits());
    }

    #[test]
    fn flows_that_are_answered_between_two_reads_are_never_counted() {
        let mut reads = Reads::new();
        for round in 0..40 {
            assert_eq!(reads.read(&[4 * round, 4 * round + 1, 4 * round + 2], &[7000 + round]), None);
        }
    }

    #[test]
    fn an_answer_to_a_flow_that_began_since_ends_the_silence_and_excuses_others_for_five_minutes() {
        let mut reads = Reads::new();
        reads.read(&[1, 2, 3], &[]);
        assert_eq!(reads.read(&[1, 2, 3], &[]), Some(finding(3, false, true)));
        assert_eq!(reads.read(&[4, 5, 6], &[9]), Some(finding(3, true, false)));
        assert_eq!(reads.read(&[4, 5, 6], &[]), Some(finding(6, true, false)));
        for _ in 0..27 {
            assert_eq!(reads.read(&[], &[]).map(|finding| finding.is_silent), Some(false));
        }
        // The first three no longer count, and the others only for a moment.
        assert_eq!(reads.read(&[], &[]), Some(finding(3, true, false)));
        assert_eq!(reads.read(&[], &[]), Some(finding(3, false, true)));
        assert_eq!(reads.read(&[], &[]), None);
        assert!(!reads.tracker.waits());
    }

    #[test]
    fn connections_from_before_do_not_prove_that_a_host_answers_and_only_delay_the_verdict() {
        let mut reads = Reads::new();
        reads.read(&[1, 2, 3], &[100, 101]);
        for round in 0..30 {
            let ids = [3 * round + 1, 3 * round + 2, 3 * round + 3, 3 * round + 4, 3 * round + 5, 3 * round + 6];
            let found = reads.read(&ids, &[100, 101]).unwrap();
            assert!(!found.is_silent && !found.is_answered, "{round}: {found:?}");
        }
        let found = reads.read(&[91, 92, 93, 94], &[100]).unwrap();
        assert!(found.is_silent, "{found:?}");
    }

    #[test]
    fn a_forward_that_is_too_busy_to_look_at_is_not_silent_and_others_have_their_turn() {
        let mut reads = Reads::new();
        reads.read(&[1, 2, 3], &[]);
        reads.read(&[1, 2, 3], &[]);
        reads.tracker.note_answered(WEB, None, reads.now);
        assert_eq!(reads.tracker.findings(reads.now), [finding(3, false, false)]);
        for _ in 0..2 {
            reads.tracker.note_unanswered(vec![(50, MAIL)], reads.now);
        }
        assert_eq!(reads.tracker.suspects(), [MAIL, WEB]);
    }
}
