//! Whether hosts answer the flows that forwards and static addresses lead to them.
//!
//! A host without a way back, one that is down and one that drops packets look alike from here: the kernel's entries of
//! their flows never see an answer. So the entries are looked at now and then, beside the passes. The kernel selects
//! them by their status: of a table in which everything is answered it sends none. Only where flows are unanswered are
//! the answered ones of the same forward looked at too. Without forwards and static addresses nothing is read.

mod read;
mod redirects;
mod tracker;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use super::model::TCP;
use super::policy::{Forward, Policy, Static};
use crate::config::{Config, protocol_name};
use crate::error::chain;
use crate::outcome::Problem;
pub(super) use redirects::{Redirect, Redirects, Target};
use tracker::{Finding, Tracker};

/// The time between two reads while flows wait for answers; otherwise the passes are rarer.
const INTERVAL: Duration = Duration::from_secs(10);
/// A read is repeated after this many times its own duration at the earliest: reading costs a hundredth of a core.
const PAUSE_FACTOR: u32 = 100;
/// How long a pass waits for a read. It goes on beside the passes afterwards.
const PATIENCE: Duration = Duration::from_millis(100);
/// How many forwards the status lists.
const LISTED: usize = 10;

/// A forward or a static address with flows that the host did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnansweredForward {
    /// How messages call it: `nat.forward "web"`.
    pub name: String,
    /// What leads where: `tcp 443 to 10.0.0.4`.
    pub path: String,
    /// Flows of the last five minutes without an answer.
    pub unanswered: u64,
    /// Whether other flows of it were answered meanwhile.
    pub others_answered: bool,
    /// Whether it is a problem: TCP, of single ports, and nothing is answered.
    pub is_problem: bool,
}

/// What is read, what is remembered from read to read, and what follows from it.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The forwards and static addresses that `tracker` is about.
    redirects: (Vec<Forward>, Vec<Static>),
    /// `None` while a read has it.
    tracker: Option<Tracker>,
    reading: Option<JoinHandle<(Tracker, Duration)>>,
    due: Option<Instant>,
    /// What the newest read found.
    findings: Vec<Finding>,
}

impl Answers {
    /// Reads the flows if that is due, and takes over what has been read.
    pub(super) async fn update(&mut self, policy: &Policy, config: &Config, now: Instant) {
        if !policy.has_redirects() {
            *self = Self::default();
            return;
        }
        if (&self.redirects.0, &self.redirects.1) != (&policy.forwards, &policy.statics) {
            let redirects = (policy.forwards.clone(), policy.statics.clone());
            *self = Self { redirects, tracker: Some(Tracker::default()), ..Self::default() };
        }
        if self.reading.is_none() && self.due.is_none_or(|due| due <= now) {
            let (mut tracker, policy) = (self.tracker.take().unwrap_or_default(), policy.clone());
            self.reading = Some(spawn_blocking(move || {
                let began = std::time::Instant::now();
                if let Err(error) = read::read(&mut tracker, &Redirects::new(&policy), now) {
                    tracing::debug!(component = "flows", error = %chain(&error), "unanswered flows are not known");
                }
                (tracker, began.elapsed())
            }));
        }
        let Some(reading) = &mut self.reading else { return };
        let Ok(read) = timeout(PATIENCE, reading).await else { return };
        self.reading = None;
        let (tracker, took) = read.unwrap_or_default();
        // A little less, so that a pass after the interval reads.
        self.due = Some(now + (INTERVAL * 9 / 10).max(took * PAUSE_FACTOR));
        let findings = tracker.findings(now);
        self.tell_changes(&findings, config);
        self.findings = findings;
        self.tracker = Some(tracker);
    }

    /// How soon the next read is wanted; `None`: with the next regular pass.
    pub(super) fn next(&self) -> Option<Duration> {
        let waits = self.reading.is_some() || self.tracker.as_ref().is_some_and(Tracker::waits);
        waits.then_some(INTERVAL)
    }

