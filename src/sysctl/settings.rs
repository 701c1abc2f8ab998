//! What both components of this module do with their settings.

use std::collections::BTreeMap;

use super::model::{Need, Setting, Subject};
use super::observe::{self, Observed};
use super::plan::{Plan, Write};
use super::{SysctlPaths, apply, saved_values};
use crate::error::chain;
use crate::inputs::Inputs;
use crate::net::InterfaceName;
use crate::outcome::{Outcome, Problem, State};

/// Settings of the kernel, and what is remembered of them between passes.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) paths: SysctlPaths,
    /// What the settings stood for after the last pass; `None`: they did not stand.
    stood_for: Option<Subject>,
    /// The values that the settings had after the last pass, by path.
    held: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn new(paths: SysctlPaths) -> Self {
        Self { paths, stood_for: None, held: BTreeMap::new() }
    }

    /// Reads the current values of `desired`.
    pub(super) fn observe(&self, inputs: &Inputs<'_>, desired: Vec<Setting>) -> Observed {
        let tunnel = inputs.tunnel.map(|tunnel| &tunnel.interface).filter(|interface| self.has_interface(interface));
        observe::observe(&self.paths.root, desired, (inputs.site.clone(), tunnel.cloned()))
    }

    /// Whether the kernel has settings for the interface: whether the interface exists.
    fn has_interface(&self, interface: &InterfaceName) -> bool {
        self.paths.root.join("net/ipv4/conf").join(interface.as_str()).exists()
    }

    /// Writes what differs, after the former values are saved.
    pub(super) fn apply(&mut self, observed: Observed, plan: &Plan) -> Outcome {
        let stood = self.stood_for.as_ref() == Some(&observed.subject);
        saved_values::save(&self.paths, &plan.desired, &observed.values, stood);
        let applied = apply::apply(&self.paths.root, &plan.writes);
        let (mut problems, failed) = (applied.problems, applied.failed || !observed.problems.is_empty());
        let unreadable = observed.problems.iter().map(|error| chain(error));
        problems.extend(
            unreadable
                .map(|what| Problem::new("setting-unreadable", what, "the daemon needs to read below /proc/sys/net")),
        );
        let is_held = |setting: &&Setting| setting.need == Need::Must || observed.values.contains_key(&setting.path);
        let held = plan.desired.iter().filter(is_held).count().saturating_sub(applied.denied);
        let denied = observed.read_only.len() + applied.denied;
        let denied = if denied > 0 { format!(", {denied} not ours to set here") } else { String::new() };
        let (state, changes) = (if failed { State::Failed } else { State::Ok }, applied.changes);
        // A setting that was not held before, such as one of a new interface, is set up, not repaired.
        let was_held = |write: &Write| self.held.get(&write.path) == Some(&write.to);
        let repaired = stood && !changes.is_empty() && plan.writes.iter().any(was_held);
        let exists = |setting: &&Setting| observed.values.contains_key(&setting.path);
        self.held = plan.desired.iter().filter(exists).map(|held| (held.path.clone(), held.value.clone())).collect();
        self.stood_for = Some(observed.subject).filter(|_| state == State::Ok);
        Outcome { changes, repaired, problems, ..Outcome::unchanged(state, format!("{held} settings held{denied}")) }
    }

    /// Forgets that the settings stood: they are not held for now.
    pub(super) fn forget(&mut self) {
        self.stood_for = None;
        self.held.clear();
    }
}
