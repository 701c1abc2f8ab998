//! The flows' part of the status: how many there are, what failed, and where ports run short.

use serde::{Deserialize, Serialize};

use super::answers::UnansweredForward;
use super::counting::FlowCount;
use super::observe::{ConntrackUsage, FlowCounters};
use super::port_use::PortReport;
use crate::outcome::Problem;

/// From here on a nearly full table is a problem, in per cent of `nf_conntrack_max`.
const ALARM: u64 = 80;

/// The state of the connection tracking table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsReport {
    /// How full it is.
    #[serde(flatten)]
    pub usage: ConntrackUsage,
    /// Flows that could not be created or kept; `None` where the kernel does not report that.
    pub counters: Option<FlowCounters>,
    /// Where ports run short; `None` while there are too few flows for that.
    pub ports: Option<PortReport>,
    /// Forwards and static addresses with flows that their hosts did not answer, at most ten.
    #[serde(default)]
    pub unanswered: Vec<UnansweredForward>,
    /// The flows by source; `None` while nothing limits them, so that they are not counted.
    #[serde(default)]
    pub by_source: Option<FlowCount>,
}

impl FlowsReport {
    /// What is nearly used up. The texts contain no changing number, so a problem that lasts is one problem.
    pub fn problems(&self) -> Vec<Problem> {
        let ConntrackUsage { entries, max } = self.usage;
        let nearly_full = max > 0 && entries.saturating_mul(100) >= max.saturating_mul(ALARM);
        let full = nearly_full.then(|| {
            Problem::new(
                "conntrack-nearly-full",
                format!(
                    "the connection tracking table is at {ALARM} % or more of its {max} flows \
                     (net.netfilter.nf_conntrack_max)"
                ),
                "find the busiest destinations in `bastionctl status`; a server with more memory gets a larger table",
            )
        });
        let by_source = self.by_source.iter().flat_map(FlowCount::problems);
        full.into_iter().chain(by_source).chain(self.ports.iter().flat_map(PortReport::problems)).collect()
    }
}
