//! The rules' part of the status: what was dropped, and of whom. Read when somebody asks for it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::counters::Count;

/// What the rules have counted and remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirewallReport {
    /// The named counters: `dropped_…` by reason, and flows that were let through.
    pub counters: BTreeMap<String, Count>,
    /// Who sent to destinations that nobody has on the internet.
    pub scanning: Sources,
    /// Who opened more flows a second than allowed.
    pub over_new_flows: Sources,
    /// Who wanted more flows at the same time than allowed.
    pub over_flows: Sources,
    /// Who may not log in for a while.
    pub banned: Bans,
}

/// Sources of dropped packets, within the last hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// Those with most packets, the first the busiest.
    pub busiest: Vec<Source>,
    /// How many more there are.
    pub more: usize,
}

/// A source of dropped packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its address.
    pub address: IpAddr,
    /// How many of its packets were dropped.
    pub packets: u64,
    /// How long ago the newest one was, in seconds.
    pub seconds_ago: Option<u64>,
}

/// Banned sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bans {
    /// Those who stay banned for the longest time.
    pub longest: Vec<Ban>,
    /// How many more there are.
    pub more: usize,
}

/// A source that may not log in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// An IPv4 address, or a /64 of IPv6.
    pub source: IpNet,
    /// How long it stays, in seconds; `None`: until somebody takes it out.
    pub seconds_left: Option<u64>,
}
