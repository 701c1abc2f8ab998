//! The table, as nouns.

use std::borrow::Cow;

use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use super::element::Element;
use super::nft::Phrase;
use crate::net::InterfaceName;

/// The one table that is ours, in family `inet`.
pub const TABLE: &str = "bastiond";
/// Where rules are tried before they replace ours, for a moment and without a hook: nothing passes it.
pub(super) const TRIAL: &str = "bastiond_trial";
/// The flowtable, where there is one.
pub(super) const FLOWTABLE: &str = "fastpath";

/// A name in the table.
pub(super) type Name = Cow<'static, str>;

/// All that shall be in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// Named counters; they keep their values.
    pub counters: Vec<&'static str>,
    /// Sets and maps whose elements we write.
    pub sets: Vec<Set>,
    /// Sets that the rules fill by themselves.
    pub meters: Vec<Meter>,
    /// The interfaces between which established flows take the short way; none: there is no flowtable.
    pub fastpath: Vec<InterfaceName>,
    /// Chains with their rules. A chain stands before those that go to it.
    pub chains: Vec<Chain>,
}

/// A named set, or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: Name,
    /// What it looks like.
    pub kind: Kind,
    /// Its elements, sorted, without overlaps.
    pub elements: Vec<Element>,
}

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Ranges, of one field or of several.
    Ranges(Vec<&'static str>),
    /// Single values, of one field or of several.
    Exact(Vec<&'static str>),
    /// One of the maps that `super::skeleton` declares.
    Map,
}

/// A set that rules fill, declared by `super::skeleton`. Its contents survive reloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// Its name.
    pub name: &'static str,
    /// What its elements were made with: the kernel keeps a limit with each element, so where this changes the set is emptied.
    pub limit: Option<u32>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: Name,
    /// Where the kernel calls it; none for a chain that others go to.
    pub base: Option<Base>,
    /// Its rules, each a list of statements.
    pub rules: Vec<Vec<Phrase>>,
}

impl Chain {
    /// A chain that others go to.
    pub(super) fn regular(name: impl Into<Name>, rules: Vec<Vec<Phrase>>) -> Self {
        Self { name: name.into(), base: None, rules }
    }
}

/// What makes a chain a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: NfChainType,
    /// Where in the packet's way.
    pub hook: NfHook,
    /// The lower, the earlier.
    pub priority: i32,
    /// What happens to a packet that no rule decided.
    pub policy: NfChainPolicy,
}

impl Set {
    /// A set of ranges.
    pub(super) fn ranges(name: impl Into<Name>, fields: impl Into<Vec<&'static str>>, elements: Vec<Element>) -> Self {
        Self::new(name.into(), Kind::Ranges(fields.into()), elements)
    }

    /// A set of single values.
    pub(super) fn exact(name: impl Into<Name>, fields: impl Into<Vec<&'static str>>, elements: Vec<Element>) -> Self {
        Self::new(name.into(), Kind::Exact(fields.into()), elements)
    }

    /// A map.
    pub(super) fn map(name: &'static str, elements: Vec<Element>) -> Self {
        Self::new(name.into(), Kind::Map, elements)
    }

    fn new(name: Name, kind: Kind, mut elements: Vec<Element>) -> Self {
        elements.sort();
        elements.dedup();
        Self { name, kind, elements }
    }
}

/// nft's names of what an element's field holds.
pub(super) mod fields {
    /// An IPv4 address.
    pub(in super::super) const V4: &str = "ipv4_addr";
    /// An IPv6 address.
    pub(in super::super) const V6: &str = "ipv6_addr";
    /// A port.
    pub(in super::super) const PORT: &str = "inet_service";
    /// A protocol.
    pub(in super::super) const PROTOCOL: &str = "inet_proto";
    /// An interface's name.
    pub(in super::super) const INTERFACE: &str = "ifname";
}
