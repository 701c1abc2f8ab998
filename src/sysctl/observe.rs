//! Reads the settings that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::model::{Machine, Need, STRICT_SOURCES, Setting};

/// A setting that cannot be read, though it is there.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the setting {path}")]
pub(super) struct Error {
    path: String,
    source: io::Error,
}

/// Values by path; a setting that does not exist (its interface just went, its module is not there yet) is nowhere
/// here.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub values: BTreeMap<String, String>,
    /// Those that nobody here may write, and that need not be: the machine's own, seen from a container.
    pub fixed: BTreeSet<String>,
    pub problems: Vec<Error>,
}

pub(super) fn observe(root: &Path, desired: &[Setting]) -> Observed {
    let mut observed = Observed::default();
    for Setting { path, need, .. } in desired {
        let file = root.join(path);
        // The kernel heeds the mode of a setting whoever asks (`test_perm` in fs/proc/proc_sysctl.c).
        let read_only = || std::fs::metadata(&file).is_ok_and(|metadata| metadata.permissions().readonly());
        match std::fs::read_to_string(&file) {
            Ok(_) if *need != Need::Must && read_only() => {
                observed.fixed.insert(path.clone());
            }
            Ok(text) => {
                observed.values.insert(path.clone(), text.trim().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => observed.problems.push(Error { path: path.clone(), source }),
        }
    }
    observed
}

/// The machine; `root` is `/proc/sys`.
pub(super) fn machine(root: &Path) -> Machine {
    // Unreadable: the value that is right whatever it is.
    let strict_sources = std::fs::read_to_string(root.join(STRICT_SOURCES)).map_or(true, |text| text.trim() == "1");
    Machine { memory: memory(root), strict_sources }
}

fn memory(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.parent()?.join("meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
