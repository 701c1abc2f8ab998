//! The settings that wait for the rules: the flow table's, and forwarding itself.

use std::io;

use super::observe::{self, Observed};
use super::plan::{self, Plan};
use super::saved_values::{self, UnknownOrigin};
use super::settings::Settings;
use super::{SysctlPaths, desired};
use crate::component::{Component, Steps};
use crate::inputs::Inputs;
use crate::outcome::{ComponentName, Outcome, State};

/// Asks the kernel whether our rules stand.
pub(super) type RulesStand = fn() -> io::Result<bool>;

/// Switches forwarding on once the rules stand. Without rules, a router would pass everything.
#[derive(Debug)]
pub(crate) struct Forwarding {
    settings: Settings,
    rules_stand: RulesStand,
}

impl Forwarding {
    /// A component that has not observed anything yet.
    pub(crate) fn new(paths: SysctlPaths, rules_stand: RulesStand) -> Self {
        Self { settings: Settings::new(paths), rules_stand }
    }

    /// Whether this host forwards, no matter which program switched it on.
    pub(crate) fn is_on(&self) -> bool {
        saved_values::is_forwarding(&self.settings.paths)
    }
}

impl Component for Forwarding {
    const NAME: ComponentName = ComponentName::Forwarding;
    type Observed = Observed;
    type Plan = Plan;
    type Error = std::convert::Infallible;

    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Self::Error> {
        let machine = observe::machine(&self.settings.paths.root);
        Ok(self.settings.observe(inputs, desired::forwarding(inputs, machine)))
    }

    fn plan(&self, _inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        plan::plan(observed)
    }

    async fn apply(&mut self, _inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        let outcome = self.settings.apply(observed, &plan);
        let on_off = if self.is_on() { "on" } else { "off" };
        Outcome { detail: format!("forwarding {on_off}, {}", outcome.detail), ..outcome }
    }

    /// Rules that stand, though they cannot be observed or are incomplete, are no reason to stop. If they are gone,
    /// forwarding that this daemon switched on is switched off; forwarding that others switched on (Docker,
    /// the administrator) stays.
    async fn hold_back(&mut self, _inputs: &Inputs<'_>, waits_for: ComponentName) -> Outcome {
        self.settings.forget();
        let mut outcome = Outcome::unchanged(State::HeldBack, format!("waits for {waits_for}"));
        // Err: the kernel cannot be asked. What may stand is not cut.
        if matches!((self.rules_stand)(), Ok(false)) {
            (outcome.changes, outcome.problems) =
                saved_values::stop_forwarding(&self.settings.paths, UnknownOrigin::LeaveOn);
            if !outcome.problems.is_empty() {
                outcome.state = State::Failed;
            }
        }
        outcome
    }

    /// Switches forwarding off if this daemon switched it on. While it is on, the rules must not be removed.
    async fn down(&mut self, _inputs: &Inputs<'_>) -> Steps {
        // Err: the kernel cannot be asked, so nothing is known of the rules either.
        let origin =
            if matches!((self.rules_stand)(), Ok(true)) { UnknownOrigin::SwitchOff } else { UnknownOrigin::LeaveOn };
        saved_values::stop_forwarding(&self.settings.paths, origin)
    }
}
