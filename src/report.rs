//! The result of the passes: the one report that the status, the journal and sd-notify show.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::conntrack::FlowsReport;
use crate::health::{PathReport, PathState};
use crate::nat::FirewallReport;
use crate::net::ServerId;
use crate::outcome::{ComponentName, Outcome, Problem, State};
use crate::wireguard::status::TunnelReport;

/// How many lost paths the line for `systemctl status` names.
const MAX_LOST_NAMED: usize = 4;

/// Counts of a component's passes since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Passes that changed something.
    pub changes: u64,
    /// Passes that undid another program's change. They count in `changes` too.
    pub repairs: u64,
    /// Passes that failed.
    pub failures: u64,
}

/// A component's part of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentReport {
    /// The state after the newest pass.
    pub state: State,
    /// One line for the status table.
    pub detail: String,
    /// The changes of the newest pass that changed something, a line each.
    pub last_changes: Vec<String>,
    /// What is wrong now, with advice.
    pub problems: Vec<Problem>,
    /// What is unusual but may be intended. The gateway is healthy with it.
    #[serde(default)]
    pub hints: Vec<Problem>,
    /// Counts since the daemon started.
    pub totals: Totals,
}

/// What started a pass. Every pass does the same, whatever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The daemon started.
    Start,
    /// A new configuration was loaded.
    Configuration,
    /// The kernel announced a change of links, addresses, routes, settings or rules.
    Kernel,
    /// The answer of the metadata service changed.
    Metadata,
    /// The routes of the cloud's networks to this server changed.
    Cloud,
    /// The name of a peer's endpoint resolves to another address, or does not resolve.
    Names,
    /// The tunnel's process has ended.
    Tunnel,
    /// A path has been lost.
    Paths,
    /// The regular interval, or a component's own timer.
    Timer,
    /// An operator's request (`bastionctl reconcile`).
    Operator,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Configuration => "new configuration",
            Self::Kernel => "kernel event",
            Self::Metadata => "metadata",
            Self::Cloud => "cloud routes",
            Self::Names => "endpoint names",
            Self::Tunnel => "end of the tunnel's process",
            Self::Paths => "lost path",
            Self::Timer => "timer",
            Self::Operator => "operator",
        })
    }
}

/// The state of the whole gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Every component is ok, there is no problem, and no path that has passed is lost.
    Healthy,
    /// A component waits for something outside, or there is a problem.
    Waiting,
    /// A component failed, a path is lost, or the newest configuration was refused.
    Degraded,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Waiting => "waiting",
            Self::Degraded => "degraded",
        })
    }
}

/// The configuration that a start used in place of the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationFallback {
    /// When it was applied, in seconds since 1970-01-01 UTC; `None`: it is that of an empty file.
    pub applied_unix: Option<u64>,
}

/// The gateway and its components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The daemon's version.
    pub version: String,
    /// The state of the whole gateway.
    pub health: Health,
    /// Passes since the start.
    pub passes: u64,
    /// What started the newest pass.
    pub trigger: Trigger,
    /// When the newest pass ended, seconds since 1970-01-01 UTC.
    pub finished_unix: u64,
    /// This server's ID in the Hetzner Cloud, if known.
    pub server_id: Option<ServerId>,
    /// The components, in the order of a pass.
    pub components: BTreeMap<ComponentName, ComponentReport>,
    /// Why the file was refused at the newest reload, or at the start; empty when the running configuration is the
    /// file's.
    pub refused_configuration: Vec<String>,
    /// What is allowed in the running configuration but probably a mistake.
    #[serde(default)]
    pub configuration_warnings: Vec<String>,
    /// The configuration that runs since a start with a wrong, unreadable or missing file; `None` if it is one that the
    /// file had.
    #[serde(default)]
    pub fallback: Option<ConfigurationFallback>,
    /// The tunnel, if there is one.
    #[serde(default)]
    pub tunnel: Option<TunnelReport>,
    /// The kernel's connection tracking, if it tracks flows.
    #[serde(default)]
    pub flows: Option<FlowsReport>,
    /// What probes prove: one entry for each private network and each of its addresses on the internet; and what the
    /// tunnel's peers tell.
    #[serde(default)]
    pub paths: Vec<PathReport>,
    /// Counters of dropped packets and limited sources, if the table exists. They are read for each request.
    #[serde(default)]
    pub firewall: Option<FirewallReport>,
}

