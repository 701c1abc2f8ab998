//! How many of the source ports towards single destinations are in use.
//!
//! Source NAT distinguishes the flows of all private hosts to one destination by the port of the egress address alone,
//! and there are 64 512 of them, of UDP fewer beside a tunnel. When they run out, connections to that destination fail
//! while all others work, which is hard to see from a private host.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::model::{Flow, Status};
use crate::config::{Transport, protocol_name};
use crate::inputs::source_ports_beside;
use crate::outcome::Problem;

/// Ports that the kernel's source NAT chooses from for one egress address, protocol, destination and destination port:
/// 1024 to 65535, for source ports from 1024 on (`nf_nat_l4proto_unique_tuple` in `net/netfilter/nf_nat_core.c`).
/// Measured: of 80 000 flows to one destination exactly that many pass, with and without random ports.
pub(super) const POOL_SIZE: u32 = 64_512;

/// The ports of one pool of a protocol, on a bastion with or without a tunnel on a UDP port that is not tracked.
fn pool_size(protocol: u8, tunnel_port: Option<u16>) -> u32 {
    let beside = tunnel_port.filter(|_| protocol == Transport::Udp.number()).map(source_ports_beside);
    beside.map_or(POOL_SIZE, |ports| u32::try_from(ports.len()).unwrap_or(POOL_SIZE))
}

/// From here on a pool is a problem, in per cent. The kernel gives up after 248 tries to find a free port, so that
/// connections begin to fail at some 87 %.
pub(super) const ALARM: u32 = 80;
/// How many of the busiest pools are reported.
const REPORTED: usize = 10;
/// How many pools are counted separately: some 3 MB. Flows of further pools are counted together.
const COUNTED: usize = 65_536;
/// With fewer entries no pool can be used up, and nothing is counted: an idle daemon sleeps.
const WORTH_COUNTING: u64 = 1000;
/// The time between two counts: a million entries cost a core a second or two.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// The source ports of one egress address towards one destination: all flows from one to the other share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortPool {
    /// The source address on the internet.
    pub egress_address: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The destination port.
    pub port: u16,
    /// Number of the protocol in the IP header: 6 is TCP, 17 UDP.
    pub protocol: u8,
}

impl fmt::Display for PortPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { egress_address, destination, port, protocol } = self;
        write!(f, "{egress_address} to {destination}:{port} ({})", protocol_name(*protocol))
    }
}

/// How many ports of one pool are in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// The pool.
    #[serde(flatten)]
    pub pool: PortPool,
    /// Ports in use.
    pub used: u32,
    /// Ports of the pool, used and free. The JSON calls it `of`.
    #[serde(rename = "of")]
    pub total: u32,
}

/// The result of one count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortReport {
    /// When the count ended, seconds since 1970-01-01 UTC.
    pub counted_unix: u64,
    /// The ten busiest pools, the busiest first.
    pub busiest: Vec<PortUse>,
    /// Flows of pools that were not counted separately, because there were too many.
    pub others: u64,
}

/// Counts the ports in use, flow by flow.
#[derive(Debug, Default)]
pub(super) struct PortCounter {
    pools: HashMap<PortPool, u32>,
    others: u64,
}

impl PortCounter {
    /// Counts a flow if its source is translated and it has ports.
    pub(super) fn add(&mut self, flow: &Flow) {
        if !flow.status.has(Status::SRC_NAT) {
            return;
        }
        // The reply tuple has to be unique: its destination is the egress address, and its source is where the flow
        // goes after a forward has changed its destination.
        let Some(port) = flow.reply.source_port() else { return };
        let pool = PortPool {
            egress_address: flow.reply.destination,
            destination: flow.reply.source,
            port,
            protocol: flow.reply.protocol,
        };
        if let Some(used) = self.pools.get_mut(&pool) {
            *used += 1;
        } else if self.pools.len() < COUNTED {
            self.pools.insert(pool, 1);
        } else {
            self.others += 1;
        }
    }

    /// The result. `counted_unix`: seconds since 1970-01-01 UTC; `tunnel_port`: the tunnel's, if it is not tracked.
    pub(super) fn into_report(self, counted_unix: u64, tunnel_port: Option<u16>) -> PortReport {
        let mut all: Vec<(PortPool, u32)> = self.pools.into_iter().collect();
        let busiest_first = |(pool, used): &(PortPool, u32)| (std::cmp::Reverse(*used), *pool);
        if all.len() > REPORTED {
            all.select_nth_unstable_by_key(REPORTED, busiest_first);
            all.truncate(REPORTED);
        }
        all.sort_unstable_by_key(busiest_first);
        let busiest = all
            .into_iter()
            .map(|(pool, used)| PortUse { pool, used, total: pool_size(pool.protocol, tunnel_port) })
            .collect();
        PortReport { counted_unix, busiest, others: self.others }
    }
}

impl PortReport {
    /// The pools that are nearly used up. The texts contain no changing number, so a problem that lasts is one problem.
    pub fn problems(&self) -> impl Iterator<Item = Problem> + '_ {
        let short =
            self.busiest.iter().filter(|busy| u64::from(busy.used) * 100 >= u64::from(busy.total) * u64::from(ALARM));
        short.map(|PortUse { pool, total, .. }| {
            Problem::new(
                "ports-nearly-used-up",
                format!("{ALARM} % or more of the {total} ports from {pool} are in use"),
                "add an address to nat.egress_addresses, or let the clients keep fewer connections open",
            )
        })
    }
}

/// Whether a table with this many entries is worth a count.
pub(super) fn is_worth_counting(entries: u64) -> bool {
    entries >= WORTH_COUNTING
}

/// Whether it is time for a count. `last` is when the previous count began.
pub(super) fn is_due(entries: u64, last: Option<Instant>, now: Instant) -> bool {
    is_worth_counting(entries) && last.is_none_or(|last| now.saturating_duration_since(last) >= COUNT_INTERVAL)
}
