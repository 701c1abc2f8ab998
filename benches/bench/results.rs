//! The results for machines.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::case::{Better, Case, OURS};

/// Our median, and the others'.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    case: &'a str,
    subject: &'a str,
    value: f64,
    unit: &'a str,
    better: &'static str,
    against: BTreeMap<&'a str, f64>,
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
            against: case.others().map(|other| (other.name, rounded(other.median()))).collect(),
            runs: case.ours().values.len(),
        }
    }
}

/// More digits would be noise.
fn rounded(value: f64) -> f64 {
    let scale = if value.abs() >= 1000.0 { 1.0 } else { 100.0 };
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
