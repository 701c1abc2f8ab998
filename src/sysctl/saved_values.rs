//! What the settings were before this daemon changed them, for `bastionctl down`.
//!
//! Kept in the state directory, which a stop of the service does not clear, together with the id of the boot that they
//! belong to: a reboot resets the settings, and then the saved values are void.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SysctlPaths;
use super::desired::{is_value, is_written_here};
use super::model::{IP_FORWARD, Setting};
use crate::component::Steps;
use crate::error::chain;
use crate::outcome::Problem;
use crate::state;

/// A setting's value before the daemon first wrote it, and the value that it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedValue {
    was: String,
    became: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct SavedValues {
    #[serde(rename = "boot")]
    boot_id: String,
    settings: BTreeMap<String, SavedValue>,
}

impl SavedValues {
    fn load(paths: &SysctlPaths) -> Self {
        let boot_id = read_setting(&paths.root, "kernel/random/boot_id").unwrap_or_default();
        let saved = Self::read(&paths.saved_values).filter(|saved| saved.boot_id == boot_id);
        saved.unwrap_or_else(|| Self { boot_id, settings: BTreeMap::new() })
    }

    /// What the file says of settings that are written here, in whatever boot.
    fn read(file: &Path) -> Option<Self> {
        state::read_json::<Self>(file).map(Self::without_strange)
    }

    /// Without what the daemon does not write.
    fn without_strange(mut self) -> Self {
        self.settings.retain(|path, value| {
            let is_ours = is_written_here(path) && is_value(&value.was) && is_value(&value.became);
            if !is_ours {
                let path = path.escape_debug().to_string();
                tracing::warn!(component = "sysctl", path, "the saved values name what is not ours; it is ignored");
            }
            is_ours
        });
        self
    }

    /// A line for each setting: path, former value, our value.
    fn lines(&self) -> String {
        let line = |(path, SavedValue { was, became }): (&String, &SavedValue)| format!("{path} {was} {became}\n");
        self.settings.iter().map(line).collect()
    }

    /// Whether it was this daemon that switched forwarding on.
    fn switched_forwarding_on(&self, origin: UnknownOrigin) -> bool {
        match self.settings.get(IP_FORWARD) {
            Some(value) => value.was == "0",
            None => self.settings.is_empty() && origin == UnknownOrigin::SwitchOff,
        }
    }
}

/// Saves the current value of every wanted setting that is not saved yet, whether or not it has to be written:
/// switching forwarding changes some settings by itself.
///
/// `stood`: the settings are ours already. If nothing is saved of them all the same, the file was lost (another program
/// removed it, or it cannot be written), and the current values would be taken for the former ones.
pub(super) fn save(paths: &SysctlPaths, desired: &[Setting], observed: &BTreeMap<String, String>, stood: bool) {
    let mut saved = SavedValues::load(paths);
    let before = saved.settings.len();
    if before == 0 && stood {
        return;
    }
    for setting in desired {
        if let Some(was) = observed.get(&setting.path) {
            let value = SavedValue { was: was.clone(), became: setting.value.clone() };
            saved.settings.entry(setting.path.clone()).or_insert(value);
        }
    }
    if saved.settings.len() == before {
        return;
    }
    if let Err(error) = state::write_json(&paths.saved_values, &saved) {
        // The gateway works; only `down` will leave these settings as they are.
        let error = chain(&error);
        tracing::warn!(component = "sysctl", error, "`bastionctl down` will not restore kernel settings");
    }
}

/// What is saved, a line each: path, former value, our value. The boot is not compared: in a container the daemon's
/// unit and the scripts of the package may see different ids of it.
pub(super) fn lines(paths: &SysctlPaths) -> String {
    SavedValues::read(&paths.saved_values).map_or_else(String::new, |saved| saved.lines())
}

/// The same for the content of a file; `None` if it is no such file.
pub fn lines_of(content: &[u8]) -> Option<String> {
    let saved: SavedValues = serde_json::from_slice(content).ok()?;
    Some(saved.without_strange().lines())
}

/// Whether the host forwards, and whether this daemon switched it on.
pub(super) fn is_forwarding(paths: &SysctlPaths) -> bool {
    read_setting(&paths.root, IP_FORWARD).as_deref() == Some("1")
}

/// What to do with forwarding when no saved value says who switched it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownOrigin {
    /// Another program may have switched it on.
    LeaveOn,
    /// Our rules stand, so it is most likely ours; without them it would let everything through.
    SwitchOff,
}

/// Whether forwarding is on because this daemon switched it on.
#[cfg(test)]
pub(super) fn is_our_forwarding(paths: &SysctlPaths) -> bool {
    SavedValues::load(paths).switched_forwarding_on(UnknownOrigin::LeaveOn) && is_forwarding(paths)
}

/// Switches forwarding off if this daemon switched it on, and changes no other setting: before the rules are removed,
/// or because they are gone and cannot be loaded.
pub(super) fn stop_forwarding(paths: &SysctlPaths, origin: UnknownOrigin) -> Steps {
    let saved = SavedValues::load(paths);
    if !saved.switched_forwarding_on(origin) || !is_forwarding(paths) {
        return (Vec::new(), Vec::new());
    }
    // The kernel resets the redirect settings along with it (net/ipv4/devinet.c, `inet_forward_change`): they are kept.
    let kept = saved.settings.keys().filter(|path| !path.ends_with("forward") && !path.ends_with("/forwarding"));
    let before: Vec<(&String, Option<String>)> = kept.map(|path| (path, read_setting(&paths.root, path))).collect();
    if let Err(error) = super::apply::write(&paths.root, IP_FORWARD, "0") {
        return (
            Vec::new(),
            vec![Problem::new(
                "setting-not-restored",
                chain(&error),
                "set it by hand: sysctl -w net.ipv4.ip_forward=0",
            )],
        );
    }
    let mut problems = Vec::new();
    for (path, before) in before {
        if let Some(before) = before.filter(|before| read_setting(&paths.root, path).as_ref() != Some(before)) {
            if let Err(error) = super::apply::write(&paths.root, path, &before) {
                problems.push(Problem::new("setting-not-restored", chain(&error), "set it by hand"));
            }
        }
    }
    (vec![format!("{IP_FORWARD}: 1 -> 0")], problems)
}

/// Restores every setting that still has the value this daemon gave it, and forgets all saved values. Values that
/// other programs have set since are kept; forwarding itself is left to [`stop_forwarding`].
pub(super) fn restore(paths: &SysctlPaths) -> Steps {
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    let mut settings = SavedValues::load(paths).settings;
    settings
        .retain(|path, value| path != IP_FORWARD && read_setting(&paths.root, path).as_ref() == Some(&value.became));
    for (path, SavedValue { was, became }) in settings.into_iter().filter(|(_, value)| value.was != value.became) {
        match super::apply::write(&paths.root, &path, &was) {
            Ok(()) => changes.push(format!("{path}: {became} -> {was}")),
            Err(error) => problems.push(Problem::new("setting-not-restored", chain(&error), "set it by hand")),
        }
    }
    if let Err(error) = state::remove(&paths.saved_values) {
        problems.push(Problem::new("state-file-stays", chain(&error), "remove the file by hand"));
    }
    (changes, problems)
}

fn read_setting(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}
