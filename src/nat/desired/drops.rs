//! The ends of packets' ways: one chain for each reason to drop, which logs some, counts all, and drops.

use super::super::model::{Chain, Name};
use super::super::statement::{RuleStatement, Value, counter, drop, field, goto, limit, log, new_counter, update_with};
use crate::config::LogDrops;
use crate::inputs::nflog_group;

/// Logged packets a second of each reason; a flood is counted, not told.
const LOGGED_PER_SECOND: u32 = 5;
const LOGGED_AT_ONCE: u32 = 10;
/// Bytes of a packet that are logged: the headers of IP and of TCP with all their options.
const SNAPLEN: u32 = 120;

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A source that its interface cannot have.
    Spoofed,
    /// From the internet, with a source that the internet does not have.
    Bogon,
    /// A source on the blocklist.
    Blocked,
    /// Of no flow, and opens none.
    Invalid,
    /// To be forwarded, and nothing allows it.
    Forward,
    /// For the bastion, and nothing allows it.
    Input,
    /// To the internet, to a destination that nobody has there.
    Unroutable,
    /// To the internet, against the network's lists.
    Egress,
    /// More new flows of one source than allowed.
    NewFlows,
    /// More flows of one source than allowed.
    Flows,
    /// From one private network to another.
    Tenant,
    /// SSH from a banned source.
    Banned,
    /// More new connections of one source from outside than allowed.
    Syns,
    /// More pings than allowed.
    Pings,
}

impl Reason {
    pub(super) const ALL: [Self; 14] = [
        Self::Spoofed,
        Self::Bogon,
        Self::Blocked,
        Self::Invalid,
        Self::Forward,
        Self::Input,
        Self::Unroutable,
        Self::Egress,
        Self::NewFlows,
        Self::Flows,
        Self::Tenant,
        Self::Banned,
        Self::Syns,
        Self::Pings,
    ];

    /// Its counter.
    pub(super) fn counter(self) -> &'static str {
        match self {
            Self::Spoofed => "dropped_spoofed",
            Self::Bogon => "dropped_bogon",
            Self::Blocked => "dropped_blocked",
            Self::Invalid => "dropped_invalid",
            Self::Forward => "dropped_forward",
            Self::Input => "dropped_input",
            Self::Unroutable => "dropped_unroutable",
            Self::Egress => "dropped_egress",
            Self::NewFlows => "dropped_new_flows",
            Self::Flows => "dropped_flows",
            Self::Tenant => "dropped_tenant",
            Self::Banned => "dropped_banned",
            Self::Syns => "dropped_syns",
            Self::Pings => "dropped_pings",
        }
    }

    /// Its chain.
    fn chain(self) -> &'static str {
        match self {
            Self::Spoofed => "drop_spoofed",
            Self::Bogon => "drop_bogon",
            Self::Blocked => "drop_blocked",
            Self::Invalid => "drop_invalid",
            Self::Forward => "drop_forward",
            Self::Input => "drop_input",
            Self::Unroutable => "drop_unroutable",
            Self::Egress => "drop_egress",
            Self::NewFlows => "drop_new_flows",
            Self::Flows => "drop_flows",
            Self::Tenant => "drop_tenant",
            Self::Banned => "drop_banned",
            Self::Syns => "drop_syns",
            Self::Pings => "drop_pings",
        }
    }

    /// The set that remembers the sources, where somebody will ask for them.
    fn sources(self) -> Option<&'static str> {
        match self {
            Self::Unroutable => Some("scanning"),
            Self::NewFlows => Some("over_new_flows"),
            Self::Flows => Some("over_flows"),
            _ => None,
        }
    }
}

/// `goto` the reason's chain.
pub(super) fn drop_as(reason: Reason) -> RuleStatement {
    goto(Name::from(reason.chain()))
}

/// The chains of all reasons.
pub(super) fn chains(log_drops: LogDrops) -> impl Iterator<Item = Chain> {
    let group = nflog_group(log_drops);
    Reason::ALL.into_iter().map(move |reason| {
        let mut rules = Vec::new();
        if let Some(group) = group {
            // The prefix is the counter's name: who reads one looks for the other.
            let told = log(format!("bastiond {}", reason.counter()), group, SNAPLEN);
            rules.push(vec![limit(LOGGED_PER_SECOND, "second", LOGGED_AT_ONCE), told]);
        }
        let source: Value = field("ip", "saddr");
        let remembered = reason.sources().map(|set| update_with(set, &source, &new_counter()));
        rules.push(remembered.into_iter().chain([counter(reason.counter()), drop()]).collect());
        Chain::regular(reason.chain(), rules)
    })
}
