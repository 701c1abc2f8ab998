//! The rules' part of the status: what was dropped, and whose packets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::counters::Count;

/// What the rules have counted, and the sources that they remember.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallReport {
    /// The named counters: `dropped_…` by reason, and flows that were accepted.
    pub counters: BTreeMap<String, Count>,
    /// Sources of packets to destinations that are not routed on the internet.
    pub scanning: Sources,
    /// Sources that opened more flows a second than allowed.
    pub over_new_flows: Sources,
    /// Sources that wanted more flows at the same time than allowed.
    pub over_flows: Sources,
    /// Sources that opened more SSH connections than allowed and are not banned for it: private hosts, and senders of
    /// connection requests that they do not complete.
    #[serde(default)]
    pub over_ssh: Sources,
    /// Peers of the tunnel whose lists refused packets, from them or to them.
    #[serde(default)]
    pub refused_peers: Sources,
    /// Sources that are banned from SSH.
    pub banned: Bans,
}

/// Sources of dropped packets, within the last hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Those with the most packets, in descending order; at most ten.
    pub busiest: Vec<Source>,
    /// How many more there are.
    pub more: usize,
}

/// A source of dropped packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The source address of its packets.
    pub address: IpAddr,
    /// Of a peer: its name, or its key if it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many of its packets were dropped.
    pub packets: u64,
    /// How many seconds ago the last one came; `None` if the set does not say.
    pub seconds_ago: Option<u64>,
}

/// Banned sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bans {
    /// Those with the longest remaining time, in descending order; at most ten.
    pub longest: Vec<Ban>,
    /// How many more there are.
    pub more: usize,
}

/// A source that may not log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// An IPv4 address, or a /64 of IPv6.
    pub source: IpNet,
    /// The remaining time in seconds; `None`: until an operator ends it.
    pub seconds_left: Option<u64>,
}
