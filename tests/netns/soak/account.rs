//! The comparison of what private hosts saw with what the daemon said, and its result.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// For longer than this no path may be called ok while it is dead, or lost while it works.
const LIMIT: Duration = Duration::from_secs(10);
/// How exactly times are compared.
const STEP: Duration = Duration::from_millis(100);
/// So many questions in a row without an answer are an outage; fewer may be a busy machine.
const OUTAGE: usize = 3;

/// What the daemon says about a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// All its paths are ok.
    Ok,
    /// A path is lost.
    Lost,
    /// Neither: a path is unproven, or there are no paths.
    Unknown,
}

/// What was seen of one network, by time.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// When a private host asked, and whether it was answered.
    pub answered: Vec<(Duration, bool)>,
    /// What the daemon said, and about which paths.
    pub said: Vec<(Duration, Said, String)>,
}

/// A fault that came and went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Episode {
    pub kind: &'static str,
    pub begin: Duration,
}

/// How long the daemon was wrong in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Error {
    begin: Duration,
    lasted: Duration,
    said: Said,
    detail: String,
}

impl Timeline {
    /// Whether every question was answered and every look found all paths ok for this long.
    pub(super) fn is_calm(&self, now: Duration, long: Duration) -> bool {
        let since = now.saturating_sub(long);
        let mut said = self.said.iter().rev().take_while(|(at, ..)| *at >= since).peekable();
        let mut answered = self.answered.iter().rev().take_while(|(at, _)| *at >= since).peekable();
        now >= long
            && said.peek().is_some()
            && answered.peek().is_some()
            && said.all(|(_, said, _)| *said == Said::Ok)
            && answered.all(|(_, answered)| *answered)
    }

    pub(super) fn last(&self) -> String {
        format!("{:?}, {:?}", self.answered.last(), self.said.last())
    }

    /// From when to when the host was cut off.
    fn outages(&self) -> Vec<(Duration, Duration)> {
        let mut outages = Vec::new();
        let mut run: Vec<Duration> = Vec::new();
        for (at, answered) in &self.answered {
            if !answered {
                run.push(*at);
                continue;
            }
            if run.len() >= OUTAGE {
                outages.push((run[0], *at));
            }
            run.clear();
        }
        if run.len() >= OUTAGE {
            outages.extend(run.first().copied().zip(run.last().copied()));
        }
        outages
    }

    fn said_at(&self, at: Duration) -> Option<&(Duration, Said, String)> {
        let after = self.said.partition_point(|(when, ..)| *when <= at);
        self.said.get(after.checked_sub(1)?)
    }

    /// The times in which the daemon said the opposite of what the host saw.
    fn errors(&self) -> Vec<Error> {
        let outages = self.outages();
        let end = self.answered.last().map_or(Duration::ZERO, |(at, _)| *at);
        let mut errors: Vec<Error> = Vec::new();
        let (mut at, mut current): (Duration, Option<Error>) = (Duration::ZERO, None);
        while at <= end {
            let is_dead = outages.iter().any(|(begin, end)| (*begin..*end).contains(&at));
            let wrong = if is_dead { Said::Ok } else { Said::Lost };
            let said = self.said_at(at).filter(|(_, said, _)| *said == wrong);
            current = match (current.take(), said) {
                (Some(error), Some((_, said, _))) if error.said == *said => {
                    Some(Error { lasted: (at + STEP).saturating_sub(error.begin), ..error })
                }
                (before, said) => {
                    errors.extend(before);
                    said.map(|(_, said, detail)| Error { begin: at, lasted: STEP, said: *said, detail: detail.clone() })
                }
            };
            at += STEP;
        }
        errors.extend(current);
        errors
    }
}

/// What is counted of one kind of fault.
#[derive(Debug, Default)]
struct Counts {
    faults: u32,
    outages: u32,
    ok_while_dead: Duration,
    lost_while_well: Duration,
}

/// The result of all worlds.
#[derive(Debug, Default)]
pub(super) struct Account {
    kinds: BTreeMap<&'static str, Counts>,
    violations: Vec<String>,
}

impl Account {
    /// Adds what happened in one world.
    pub(super) fn add(&mut self, episodes: &[Episode], timelines: &[Timeline]) {
        for episode in episodes {
            self.kinds.entry(episode.kind).or_default().faults += 1;
        }
        // What happens after a fault has ended is still of its making.
        let kind_at = |at: Duration| {
            let begun = episodes.iter().rev().find(|episode| episode.begin <= at + Duration::from_secs(1));
            begun.map_or("no fault", |episode| episode.kind)
        };
        for (network, timeline) in timelines.iter().enumerate() {
            for (begin, _) in timeline.outages() {
                self.kinds.entry(kind_at(begin)).or_default().outages += 1;
            }
            for error in timeline.errors() {
                let kind = kind_at(error.begin);
                let counts = self.kinds.entry(kind).or_default();
                let worst = match error.said {
                    Said::Ok => &mut counts.ok_while_dead,
                    _ => &mut counts.lost_while_well,
                };
                *worst = (*worst).max(error.lasted);
                if error.lasted > LIMIT {
                    let Error { lasted, said, detail, .. } = error;
                    self.violations
                        .push(format!("network {network}, {kind}: wrongly {said:?} for {lasted:?} {detail}"));
                }
            }
        }
    }

    /// What broke the law.
    pub(super) fn violations(&self) -> &[String] {
        &self.violations
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<58} {:>6} {:>7} {:>13} {:>15}",
            "FAULT", "COUNT", "OUTAGES", "OK WHILE DEAD", "LOST WHILE WELL"
        )?;
        let seconds = |time: &Duration| format!("{:.1} s", time.as_secs_f64());
        for (kind, Counts { faults, outages, ok_while_dead, lost_while_well }) in &self.kinds {
            let (dead, well) = (seconds(ok_while_dead), seconds(lost_while_well));
            writeln!(f, "{kind:<58} {faults:>6} {outages:>7} {dead:>13} {well:>15}")?;
        }
        let all = || self.kinds.values();
        let worst = |time: fn(&Counts) -> Duration| seconds(&all().map(time).max().unwrap_or_default());
        let (faults, outages): (u32, u32) = (all().map(|it| it.faults).sum(), all().map(|it| it.outages).sum());
        let (dead, well) = (worst(|it| it.ok_while_dead), worst(|it| it.lost_while_well));
        writeln!(f, "{:<58} {faults:>6} {outages:>7} {dead:>13} {well:>15}", "all")?;
        write!(f, "{} of them broke the limit of {LIMIT:?}", self.violations.len())
    }
}
