//! The time and the memory that the daemon needs, on the bastion of the sandbox.

mod idle;
mod start;

use std::path::Path;

use crate::case::Case;
use crate::run::{Result, Selection};

pub(crate) fn measure(selection: &Selection, programs: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    if start::CASES.iter().any(|case| selection.has(case)) {
        cases.extend(start::measure(programs)?);
    }
    if idle::CASES.iter().any(|case| selection.has(case)) {
        cases.extend(idle::measure(programs)?);
    }
    cases.retain(|case| selection.has(case.name));
    Ok(cases)
}
