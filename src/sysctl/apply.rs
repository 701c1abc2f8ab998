//! Writes settings, and puts back what they were.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Place;
use super::model::IP_FORWARD;
use super::plan::Write;
use crate::report::{Problem, chain};
use crate::state::{self, read_json, write_json};

/// Why a setting could not be written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot set {path} to {value}")]
    Write { path: String, value: String, source: io::Error },
    #[error("the former values of the settings cannot be remembered")]
    Remember(#[source] state::Error),
}

/// What a setting was before we touched it, and what we made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Original {
    was: String,
    became: String,
}

type Originals = BTreeMap<String, Original>;

/// Tries every write; what worked and what did not.
pub(super) fn apply(place: &Place, steps: &[Write]) -> (Vec<String>, Vec<Problem>) {
    let mut changes = Vec::new();
    let mut problems = Vec::new();
    if steps.is_empty() {
        return (changes, problems);
    }
    let mut originals: Originals = read_json(&place.memory).unwrap_or_default();
    for step in steps {
        match write(&place.root, &step.path, step.to) {
            Ok(()) => {
                let original = Original { was: step.from.clone(), became: step.to.to_owned() };
                originals.entry(step.path.clone()).or_insert(original);
                changes.push(step.to_string());
            }
            Err(error) => problems.push(Problem::new(
                chain(&error),
                "the daemon needs CAP_NET_ADMIN and a writable /proc/sys/net (containers often mount it read-only)",
            )),
        }
    }
    if let Err(error) = write_json(&place.memory, &originals) {
        // Not a failure of the gateway: only `down` will leave these settings as they are.
        tracing::warn!(room = "sysctl", error = %chain(&Error::Remember(error)), "go on without");
    }
    (changes, problems)
}

/// Puts forwarding back to what it was, alone: `down` closes the gateway before it takes the rules away.
pub fn restore_forwarding(place: &Place) -> (Vec<String>, Vec<Problem>) {
    restore_where(place, |path| path == IP_FORWARD)
}

/// Puts back every setting that still has the value we gave it.
pub fn restore(place: &Place) -> (Vec<String>, Vec<Problem>) {
    restore_where(place, |_| true)
}

fn restore_where(place: &Place, chosen: impl Fn(&str) -> bool) -> (Vec<String>, Vec<Problem>) {
    let mut changes = Vec::new();
    let mut problems = Vec::new();
    let mut originals: Originals = read_json(&place.memory).unwrap_or_default();
    let paths: Vec<String> = originals.keys().filter(|path| chosen(path)).cloned().collect();
    for path in paths {
        let Some(original) = originals.remove(&path) else { continue };
        let now = std::fs::read_to_string(place.root.join(&path)).map(|text| text.trim().to_owned());
        if now.ok().as_ref() != Some(&original.became) {
            continue; // somebody else's by now, or gone with its interface
        }
        match write(&place.root, &path, &original.was) {
            Ok(()) => changes.push(format!("{path}: {} -> {}", original.became, original.was)),
            Err(error) => problems.push(Problem::new(chain(&error), "set it by hand")),
        }
    }
    let kept = if originals.is_empty() { state::remove(&place.memory) } else { write_json(&place.memory, &originals) };
    if let Err(error) = kept {
        problems.push(Problem::new(chain(&error), "remove the file by hand"));
    }
    (changes, problems)
}

fn write(root: &Path, path: &str, value: &str) -> Result<(), Error> {
    std::fs::write(root.join(path), value).map_err(|source| Error::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}
