//! A feature of the gateway as one value: what it counts and looks up, its chains, and its rules in the chains that all
//! share.

use crate::net::InterfaceName;

use super::super::model::{Chain, Meter, Name, Rule, Set};

/// One feature's part of the table.
#[derive(Debug, Default)]
pub(super) struct Feature {
    pub counters: Vec<&'static str>,
    pub sets: Vec<Set>,
    pub meters: Vec<Meter>,
    pub chains: Vec<(Section, Chain)>,
    /// Its rules in the chains `forward`, `input` and `postrouting`.
    pub rules: Vec<(Slot, Rule)>,
    /// Where it lets new flows be forwarded, and the section of the chain that decides about them.
    pub paths: Vec<(Section, ForwardPath)>,
}

/// The sections of the table in the order of its listing. A chain stands before those that go to it, so the ends of
/// packets come first, and base chains come after the chains that they use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    DropReasons,
    Related,
    Admission,
    Early,
    Prerouting,
    Egress,
    Translated,
    Published,
    Lateral,
    Local,
    Tunnel,
    Forward,
    Input,
    TunnelPort,
    Output,
    Postrouting,
    Leaving,
}

/// The places for features' rules in shared chains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// In `forward`, before packets of known flows pass.
    ForwardGuard,
    /// In `forward`, after packets of known flows have passed.
    ForwardUntranslated,
    /// In `input`, after packets of known flows have passed, in this order.
    InputTunnel,
    InputStatic,
    InputSsh,
    InputServices,
    InputLocal,
    /// In `postrouting`, in this order.
    SourceNatStatic,
    SourceNatEgress,
    SourceNatForward,
    SourceNatHairpin,
    SourceNatLocal,
    SourceNatTunnel,
    SourceNatProbes,
    SourceNatKeep,
    SourceNatMissing,
}

/// New flows from one interface to another, about which a chain decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForwardPath {
    pub from: InterfaceName,
    pub to: InterfaceName,
    pub chain: Name,
}

impl Feature {
    /// All features as one.
    pub(super) fn merged(features: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for feature in features {
            all.counters.extend(feature.counters);
            all.sets.extend(feature.sets);
            all.meters.extend(feature.meters);
            all.chains.extend(feature.chains);
            all.rules.extend(feature.rules);
            all.paths.extend(feature.paths);
        }
        all.paths.sort_by_key(|(section, _)| *section);
        all
    }

    /// Takes the rules for one place out.
    pub(super) fn take_rules(&mut self, slot: Slot) -> Vec<Rule> {
        let (taken, rest) = std::mem::take(&mut self.rules).into_iter().partition(|(place, _)| *place == slot);
        self.rules = rest;
        let taken: Vec<(Slot, Rule)> = taken;
        taken.into_iter().map(|(_, rule)| rule).collect()
    }

    /// All chains in the order of the table.
    pub(super) fn into_chains(mut self) -> Vec<Chain> {
        self.chains.sort_by_key(|(section, _)| *section);
        self.chains.into_iter().map(|(_, chain)| chain).collect()
    }
}
