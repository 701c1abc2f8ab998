//! The few kernel settings a gateway needs, and no other.
//!
//! Two components. [`Sysctl`] holds the settings that make links safe, and runs before the rules are loaded.
//! [`Forwarding`] runs when the rules stand: it sizes the flow table, which the kernel has only once rules ask for
//! flows, and switches forwarding on, last of all. What a setting was before is saved for `bastionctl down`.

mod apply;
mod desired;
mod flow_table;
mod forwarding;
mod model;
mod observe;
mod plan;
mod saved_values;
mod settings;

use std::path::{Path, PathBuf};

pub(crate) use forwarding::Forwarding;
pub use saved_values::lines_of as saved_settings_of;

use crate::component::{Component, Steps};
use crate::inputs::Inputs;
use crate::outcome::{ComponentName, Outcome};
use observe::Observed;
use plan::Plan;
use settings::Settings;

/// Where the settings are, and where their former values are saved.
#[derive(Debug, Clone)]
pub(crate) struct SysctlPaths {
    /// `/proc/sys`.
    pub root: PathBuf,
    /// The file of the former values, as JSON.
    pub saved_values: PathBuf,
}

impl SysctlPaths {
    /// The kernel's own settings; their former values are saved in `state_directory`.
    pub(crate) fn of_kernel(state_directory: &Path) -> Self {
        Self { root: PathBuf::from("/proc/sys"), saved_values: state_directory.join("sysctl.json") }
    }
}

/// The settings that were changed, as saved by the daemon, a line each: path, former value, our value. For the removal
/// of the package, which takes them back when the programs are gone.
pub fn saved_settings(state_directory: &Path) -> String {
    saved_values::lines(&SysctlPaths::of_kernel(state_directory))
}

/// The settings that make links safe: no redirects, no source routes, no strict source check.
#[derive(Debug)]
pub(crate) struct Sysctl(Settings);

impl Sysctl {
    /// A component that has not observed anything yet.
    pub(crate) fn new(paths: SysctlPaths) -> Self {
        Self(Settings::new(paths))
    }
}

impl Component for Sysctl {
    const NAME: ComponentName = ComponentName::Sysctl;
    type Observed = Observed;
    type Plan = Plan;
    type Error = std::convert::Infallible;

    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Self::Error> {
        let machine = observe::machine(&self.0.paths.root);
        Ok(self.0.observe(inputs, desired::hardening(inputs, machine)))
    }

    fn plan(&self, _inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        plan::plan(observed)
    }

    async fn apply(&mut self, _inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        self.0.apply(observed, &plan)
    }

    /// Puts back every setting that still has the value this daemon gave it, but for forwarding itself.
    async fn down(&mut self, _inputs: &Inputs<'_>) -> Steps {
        saved_values::restore(&self.0.paths)
    }
}

#[cfg(test)]
mod tests;
