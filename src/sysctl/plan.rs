//! Desired and observed settings in, writes out. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::model::{Need, Setting};
use super::observe::Observed;
use crate::component;

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The settings, with larger values that are there already in the place of smaller ones.
    pub(super) desired: Vec<Setting>,
    /// Those that differ, in the same order.
    pub(super) writes: Vec<Write>,
}

impl component::Plan for Plan {
    fn steps(&self) -> Vec<String> {
        self.writes.iter().map(|write| format!("set {write}")).collect()
    }
}

/// One setting to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// Path below `/proc/sys`.
    pub(super) path: String,
    /// The current value.
    pub(super) from: String,
    /// The new value.
    pub(super) to: String,
    /// How much the gateway needs it.
    pub(super) need: Need,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.path, self.from, self.to)
    }
}

/// Plans a write for each setting that exists and differs.
pub(super) fn plan(observed: &Observed) -> Plan {
    let desired = without_lowering(&observed.desired, &observed.values);
    let differing = desired.iter().filter_map(|Setting { path, value, need }| {
        let from = observed.values.get(path).filter(|from| *from != value)?;
        Some(Write { path: path.clone(), from: from.clone(), to: value.clone(), need: *need })
    });
    let writes = differing.collect();
    Plan { desired, writes }
}

/// The settings, with a current value that is larger in the place of the wanted one where a larger one is as good.
fn without_lowering(desired: &[Setting], observed: &BTreeMap<String, String>) -> Vec<Setting> {
    let number = |text: &str| text.parse::<u64>().ok();
    let raised = desired.iter().cloned().map(|mut setting| {
        let current = observed.get(&setting.path).filter(|_| setting.need == Need::AtLeast);
        if let Some(current) = current.filter(|current| number(current) > number(&setting.value)) {
            setting.value.clone_from(current);
        }
        setting
    });
    raised.collect()
}
