//! How much of the ports towards single destinations is in use.
//!
//! Source NAT tells the flows of all private hosts to one destination apart by the port of the egress address alone,
//! and there are only so many. When they run out, connections to that destination fail while all others work: hard to
//! see from inside.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::model::{Flow, ProtocolName, Status};
use crate::outcome::Problem;

/// Ports that the kernel's source NAT chooses from for one egress address, protocol, destination and destination port:
/// 1024 to 65535, for source ports from 1024 on (`nf_nat_l4proto_unique_tuple` in `net/netfilter/nf_nat_core.c`).
/// Measured: of 80 000 flows to one destination just so many pass, random ports or not.
pub(super) const PORTS: u32 = 64_512;
/// From here on it is told, in per cent. The kernel gives up after 248 tries to find a free port, so that connections
/// begin to fail at some 87 %.
pub(super) const ALARM: u32 = 80;
/// As many destinations are named.
const NAMED: usize = 10;
/// As many destinations are counted apart from each other: some 3 MB. The rest is counted together.
const COUNTED: usize = 65_536;
/// Below so many entries no destination can have used up its ports, and nothing is counted: an idle daemon sleeps.
const WORTH_COUNTING: u64 = 1000;
/// Between two counts: a million entries cost a core a second or two.
const PAUSE: Duration = Duration::from_secs(60);

/// Flows that share ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Share {
    /// The address that they go out under.
    pub egress_address: Ipv4Addr,
    /// Where they go.
    pub destination: Ipv4Addr,
    /// The port there.
    pub port: u16,
    /// Number of the protocol in the IP header: 6 is TCP, 17 UDP.
    pub protocol: u8,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { egress_address, destination, port, protocol } = self;
        write!(f, "{egress_address} to {destination}:{port} ({})", ProtocolName(*protocol))
    }
}

/// How many ports of one share are in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// Whose.
    #[serde(flatten)]
    pub share: Share,
    /// How many.
    pub used: u32,
    /// Of how many.
    pub of: u32,
}

/// The account of one count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// When it was made, seconds since 1970-01-01 UTC.
    pub counted_unix: u64,
    /// The busiest destinations, the busiest first.
    pub busiest: Vec<PortUse>,
    /// Flows to destinations that were too many to be counted apart.
    pub others: u64,
}

/// A count that is under way.
#[derive(Debug, Default)]
pub struct Count {
    shares: HashMap<Share, u32>,
    others: u64,
}

impl Count {
    /// Takes a flow into account, if its source is translated and it has ports.
    pub fn see(&mut self, flow: &Flow) {
        if !flow.status.has(Status::SRC_NAT) {
            return;
        }
        // The answer's way is what has to be unlike all others': its destination is the egress address, and its source
        // where the flow really goes, behind a forward as well.
        let Some(port) = flow.reply.source_port() else { return };
        let share = Share {
            egress_address: flow.reply.destination,
            destination: flow.reply.source,
            port,
            protocol: flow.reply.protocol,
        };
        if let Some(used) = self.shares.get_mut(&share) {
            *used += 1;
        } else if self.shares.len() < COUNTED {
            self.shares.insert(share, 1);
        } else {
            self.others += 1;
        }
    }

    /// The account.
    pub fn finish(self, counted_unix: u64) -> PortReport {
        let mut all: Vec<(Share, u32)> = self.shares.into_iter().collect();
        let busiest_first = |(share, used): &(Share, u32)| (std::cmp::Reverse(*used), *share);
        if all.len() > NAMED {
            all.select_nth_unstable_by_key(NAMED, busiest_first);
            all.truncate(NAMED);
        }
        all.sort_unstable_by_key(busiest_first);
        let busiest = all.into_iter().map(|(share, used)| PortUse { share, used, of: PORTS }).collect();
        PortReport { counted_unix, busiest, others: self.others }
    }
}

impl PortReport {
    /// What is nearly used up. It reads the same while it lasts.
    pub fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let short =
            self.busiest.iter().filter(|busy| u64::from(busy.used) * 100 >= u64::from(busy.of) * u64::from(ALARM));
        short.map(|PortUse { share, of, .. }| {
            Problem::new(
                format!("{ALARM} % or more of the {of} ports from {share} are in use"),
                "give the gateway another address in nat.egress_addresses, or have the clients keep fewer connections",
            )
        })
    }
}

/// Whether so many entries are worth a count.
pub(super) fn is_worthwhile(entries: u64) -> bool {
    entries >= WORTH_COUNTING
}

/// Whether it is time for a count. `last` is when the one before began.
pub(super) fn is_due(entries: u64, last: Option<Instant>, now: Instant) -> bool {
    is_worthwhile(entries) && last.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE)
}
