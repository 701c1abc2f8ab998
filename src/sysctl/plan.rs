//! Desired and observed settings in, writes out. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::model::Setting;

/// One setting to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Path below `/proc/sys`.
    pub path: String,
    /// What it is.
    pub from: String,
    /// What it shall be.
    pub to: &'static str,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.path, self.from, self.to)
    }
}

/// Writes for what differs, in the desired order. A setting that is not there needs none.
pub fn plan(desired: &[Setting], observed: &BTreeMap<String, String>) -> Vec<Write> {
    let differing = desired.iter().filter_map(|setting| {
        let from = observed.get(&setting.path).filter(|value| *value != setting.value)?;
        Some(Write { path: setting.path.clone(), from: from.clone(), to: setting.value })
    });
    differing.collect()
}
