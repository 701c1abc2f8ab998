//! The table as values: what the configuration wants, before it becomes commands for nft.

use std::sync::Arc;

use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use super::element::Element;
pub(super) use super::statement::Name;
use super::statement::RuleStatement;
use crate::inputs::RULES_TABLE;
use crate::net::InterfaceName;

/// The one table that belongs to bastiond, in family `inet`.
pub(super) const TABLE: &str = RULES_TABLE;
/// The table in which rules are checked before they replace ours. nft only checks its chains, so no packet passes them.
pub(super) const TRIAL_TABLE: &str = "bastiond_trial";
/// The name of the flowtable, where there is one.
pub(super) const FLOWTABLE: &str = "fastpath";

/// Counts packets for the tunnel's port that come in.
pub(super) const TUNNEL_ARRIVED: &str = "tunnel_arrived";
/// Counts those of them that no chain has dropped.
pub(super) const TUNNEL_PASSED: &str = "tunnel_passed";

/// A rule: its statements from left to right.
pub(super) type Rule = Vec<RuleStatement>;

/// The whole content of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ruleset {
    /// Named counters. They keep their values when the rules change.
    pub counters: Vec<&'static str>,
    /// Sets and maps with the elements that we write.
    pub sets: Vec<Set>,
    /// Sets that the rules fill.
    pub meters: Vec<Meter>,
    /// The interfaces of the flowtable, which carries established flows between them. Empty: there is no flowtable.
    pub fastpath: Vec<InterfaceName>,
    /// Chains with their rules. A chain comes before those that go to it.
    pub chains: Vec<Chain>,
}

/// A named set, or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub name: Name,
    pub kind: SetKind,
    /// Sorted, without overlaps. Shared, since a plan and what was applied last hold the same ten thousand elements.
    pub elements: Arc<[Element]>,
}

/// What a set's keys look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SetKind {
    /// Ranges of one field or of several; nft's names of the fields.
    Ranges(Vec<&'static str>),
    /// Single values of one field or of several; nft's names of the fields.
    Exact(Vec<&'static str>),
    /// One of the maps that [`super::declarations`] declares.
    Map,
    /// A map from ranges of several fields to an address; nft's names of the fields of its keys.
    AddressMap(Vec<&'static str>),
    /// A map from single addresses to the chains that decide about their packets.
    ChainMap,
    /// The same from ranges.
    ChainRangeMap,
}

impl SetKind {
    /// nft's names of the fields of its keys; none for a declared map.
    pub(super) fn fields(&self) -> &[&'static str] {
        match self {
            Self::Ranges(fields) | Self::Exact(fields) | Self::AddressMap(fields) => fields,
            Self::ChainMap | Self::ChainRangeMap => &[fields::V4],
            Self::Map => &[],
        }
    }
}

/// A set that the rules fill; [`super::declarations`] declares it. Its content survives reloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meter {
    pub name: &'static str,
    /// The limit that its elements are made with. The kernel stores it in each element, so the set is emptied when it
    /// changes.
    pub limit: Option<u32>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub name: Name,
    /// Where the kernel calls it; `None` for a chain that only other chains go to.
    pub base: Option<BaseChain>,
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that other chains go to.
    pub(super) fn regular(name: impl Into<Name>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: None, rules }
    }

    /// A chain that the kernel calls.
    pub(super) fn base(name: &'static str, base: BaseChain, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: Some(base), rules }
    }
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BaseChain {
    /// `filter` or `nat`.
    pub kind: NfChainType,
    pub hook: NfHook,
    /// The kernel calls chains with lower numbers first.
    pub priority: i32,
    /// What happens to a packet that no rule decides about.
    pub policy: NfChainPolicy,
}

impl Set {
    /// A set of ranges.
    pub(super) fn ranges(name: impl Into<Name>, fields: impl Into<Vec<&'static str>>, elements: Vec<Element>) -> Self {
        Self::new(name.into(), SetKind::Ranges(fields.into()), elements)
    }

    /// A set of single values.
    pub(super) fn exact(name: impl Into<Name>, fields: impl Into<Vec<&'static str>>, elements: Vec<Element>) -> Self {
        Self::new(name.into(), SetKind::Exact(fields.into()), elements)
    }

    /// A map.
    pub(super) fn map(name: &'static str, elements: Vec<Element>) -> Self {
        Self::new(name.into(), SetKind::Map, elements)
    }

    /// A map from ranges of several fields to an address. It is there only if it has elements.
    pub(super) fn address_map(
        name: &'static str,
        fields: impl Into<Vec<&'static str>>,
        elements: Vec<Element>,
    ) -> Option<Self> {
        (!elements.is_empty()).then(|| Self::new(name.into(), SetKind::AddressMap(fields.into()), elements))
    }

    /// A map from IPv4 addresses to chains. It is there only if it has elements.
    pub(super) fn chain_map(name: &'static str, elements: Vec<Element>) -> Option<Self> {
        (!elements.is_empty()).then(|| Self::new(name.into(), SetKind::ChainMap, elements))
    }

    /// The same from ranges.
    pub(super) fn chain_range_map(name: &'static str, elements: Vec<Element>) -> Option<Self> {
        (!elements.is_empty()).then(|| Self::new(name.into(), SetKind::ChainRangeMap, elements))
    }

    fn new(name: Name, kind: SetKind, mut elements: Vec<Element>) -> Self {
        elements.sort();
        elements.dedup();
        Self { name, kind, elements: elements.into() }
    }
}

/// nft's names of the fields of a set's key.
pub(super) mod fields {
    /// An IPv4 address.
    pub(in super::super) const V4: &str = "ipv4_addr";
    /// An IPv6 address.
    pub(in super::super) const V6: &str = "ipv6_addr";
    /// A port.
    pub(in super::super) const PORT: &str = "inet_service";
    /// A protocol inside IP.
    pub(in super::super) const PROTOCOL: &str = "inet_proto";
    /// An interface's name.
    pub(in super::super) const INTERFACE: &str = "ifname";
}
