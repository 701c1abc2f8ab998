//! A memory limit for the running daemon, so that the kernel kills it as on a server without free memory.

use std::fs;
use std::path::PathBuf;

use crate::bastion::{Bastion, UNIT};
use crate::machine::required;
use crate::shared::{Result, ensure};

/// The memory limit in bytes.
const LIMIT: &str = "1048576";

/// A memory limit in the version of control groups of this machine. It does not apply to the next process.
#[derive(Debug)]
pub(crate) enum Limit {
    /// A new group in the memory hierarchy of version 1.
    Old(PathBuf),
    /// The group of the service.
    Unified,
}

impl Limit {
    /// Limits the running daemon.
    pub(crate) fn on(bastion: &Bastion) -> Result<Self> {
        let service = bastion.machine.group().join("payload/system.slice").join(UNIT);
        if service.join("memory.max").exists() {
            let used = fs::read_to_string(service.join("memory.current"))?;
            let used: u64 = used.trim().parse()?;
            // The service gets a new group at its next start.
            fs::write(service.join("memory.max"), (used + LIMIT.parse::<u64>()?).to_string())?;
            return Ok(Self::Unified);
        }
        let hierarchy = PathBuf::from("/sys/fs/cgroup/memory");
        ensure(
            hierarchy.join("memory.limit_in_bytes").exists(),
            "no control group counts memory here: the kernel needs CONFIG_MEMCG, and systemd must delegate it",
        )?;
        let group = hierarchy.join(format!("{}-oom", required("BASTIOND_SYSTEM_GROUPS")?.display()));
        fs::create_dir_all(&group)?;
        fs::write(group.join("memory.limit_in_bytes"), LIMIT)?;
        // The process ids in this namespace.
        for process in fs::read_to_string(service.join("cgroup.procs"))?.lines() {
            fs::write(group.join("cgroup.procs"), process)?;
        }
        Ok(Self::Old(group))
    }

    /// Whether the kernel has killed a process because of the limit.
    pub(crate) fn has_killed(&self, bastion: &Bastion) -> Result<bool> {
        match self {
            Self::Old(group) => {
                let text = fs::read_to_string(group.join("memory.oom_control"))?;
                let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
                Ok(kills.is_some_and(|kills| kills != "0"))
            }
            // The group was removed with the process.
            Self::Unified => Ok(bastion.machine.journal(UNIT)?.contains("oom-kill")),
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Self::Old(group) = self {
            // An error means that a process is still in it. scripts/test-system retries.
            let _ = fs::remove_dir(group);
        }
    }
}
