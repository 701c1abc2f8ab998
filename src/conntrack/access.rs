//! The lists of peers, looked up instead of walked: a hundred thousand flows may meet ten thousand peers and lines.

use std::collections::HashMap;

use super::lookup::AccessList;
use super::model::Tuple;
use crate::inputs::{Access, AccessPeer, Judgement, Lists, Reach};
use bastiond_tunnel::key::PublicKey;

/// The lists of peers, as [`Access::judge_reach`] and [`Access::judge_origin`] judge by them.
#[derive(Debug, Default)]
pub(super) struct PeerLists<'p> {
    peers: HashMap<PublicKey, PeerEntry<'p>>,
    groups: Vec<LookedUpLists>,
    default: Option<LookedUpReach>,
}

#[derive(Debug)]
struct PeerEntry<'p> {
    peer: &'p AccessPeer,
    /// `None`: it has no lists of its own.
    own: Option<LookedUpLists>,
    limits_reach: bool,
    limits_origin: bool,
}

#[derive(Debug)]
struct LookedUpLists {
    reach: Option<LookedUpReach>,
    deny: LookedUpReach,
    from: Option<AccessList>,
}

#[derive(Debug)]
struct LookedUpReach {
    to: AccessList,
    internet: AccessList,
}

impl<'p> PeerLists<'p> {
    pub(super) fn new(access: &'p Access) -> Self {
        let entry = |peer: &'p AccessPeer| PeerEntry {
            own: (peer.own != Lists::default()).then(|| LookedUpLists::new(&peer.own)),
            limits_reach: access.limits_reach(peer),
            limits_origin: access.limits_origin(peer),
            peer,
        };
        Self {
            peers: access.peers.iter().map(|peer| (peer.key, entry(peer))).collect(),
            groups: access.groups.iter().map(|(_, lists)| LookedUpLists::new(lists)).collect(),
            default: access.default.as_ref().map(LookedUpReach::new),
        }
    }

    /// What the lists say about a flow with this first packet, which the peer opens.
    pub(super) fn judge_reach(&self, key: PublicKey, first: &Tuple, to_internet: bool) -> Judgement {
        let entry = self.peers.get(&key);
        let lists = || entry.into_iter().filter(|entry| entry.limits_reach).flat_map(|entry| self.lists_of(entry));
        if lists().any(|lists| lists.deny.contains(first, to_internet)) {
            return Judgement::Denied;
        }
        let mut reach = lists().filter_map(|lists| lists.reach.as_ref()).peekable();
        match (reach.peek(), &self.default) {
            (Some(_), _) => decide(reach.any(|reach| reach.contains(first, to_internet))),
            (None, Some(default)) => decide(default.contains(first, to_internet)),
            (None, None) => Judgement::Unlisted,
        }
    }

    /// What the lists say about a flow with this first packet, which somebody inside opens to the peer.
    pub(super) fn judge_origin(&self, key: PublicKey, first: &Tuple) -> Judgement {
        let Some(entry) = self.peers.get(&key).filter(|entry| entry.limits_origin) else { return Judgement::Unlisted };
        let origin = Tuple { destination: first.source, ..*first };
        let mut from = self.lists_of(entry).filter_map(|lists| lists.from.as_ref());
        decide(from.any(|list| list.matches(&origin)))
    }

    fn lists_of<'a>(&'a self, entry: &'a PeerEntry<'p>) -> impl Iterator<Item = &'a LookedUpLists> + 'a {
        entry.peer.groups.iter().filter_map(|index| self.groups.get(*index)).chain(&entry.own)
    }
}

fn decide(is_allowed: bool) -> Judgement {
    if is_allowed { Judgement::Allowed } else { Judgement::Denied }
}

impl LookedUpLists {
    fn new(Lists { reach, deny, from }: &Lists) -> Self {
        Self {
            reach: reach.as_ref().map(LookedUpReach::new),
            deny: LookedUpReach::new(deny),
            from: from.as_deref().map(AccessList::new),
        }
    }
}

impl LookedUpReach {
    /// SSH to this server never ends, so it is left out.
    fn new(Reach { to, internet, ssh: _ }: &Reach) -> Self {
        Self { to: AccessList::new(to), internet: AccessList::new(internet) }
    }

    fn contains(&self, first: &Tuple, to_internet: bool) -> bool {
        self.to.matches(first) || to_internet && self.internet.matches(first)
    }
}
