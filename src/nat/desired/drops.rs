//! A chain for each reason to drop packets. It logs some, counts all, and drops them.

use super::super::model::{Chain, Name, Rule};
use super::super::statement::{
    RuleStatement, Value, counter, drop, eq, field, goto, l4proto, limit, log, new_counter, reset, text, update_with,
};
use super::feature::{Feature, Section};
use crate::config::LogDrops;
use crate::inputs::nflog_group;

/// How many packets a second are logged for each reason; a flood is counted only.
const LOGGED_PER_SECOND: u32 = 5;
/// How many of them may come at once.
const LOGGED_BURST: u32 = 10;
/// Bytes of a packet that are logged: the headers of IP and of TCP with all their options.
const SNAPLEN: u32 = 120;

/// Why a packet is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DropReason {
    /// A source that its interface cannot have.
    Spoofed,
    /// From the internet, with a source that is not routed there.
    Bogon,
    /// A source on the blocklist.
    Blocked,
    /// It neither belongs to a flow nor opens one.
    Invalid,
    /// To be forwarded, and no rule allows it.
    Forward,
    /// For the bastion, and no rule allows it.
    Input,
    /// To the internet, to a destination that is not routed there.
    Unroutable,
    /// To the internet, and the network's lists do not allow it.
    Egress,
    /// To the internet, and it would leave with its private source.
    Untranslated,
    /// Its source has opened too many flows in a second.
    NewFlows,
    /// Its source has too many flows.
    Flows,
    /// Its network, or all peers together, opens too many flows in a second or has too many.
    Network,
    /// There is no room for its source in a set of sources.
    Full,
    /// From one private network to another, and no line allows it.
    Tenant,
    /// From or to a peer of the tunnel, and its lists do not allow it.
    Access,
    /// SSH from a banned source.
    Banned,
    /// SSH from a source that opens too many connections, and is not banned for it.
    Ssh,
    /// Its source outside has opened too many TCP flows in a second.
    Syns,
    /// There are more pings in a second than allowed.
    Pings,
    /// To the metadata service, of a user who may not use it.
    Metadata,
}

impl DropReason {
    pub(super) const ALL: [Self; 20] = [
        Self::Spoofed,
        Self::Bogon,
        Self::Blocked,
        Self::Invalid,
        Self::Forward,
        Self::Input,
        Self::Unroutable,
        Self::Egress,
        Self::Untranslated,
        Self::NewFlows,
        Self::Flows,
        Self::Network,
        Self::Full,
        Self::Tenant,
        Self::Access,
        Self::Banned,
        Self::Ssh,
        Self::Syns,
        Self::Pings,
        Self::Metadata,
    ];

    /// The name of its counter, which is also the word in the log.
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
            Self::Untranslated => "dropped_untranslated",
            Self::NewFlows => "dropped_new_flows",
            Self::Flows => "dropped_flows",
            Self::Network => "dropped_network",
            Self::Full => "dropped_full",
            Self::Tenant => "dropped_tenant",
            Self::Access => "dropped_access",
            Self::Banned => "dropped_banned",
            Self::Ssh => "dropped_ssh",
            Self::Syns => "dropped_syns",
            Self::Pings => "dropped_pings",
            Self::Metadata => "dropped_metadata",
        }
    }

    /// The name of its chain.
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
            Self::Untranslated => "drop_untranslated",
            Self::NewFlows => "drop_new_flows",
            Self::Flows => "drop_flows",
            Self::Network => "drop_network",
            Self::Full => "drop_full",
            Self::Tenant => "drop_tenant",
            Self::Access => "drop_access",
            Self::Banned => "drop_banned",
            Self::Ssh => "drop_ssh",
            Self::Syns => "drop_syns",
            Self::Pings => "drop_pings",
            Self::Metadata => "drop_metadata",
        }
    }

    /// The set of the sources of its packets, for reasons whose sources the status shows.
    fn source_set(self) -> Option<&'static str> {
        match self {
            Self::Unroutable => Some("scanning"),
            Self::NewFlows => Some("over_new_flows"),
            Self::Flows => Some("over_flows"),
            Self::Ssh => Some("over_ssh"),
            _ => None,
        }
    }
}

/// Goes to the reason's chain.
pub(super) fn drop_as(reason: DropReason) -> RuleStatement {
    goto(Name::from(reason.chain()))
}

/// The chains and counters of all reasons.
pub(super) fn feature(log_drops: LogDrops) -> Feature {
    let group = nflog_group(log_drops);
    Feature {
        counters: DropReason::ALL.map(DropReason::counter).into(),
        chains: DropReason::ALL.map(|reason| (Section::DropReasons, chain(reason, group))).into(),
        ..Feature::default()
    }
}

fn chain(reason: DropReason, log_group: Option<u16>) -> Chain {
    let mut rules: Vec<Rule> = Vec::new();
    if let Some(group) = log_group {
        // The prefix has the counter's name, so that a search for one finds the other.
        let logged = log(format!("bastiond {}", reason.counter()), group, SNAPLEN);
        rules.push(vec![limit(LOGGED_PER_SECOND, "second", LOGGED_BURST), logged]);
    }
    let source: Value = field("ip", "saddr");
    let mut remember_source: Rule =
        reason.source_set().map(|set| update_with(set, &source, &new_counter())).into_iter().collect();
    if matches!(reason, DropReason::Ssh | DropReason::NewFlows | DropReason::Flows) {
        // Their packets may be IPv6: that rule does not match them.
        rules.push(std::mem::take(&mut remember_source));
    }
    if reason == DropReason::Metadata {
        // A program of this server that looks for a cloud learns at once that it gets no answer.
        rules.push(vec![eq(l4proto(), text("tcp")), counter(reason.counter()), reset()]);
    }
    rules.push(remember_source.into_iter().chain([counter(reason.counter()), drop()]).collect());
    Chain::regular(reason.chain(), rules)
}
