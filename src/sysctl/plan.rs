//! Desired and observed settings in, writes out. Pure.

use std::collections::BTreeMap;
use std::fmt;

use super::model::{Need, Setting};

/// One setting to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Path below `/proc/sys`.
    pub path: String,
    /// What it is.
    pub from: String,
    /// What it shall be.
    pub to: String,
    /// How it is meant.
    pub need: Need,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.path, self.from, self.to)
    }
}

/// Writes for what differs, in the desired order. A setting that is not there needs none.
pub fn plan(desired: &[Setting], observed: &BTreeMap<String, String>) -> Vec<Write> {
    let differing = desired.iter().filter_map(|Setting { path, value, need }| {
        let from = observed.get(path).filter(|from| *from != value)?;
        Some(Write { path: path.clone(), from: from.clone(), to: value.clone(), need: *need })
    });
    differing.collect()
}

/// The settings, with what is there already in the place of less.
pub(super) fn without_lowering(desired: Vec<Setting>, observed: &BTreeMap<String, String>) -> Vec<Setting> {
    let number = |text: &str| text.parse::<u64>().ok();
    let raised = desired.into_iter().map(|mut setting| {
        let there = observed.get(&setting.path).filter(|_| setting.need == Need::AtLeast);
        if let Some(there) = there.filter(|there| number(there) > number(&setting.value)) {
            setting.value.clone_from(there);
        }
        setting
    });
    raised.collect()
}