    /// What the status lists, the forwards with the most unanswered flows first.
    pub(super) fn listed(&self, config: &Config) -> Vec<UnansweredForward> {
        let mut findings: Vec<&Finding> = self.findings.iter().filter(|finding| finding.unanswered > 0).collect();
        findings.sort_by_key(|finding| (!finding.is_silent, std::cmp::Reverse(finding.unanswered), finding.target));
        let row = |finding: &Finding| {
            let Named { name, path, .. } = named(finding.target, config)?;
            Some(UnansweredForward {
                name,
                path,
                unanswered: finding.unanswered,
                others_answered: finding.is_answered,
                is_problem: is_problem(finding),
            })
        };
        findings.into_iter().filter_map(row).take(LISTED).collect()
    }

    /// Forwards of TCP of which nothing is answered. The texts contain no changing number.
    pub(super) fn problems(&self, config: &Config) -> Vec<Problem> {
        let silent = self.findings.iter().filter(|finding| is_problem(finding));
        silent.filter_map(|finding| Some(unanswered(named(finding.target, config)?))).take(LISTED).collect()
    }

    /// The same where ports that no host listens at are forwarded too, so that a scan is not answered either.
    pub(super) fn hints(&self, config: &Config) -> Vec<Problem> {
        let is_wide = |finding: &&Finding| is_silent_tcp(finding) && !finding.target.is_named;
        let silent = self.findings.iter().filter(is_wide);
        silent.filter_map(|finding| Some(unanswered(named(finding.target, config)?))).take(LISTED).collect()
    }

    /// The journal has the problems and hints; of other protocols it is told here when nothing is answered any more.
    fn tell_changes(&self, findings: &[Finding], config: &Config) {
        let silent = |findings: &[Finding]| -> Vec<Target> {
            let silent = findings.iter().filter(|finding| finding.is_silent && finding.target.protocol != TCP);
            silent.map(|finding| finding.target).collect()
        };
        let (before, after) = (silent(&self.findings), silent(findings));
        let tell = |target: &Target, what: &str| {
            if let Some(Named { name, path, .. }) = named(*target, config) {
                tracing::info!(component = "flows", "{name} ({path}): {what}");
            }
        };
        for target in after.iter().filter(|target| !before.contains(target)) {
            tell(target, "no flow is answered, as some services never answer");
        }
        for target in before.iter().filter(|target| !after.contains(target)) {
            tell(target, "no longer are all flows unanswered");
        }
    }
}

fn is_silent_tcp(finding: &Finding) -> bool {
    finding.is_silent && finding.target.protocol == TCP
}

fn is_problem(finding: &Finding) -> bool {
    is_silent_tcp(finding) && finding.target.is_named
}

/// A target in the words of the configuration.
struct Named {
    name: String,
    path: String,
    host: std::net::Ipv4Addr,
    /// The question about the host's way back.
    way_back: &'static str,
}

const WAY_BACK: &str = "does its default route lead to this server (`ip route get 1.1.1.1`)?";
const WAY_BACK_OR_SNAT: &str = "does its default route lead to this server (`ip route get 1.1.1.1`)? If that has to \
                                lead elsewhere, set `snat = true` in the forward.";
const WAY_BACK_OF_SNAT: &str = "does it have a route to this server's private address?";

/// `None` if the configuration does not have it any more.
fn named(target: Target, config: &Config) -> Option<Named> {
    let protocol = protocol_name(target.protocol);
    match target.redirect {
        Redirect::Forward(index) => {
            let forward = config.nat.forwards.get(index)?;
            let port = forward.to_port.map_or_else(String::new, |port| format!(":{port}"));
            let traffic = match forward.transports.without_ports() {
                Some(protocol) => protocol.to_string(),
                None => format!("{protocol} {}", forward.ports),
            };
            let path = format!("{traffic} to {}{port}", forward.to);
            let way_back = if forward.snat { WAY_BACK_OF_SNAT } else { WAY_BACK_OR_SNAT };
            Some(Named { name: forward.label(), path, host: forward.to, way_back })
        }
        Redirect::Static(public) => {
            let entry = config.nat.statics.iter().find(|entry| entry.public == public)?;
            let path = format!("{protocol}, {public} to {}", entry.private);
            Some(Named { name: entry.label(), path, host: entry.private, way_back: WAY_BACK })
        }
    }
}

fn unanswered(Named { name, path, host, way_back }: Named) -> Problem {
    Problem::new(
        "forward-unanswered",
        format!("{name} ({path}): the host answers no connection"),
        format!(
            "look on {host}: is it up, does its own firewall drop these packets, and {way_back} A host that is meant \
             to answer some sources only: name them in `from`"
        ),
    )
}
