//! Reads the settings that are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::model::{Machine, Need, STRICT_SOURCES, Setting, Subject};

/// A setting that exists and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the setting {path}")]
pub(super) struct Error {
    path: String,
    source: io::Error,
}

/// The settings as they are wanted, and as they are.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(super) desired: Vec<Setting>,
    /// What the settings are wanted for.
    pub(super) subject: Subject,
    /// Current values by path. A setting that does not exist (its interface was just removed, its kernel module is not
    /// loaded yet) has none.
    pub(super) values: BTreeMap<String, String>,
    /// Settings that are read-only here and not necessary: those of the whole machine, seen from a
    /// container.
    pub(super) read_only: BTreeSet<String>,
    pub(super) problems: Vec<Error>,
}

pub(super) fn observe(root: &Path, desired: Vec<Setting>, subject: Subject) -> Observed {
    let (mut values, mut read_only, mut problems) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for Setting { path, need, .. } in &desired {
        let file = root.join(path);
        // The kernel checks the mode of a setting for every caller, root too (`test_perm` in fs/proc/proc_sysctl.c).
        let is_read_only = || std::fs::metadata(&file).is_ok_and(|metadata| metadata.permissions().readonly());
        match std::fs::read_to_string(&file) {
            Ok(_) if *need != Need::Must && is_read_only() => {
                read_only.insert(path.clone());
            }
            Ok(text) => {
                values.insert(path.clone(), text.trim().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => problems.push(Error { path: path.clone(), source }),
        }
    }
    Observed { desired, subject, values, read_only, problems }
}

/// The machine; `root` is `/proc/sys`.
pub(super) fn machine(root: &Path) -> Machine {
    // If it cannot be read, the value that is right in both cases is taken.
    let strict_sources = std::fs::read_to_string(root.join(STRICT_SOURCES)).map_or(true, |text| text.trim() == "1");
    Machine { memory: memory(root), strict_sources }
}

fn memory(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.parent()?.join("meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
