//! Looks at the kernel's flows: all of them one by one, and how many there are.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::Flow;
use super::socket::{Conversation, Error};
use super::wire::{self, Question};

/// Hands every IPv4 flow of the calling thread's network namespace on, none of them kept; how many there were.
///
/// Blocks: a hundred thousand take a third of a second without optimisation. A flow that comes or goes meanwhile may be
/// missed, and one may be seen twice.
pub fn flows(mut see: impl FnMut(&Flow) -> Result<(), Error>) -> Result<u64, Error> {
    let mut seen = 0;
    Conversation::open()?.list(Question::Flows, |body| {
        let Some(flow) = wire::flow(body)? else { return Ok(()) };
        seen += 1;
        see(&flow)
    })?;
    Ok(seen)
}

/// Flows that could not be, since the namespace exists, over all processors. Each processor's counters are 32 bits wide
/// and begin anew at their end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Their place was taken when their first packet had to leave: most often because no source port was free.
    pub insert_failed: u64,
    /// There was no room for them, or no port.
    pub dropped: u64,
    /// Flows without an answer that had to make room for new ones, since the table was full.
    pub early_dropped: u64,
}

/// The counters of the calling thread's network namespace. Blocks for a moment.
pub fn counters() -> Result<Counters, Error> {
    let mut sum = Counters::default();
    Conversation::open()?.list(Question::Counters, |body| {
        let [insert_failed, dropped, early_dropped] = wire::counters(body)?.map(u64::from);
        sum.insert_failed += insert_failed;
        sum.dropped += dropped;
        sum.early_dropped += early_dropped;
        Ok(())
    })?;
    Ok(sum)
}

/// How full the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// Entries of this network namespace (`nf_conntrack_count`).
    pub entries: u64,
    /// As many as there may be (`nf_conntrack_max`).
    pub max: u64,
}

/// How full the table of the calling thread's network namespace is; `None` while the kernel tracks no flows. `root` is
/// `/proc/sys`.
pub fn fill(root: &Path) -> Option<Fill> {
    let directory = root.join("net/netfilter");
    let number = |name: &str| std::fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok();
    Some(Fill { entries: number("nf_conntrack_count")?, max: number("nf_conntrack_max")? })
}
