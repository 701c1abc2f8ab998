//! A limit on the memory of the daemon that runs, so that the kernel kills it as it does on a server that has none left.

use std::fs;
use std::path::PathBuf;

use crate::bastion::{Bastion, UNIT};
use crate::machine::required;
use crate::shared::{Result, ensure};

/// What may still be had.
const LIMIT: &str = "1048576";

/// A limit, by whichever control groups count memory here. Its successor is not under it.
#[derive(Debug)]
pub(crate) enum Limit {
    /// A group of the old memory hierarchy, made for this.
    Old(PathBuf),
    /// The service's own group.
    Unified,
}

impl Limit {
    /// For the daemon that runs now.
    pub(crate) fn on(bastion: &Bastion) -> Result<Self> {
        let service = bastion.machine.group().join("payload/system.slice").join(UNIT);
        if service.join("memory.max").exists() {
            let used = fs::read_to_string(service.join("memory.current"))?;
            let used: u64 = used.trim().parse()?;
            // The service is given a new group when it starts again.
            fs::write(service.join("memory.max"), (used + LIMIT.parse::<u64>()?).to_string())?;
            return Ok(Self::Unified);
        }
        let hierarchy = PathBuf::from("/sys/fs/cgroup/memory");
        ensure(
            hierarchy.join("memory.limit_in_bytes").exists(),
            "no control group counts memory here: the kernel needs CONFIG_MEMCG, and a systemd that hands the controller on",
        )?;
        let group = hierarchy.join(format!("{}-oom", required("BASTIOND_SYSTEM_GROUPS")?.display()));
        fs::create_dir_all(&group)?;
        fs::write(group.join("memory.limit_in_bytes"), LIMIT)?;
        // Their numbers as this process sees them.
        for process in fs::read_to_string(service.join("cgroup.procs"))?.lines() {
            fs::write(group.join("cgroup.procs"), process)?;
        }
        Ok(Self::Old(group))
    }

    /// Whether the kernel has killed somebody for it.
    pub(crate) fn has_killed(&self, bastion: &Bastion) -> Result<bool> {
        match self {
            Self::Old(group) => {
                let text = fs::read_to_string(group.join("memory.oom_control"))?;
                let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
                Ok(kills.is_some_and(|kills| kills != "0"))
            }
            // The group itself is gone with the process.
            Self::Unified => Ok(bastion.machine.journal(UNIT)?.contains("oom-kill")),
        }
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Self::Old(group) = self {
            // Err: somebody is still in it; scripts/test-system tries again.
            let _ = fs::remove_dir(group);
        }
    }
}
