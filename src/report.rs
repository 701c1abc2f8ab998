//! What a pass found and did: the one account that status, journal and sd-notify all tell from.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::conntrack::FlowsReport;
use crate::nat::FirewallReport;
use crate::net::ServerId;
use crate::outcome::{ComponentName, Outcome, Problem, State};
use crate::wireguard::status::TunnelReport;

/// How often a room changed something since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Passes that changed something.
    pub changes: u64,
    /// Those of them that undid somebody else's change.
    pub repairs: u64,
    /// Passes that failed.
    pub failures: u64,
}

/// A room's part of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentReport {
    /// How it stands.
    pub state: State,
    /// One line about it.
    pub detail: String,
    /// What its newest changing pass changed.
    pub last_changes: Vec<String>,
    /// What is wrong now.
    pub problems: Vec<Problem>,
    /// What may be meant so.
    #[serde(default)]
    pub hints: Vec<Problem>,
    /// Counts since the daemon started.
    pub totals: Totals,
}

/// What started a pass. It says why now, never what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// The daemon started.
    Start,
    /// A new configuration was loaded.
    Configuration,
    /// The kernel said that links, addresses, routes, settings or rules changed.
    Kernel,
    /// The metadata service said something new.
    Metadata,
    /// The networks in the cloud send other packets here than before.
    Cloud,
    /// The name of a peer's endpoint leads elsewhere than before, or does not resolve.
    Names,
    /// It was time to look.
    Timer,
    /// Somebody asked for it.
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
            Self::Timer => "timer",
            Self::Operator => "operator",
        })
    }
}

/// The whole gateway in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Everything that is wanted stands.
    Healthy,
    /// Something has to come from outside first.
    Waiting,
    /// Something failed.
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

/// What the gateway is and how its rooms stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The daemon's version.
    pub version: String,
    /// The whole in one word.
    pub health: Health,
    /// Passes since the start.
    pub passes: u64,
    /// What started the newest pass.
    pub trigger: Trigger,
    /// When the newest pass ended, seconds since 1970-01-01 UTC.
    pub finished_unix: u64,
    /// This server's number, where it is known.
    pub server_id: Option<ServerId>,
    /// The rooms, in the order of a pass.
    pub components: BTreeMap<ComponentName, ComponentReport>,
    /// Why the newest reload was refused; empty when the running configuration is the file's.
    pub refused_configuration: Vec<String>,
    /// The tunnel, where there is one.
    #[serde(default)]
    pub tunnel: Option<TunnelReport>,
    /// The kernel's flows, where it tracks any.
    #[serde(default)]
    pub flows: Option<FlowsReport>,
    /// What the rules dropped, and of whom, where there is a table; read when somebody asks.
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
            tunnel: None,
            flows: None,
            firewall: None,
        }
    }

    /// Takes what one pass of one room came to into the account.
    pub fn record(&mut self, room: ComponentName, outcome: Outcome) {
        let before = self.components.remove(&room);
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
        self.components.insert(room, report);
        self.health = self.judge();
    }

    /// Notes why a reload was refused, or, with nothing, that the running configuration is the file's.
    pub fn refuse_configuration(&mut self, reasons: Vec<String>) {
        self.refused_configuration = reasons;
        self.health = self.judge();
    }

    /// How a room stands, once it had its first pass.
    pub fn state(&self, room: ComponentName) -> Option<State> {
        self.components.get(&room).map(|report| report.state)
    }

    fn judge(&self) -> Health {
        let any = |state| self.components.values().any(|room| room.state == state);
        let any_problem = self.components.values().any(|room| !room.problems.is_empty());
        if any(State::Failed) || !self.refused_configuration.is_empty() {
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
            parts.push("the last reload was refused, the old configuration is kept".to_owned());
        }
        for (room, report) in &self.components {
            match report.state {
                State::Ok | State::Off if self.health == Health::Healthy => parts.push(report.detail.clone()),
                State::Ok | State::Off if report.problems.is_empty() => {}
                state => {
                    let detail = report.problems.first().map_or(&report.detail, |problem| &problem.what);
                    parts.push(format!("{room} {state}: {detail}"));
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
mod tests {
    use super::*;

    #[test]
    fn a_repair_counts_as_a_change_and_a_first_set_up_not_as_a_repair() {
        let mut report = Report::new();
        let changed = |repaired| Outcome {
            changes: vec!["table loaded".to_owned()],
            repaired,
            ..Outcome::unchanged(State::Ok, "")
        };
        report.record(ComponentName::Nat, changed(false));
        report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, ""));
        report.record(ComponentName::Nat, changed(true));
        assert_eq!(report.components[&ComponentName::Nat].totals, Totals { changes: 2, repairs: 1, failures: 0 });
        assert_eq!(report.components[&ComponentName::Nat].last_changes, ["table loaded"]);
    }

    #[test]
    fn one_failure_makes_the_whole_degraded_and_its_end_healthy_again() {
        let mut report = Report::new();
        report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, "stands"));
        assert_eq!(report.health, Health::Healthy);
        report.record(ComponentName::Hcloud, Outcome::unchanged(State::Waiting, "no token"));
        assert_eq!(report.health, Health::Waiting);
        report.record(ComponentName::Nat, Outcome::unchanged(State::Failed, "nft is missing"));
        assert_eq!(report.health, Health::Degraded);
        assert_eq!(report.status_line(), "degraded; nat failed: nft is missing; hcloud waiting: no token");
        report.record(ComponentName::Nat, Outcome::unchanged(State::Ok, "stands"));
        report.record(ComponentName::Hcloud, Outcome::unchanged(State::Off, "off"));
        assert_eq!(report.health, Health::Healthy);
    }

    #[test]
    fn a_room_that_stands_with_a_problem_keeps_the_whole_from_healthy_and_a_hint_does_not() {
        let told = Problem::new("somebody else drops our packets", "let them pass");
        let mut report = Report::new();
        let hint = Outcome { hints: vec![told.clone()], ..Outcome::unchanged(State::Ok, "stands") };
        report.record(ComponentName::Nat, hint);
        assert_eq!(report.health, Health::Healthy);
        report.record(ComponentName::Nat, Outcome { problems: vec![told], ..Outcome::unchanged(State::Ok, "stands") });
        assert_eq!(report.health, Health::Waiting);
        assert_eq!(report.status_line(), "waiting; nat ok: somebody else drops our packets");
        assert_eq!(report.state(ComponentName::Nat), Some(State::Ok), "forwarding goes by this");
    }
}
