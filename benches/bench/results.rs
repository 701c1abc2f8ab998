//! The results as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::case::{Better, Case, OURS, Subject};
use crate::run::Result;

/// Our median, the others' medians, and the ratios. A value that failed is `null`; a subject that failed is not listed.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    case: &'a str,
    subject: &'a str,
    value: f64,
    unit: &'a str,
    better: &'static str,
    /// The others' medians.
    against: BTreeMap<&'a str, f64>,
    /// Our value divided by theirs.
    ratios: BTreeMap<&'a str, f64>,
    runs: usize,
}

impl<'a> From<&'a Case> for Entry<'a> {
    fn from(case: &'a Case) -> Self {
        Self {
            case: case.name,
            subject: OURS,
            value: rounded(case.ours().median()),
            unit: case.unit,
            better: match case.better {
                Better::Higher => "higher",
                Better::Lower => "lower",
            },
            against: case.others().filter_map(|other| listed(other, other.median())).collect(),
            ratios: case.others().filter_map(|other| listed(other, case.ratio_to(other))).collect(),
            runs: case.ours().runs(),
        }
    }
}

fn listed(subject: &Subject, value: f64) -> Option<(&str, f64)> {
    (!value.is_nan()).then(|| (&subject.name[..], rounded(value)))
}

/// Rounds to three decimals, and to whole numbers from 1000 on.
fn rounded(value: f64) -> f64 {
    let scale = if value.abs() >= 1000.0 { 1.0 } else { 1000.0 };
    (value * scale).round() / scale
}

pub(crate) fn write(path: &Path, cases: &[Case]) -> Result {
    let entries: Vec<Entry<'_>> = cases.iter().map(Entry::from).collect();
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, serde_json::to_string_pretty(&entries)? + "\n")?;
    Ok(())
}
