//! The flows' part of the status: how many there are, what could not be, and where ports run short.

use serde::{Deserialize, Serialize};

use super::observe::{Counters, Fill};
use super::port_use::PortReport;
use crate::outcome::Problem;

/// From here on a full table is told, in per cent of `nf_conntrack_max`.
const ALARM: u64 = 80;

/// The flow table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsReport {
    /// How full it is.
    #[serde(flatten)]
    pub fill: Fill,
    /// What could not be; `None` where the kernel does not tell.
    pub counters: Option<Counters>,
    /// Where ports run short; `None` while there are too few flows for that.
    pub ports: Option<PortReport>,
}

impl FlowsReport {
    /// What is nearly used up. It reads the same while it lasts.
    pub fn problems(&self) -> Vec<Problem> {
        let Fill { entries, max } = self.fill;
        let nearly_full = max > 0 && entries.saturating_mul(100) >= max.saturating_mul(ALARM);
        let full = nearly_full.then(|| {
            Problem::new(
                format!(
                    "the table of flows is filled to {ALARM} % or more of its {max} (net.netfilter.nf_conntrack_max)"
                ),
                "`bastionctl status` shows the busiest destinations; a server with more memory gets a larger table",
            )
        });
        full.into_iter().chain(self.ports.iter().flat_map(PortReport::problems)).collect()
    }
}