impl Report {
    /// A report before the first pass.
    pub fn new() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            health: Health::Waiting,
            passes: 0,
            trigger: Trigger::Start,
            finished_unix: 0,
            server_id: None,
            components: BTreeMap::new(),
            refused_configuration: Vec::new(),
            configuration_warnings: Vec::new(),
            fallback: None,
            tunnel: None,
            flows: None,
            paths: Vec::new(),
            firewall: None,
        }
    }

    /// Records that the cloud's component has given no result yet: until its first one nobody knows whether traffic
    /// comes here.
    pub(crate) fn expect_cloud(&mut self) {
        self.record(ComponentName::Hcloud, Outcome::unchanged(State::Waiting, "the first pass is not over"));
    }

    /// Adds the outcome of one pass of one component.
    pub fn record(&mut self, name: ComponentName, outcome: Outcome) {
        let before = self.components.remove(&name);
        let (mut totals, last_changes) = before.map(|report| (report.totals, report.last_changes)).unwrap_or_default();
        let changed = !outcome.changes.is_empty();
        totals.changes += u64::from(changed);
        totals.repairs += u64::from(changed && outcome.repaired);
        totals.failures += u64::from(outcome.state == State::Failed);
        let report = ComponentReport {
            state: outcome.state,
            detail: outcome.detail,
            last_changes: if changed { outcome.changes } else { last_changes },
            problems: outcome.problems,
            hints: outcome.hints,
            totals,
        };
        self.components.insert(name, report);
        self.health = self.overall_health();
    }

    /// Which configuration runs while the file's is refused.
    pub fn describe_refusal(&self) -> String {
        match self.fallback {
            None => "the last reload was refused, the old configuration is kept".to_owned(),
            Some(ConfigurationFallback { applied_unix: Some(seconds) }) => {
                let applied = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds));
                format!("running the configuration of {applied}, the file is wrong")
            }
            Some(ConfigurationFallback { applied_unix: None }) => {
                "running with an empty configuration, there is no file".to_owned()
            }
        }
    }

    /// Records that the file's configuration runs, and what is doubtful in it.
    pub(crate) fn accept_configuration(&mut self, config: &Config) {
        self.fallback = None;
        self.note_warnings(config);
        self.refuse_configuration(Vec::new());
    }

    /// Records what is doubtful in the configuration that runs.
    pub(crate) fn note_warnings(&mut self, config: &Config) {
        self.configuration_warnings = config.warnings.iter().map(ToString::to_string).collect();
    }

    /// Records that the configuration that runs is the one that was applied at that time, or that of an empty file, and
    /// not the file's, and why.
    pub(crate) fn run_fallback(&mut self, applied: Option<SystemTime>, reasons: Vec<String>) {
        let seconds = |applied: SystemTime| applied.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.fallback = Some(ConfigurationFallback { applied_unix: applied.map(seconds) });
        self.refuse_configuration(reasons);
    }

    /// Records why a reload was refused. No reasons mean that the file's configuration is running.
    pub fn refuse_configuration(&mut self, reasons: Vec<String>) {
        self.refused_configuration = reasons;
        self.health = self.overall_health();
    }

    /// Takes over what is known about the paths.
    pub fn learn_paths(&mut self, paths: Vec<PathReport>) {
        self.paths = paths;
        self.health = self.overall_health();
    }

    /// The lost paths that make the gateway degraded.
    fn lost_paths(&self) -> impl Iterator<Item = &PathReport> {
        self.paths.iter().filter(|report| report.state == PathState::Lost && report.path.is_ours())
    }

    /// How many passes of components have changed something.
    pub fn changes(&self) -> u64 {
        self.components.values().map(|report| report.totals.changes).sum()
    }

    /// The state of a component; `None` before its first pass.
    pub fn state(&self, name: ComponentName) -> Option<State> {
        self.components.get(&name).map(|report| report.state)
    }

    fn overall_health(&self) -> Health {
        let any = |state| self.components.values().any(|component| component.state == state);
        let any_problem = self.components.values().any(|component| !component.problems.is_empty());
        let is_lost = self.lost_paths().next().is_some();
        if any(State::Failed) || is_lost || !self.refused_configuration.is_empty() {
            Health::Degraded
        } else if any(State::Waiting) || any(State::HeldBack) || any_problem {
            Health::Waiting
        } else {
            Health::Healthy
        }
    }

    /// One line for `systemctl status`.
    pub fn status_line(&self) -> String {
        let mut parts = vec![self.health.to_string()];
        if !self.refused_configuration.is_empty() {
            parts.push(self.describe_refusal());
        }
        for lost in self.lost_paths().take(MAX_LOST_NAMED) {
            let reason = if lost.detail.is_empty() { String::new() } else { format!(": {}", lost.detail) };
            parts.push(format!("{} lost{reason}", lost.path));
        }
        let further = self.lost_paths().skip(MAX_LOST_NAMED).count();
        if further > 0 {
            parts.push(format!("{further} more paths lost"));
        }
        for (name, report) in &self.components {
            match report.state {
                State::Ok | State::Off if self.health == Health::Healthy => parts.push(report.detail.clone()),
                State::Ok | State::Off if report.problems.is_empty() => {}
                state => {
                    let detail = report.problems.first().map_or(&report.detail, |problem| &problem.what);
                    parts.push(format!("{name} {state}: {detail}"));
                }
            }
        }
        parts.join("; ")
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
