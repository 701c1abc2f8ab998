//! Reads the kernel's connection tracking table: its flows one by one, its counters, and how full it is.

use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::{Flow, Tuple};
use super::socket::{ConntrackSocket, Error};
use super::wire::{self, Request, Selection};

/// Calls `visit` for every IPv4 flow of the calling thread's network namespace, keeps none of them, and returns how
/// many there were.
///
/// Blocks: a hundred thousand flows take a third of a second without optimisation. It may miss a flow that is created
/// or deleted meanwhile, and may visit one twice.
pub fn for_each_flow(mut visit: impl FnMut(&Flow) -> Result<(), Error>) -> Result<u64, Error> {
    let mut visited = 0;
    ConntrackSocket::open()?.list(Request::ListFlows, |body| {
        let Some(flow) = wire::parse_flow(body)? else { return Ok(()) };
        visited += 1;
        visit(&flow)
    })?;
    Ok(visited)
}

/// Calls `visit` for the IPv4 flows of a selection, until it has had enough. Blocks.
pub(super) fn for_each_selected_flow(
    selection: &Selection,
    mut visit: impl FnMut(&Flow) -> ControlFlow<()>,
) -> Result<(), Error> {
    ConntrackSocket::open()?.list_selected(&wire::select_flows(selection), |body| {
        let flow = wire::parse_flow(body)?.filter(|flow| selection.contains(flow));
        Ok(flow.map_or(ControlFlow::Continue(()), |flow| visit(&flow)))
    })
}

/// The flow with this first packet in the calling thread's network namespace. Blocks for a moment.
pub fn find_flow(original: &Tuple) -> Result<Option<Flow>, Error> {
    ConntrackSocket::open()?.get(original)
}

/// Flows that the kernel could not create or keep, since the namespace exists, summed over all processors. Each
/// processor's counters are 32 bits wide and wrap around.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounters {
    /// Not inserted, because the tuple was taken when the first packet left: most often no source port was free.
    pub insert_failed: u64,
    /// Not created, because there was no memory, no room in the table or no port.
    pub dropped: u64,
    /// Unanswered flows that the kernel evicted for new ones, because the table was full.
    pub early_dropped: u64,
}

/// The counters of the calling thread's network namespace. Blocks for a moment.
pub fn observe_counters() -> Result<FlowCounters, Error> {
    let mut sum = FlowCounters::default();
    ConntrackSocket::open()?.list(Request::ListCounters, |body| {
        let [insert_failed, dropped, early_dropped] = wire::parse_counters(body)?.map(u64::from);
        sum.insert_failed += insert_failed;
        sum.dropped += dropped;
        sum.early_dropped += early_dropped;
        Ok(())
    })?;
    Ok(sum)
}

/// How full the table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackUsage {
    /// Entries of this network namespace (`nf_conntrack_count`).
    pub entries: u64,
    /// The largest number of entries (`nf_conntrack_max`).
    pub max: u64,
}

/// How full the table of the calling thread's network namespace is; `None` while the kernel tracks no flows. `root` is
/// `/proc/sys`.
pub(super) fn observe_usage(root: &Path) -> Option<ConntrackUsage> {
    let directory = root.join("net/netfilter");
    let number = |name: &str| std::fs::read_to_string(directory.join(name)).ok()?.trim().parse().ok();
    Some(ConntrackUsage { entries: number("nf_conntrack_count")?, max: number("nf_conntrack_max")? })
}
