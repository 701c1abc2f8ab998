//! What the settings were before we touched them, for `bastionctl down`.
//!
//! Kept in the state directory, which a stop of the service does not clear, and stamped with the boot that it belongs to: a
//! reboot resets the settings, and what was written down before it is void.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Place;
use super::model::{IP_FORWARD, Setting};
use crate::error::chain;
use crate::outcome::Problem;
use crate::state::{self, read_json, write_json};

/// A setting's first value, and the one that we gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Original {
    was: String,
    became: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Originals {
    boot: String,
    settings: BTreeMap<String, Original>,
}

impl Originals {
    fn of_this_boot(place: &Place) -> Self {
        let boot = value(&place.root, "kernel/random/boot_id").unwrap_or_default();
        let known = read_json::<Self>(&place.memory).filter(|known| known.boot == boot);
        known.unwrap_or_else(|| Self { boot, settings: BTreeMap::new() })
    }
}

/// Notes the value of every wanted setting that is not noted yet, whether or not it has to be written: switching
/// forwarding resets some of them behind our back.
///
/// `stood_before`: the settings are ours already. If nothing is noted of them all the same, the memory was lost (somebody
/// removed the file, or it cannot be written), and the values of now would pass for those of before.
pub(super) fn note(place: &Place, desired: &[Setting], observed: &BTreeMap<String, String>, stood_before: bool) {
    let mut originals = Originals::of_this_boot(place);
    let before = originals.settings.len();
    if before == 0 && stood_before {
        return;
    }
    for setting in desired {
        if let Some(was) = observed.get(&setting.path) {
            let original = Original { was: was.clone(), became: setting.value.clone() };
            originals.settings.entry(setting.path.clone()).or_insert(original);
        }
    }
    if originals.settings.len() == before {
        return;
    }
    if let Err(error) = write_json(&place.memory, &originals) {
        // Not a failure of the gateway: only `down` will leave these settings as they are.
        tracing::warn!(component = "sysctl", error = %chain(&error), "the former values of the settings are not remembered");
    }
}

/// Whether the host forwards, whoever wanted it.
pub fn forwards(place: &Place) -> bool {
    value(&place.root, IP_FORWARD).as_deref() == Some("1")
}

/// What to do with forwarding when nothing is remembered of how it came to be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It may be somebody else's.
    Leave,
    /// Our rules stand, so it is ours most likely, and without them it would let everything through.
    Shut,
}

fn opened_by_us(noted: &BTreeMap<String, Original>, doubt: Doubt) -> bool {
    match noted.get(IP_FORWARD) {
        Some(original) => original.was == "0",
        None => noted.is_empty() && doubt == Doubt::Shut,
    }
}

/// Whether forwarding is on because we switched it on.
#[cfg(test)]
pub(super) fn we_forward(place: &Place) -> bool {
    opened_by_us(&Originals::of_this_boot(place).settings, Doubt::Leave) && forwards(place)
}

/// Shuts the gate that we opened, alone: before the rules go, or because they are gone and cannot be loaded.
pub fn stop_forwarding(place: &Place, doubt: Doubt) -> (Vec<String>, Vec<Problem>) {
    let noted = Originals::of_this_boot(place).settings;
    if !opened_by_us(&noted, doubt) || !forwards(place) {
        return (Vec::new(), Vec::new());
    }
    // The kernel resets the redirect settings along with it (net/ipv4/devinet.c, `inet_forward_change`): they stay.
    let kept = noted.keys().filter(|path| !path.ends_with("forward") && !path.ends_with("/forwarding"));
    let before: Vec<(&String, Option<String>)> = kept.map(|path| (path, value(&place.root, path))).collect();
    if let Err(error) = super::apply::write(&place.root, IP_FORWARD, "0") {
        return (Vec::new(), vec![Problem::new(chain(&error), "set it by hand: sysctl -w net.ipv4.ip_forward=0")]);
    }
    let mut problems = Vec::new();
    for (path, before) in before {
        if let Some(before) = before.filter(|before| value(&place.root, path).as_ref() != Some(before)) {
            if let Err(error) = super::apply::write(&place.root, path, &before) {
                problems.push(Problem::new(chain(&error), "set it by hand"));
            }
        }
    }
    (vec![format!("{IP_FORWARD}: 1 -> 0")], problems)
}

/// Puts back every setting that still had the value we gave it, and forgets them all.
pub fn restore(place: &Place) -> (Vec<String>, Vec<Problem>) {
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    let mut originals = Originals::of_this_boot(place).settings;
    // What somebody else made of a setting since is theirs. Forwarding itself is `stop_forwarding`'s.
    originals
        .retain(|path, original| path != IP_FORWARD && value(&place.root, path).as_ref() == Some(&original.became));
    for (path, original) in originals.into_iter().filter(|(_, original)| original.was != original.became) {
        let now = &original.became;
        match super::apply::write(&place.root, &path, &original.was) {
            Ok(()) => changes.push(format!("{path}: {now} -> {}", original.was)),
            Err(error) => problems.push(Problem::new(chain(&error), "set it by hand")),
        }
    }
    if let Err(error) = state::remove(&place.memory) {
        problems.push(Problem::new(chain(&error), "remove the file by hand"));
    }
    (changes, problems)
}

fn value(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}
