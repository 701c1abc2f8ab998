//! The lists of peers as sets, maps and chains.
//!
//! A new flow of a peer looks its source up once, which leads to the chain of the peer's combination of groups. There
//! it meets the sets of these groups, whatever other peers and groups there are. The own lists of peers are pairs of
//! peer and destination in sets that all peers share, and only peers with such a list come to them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::super::disjoint::Range;
use super::super::element::{Element, FieldValue, ranges, ranges6};
use super::super::model::{Chain, Name, Rule, Set, fields};
use super::super::statement::{eq, field, goto, interface, new_counter, oifname, set, update_with, vmap_of};
use super::access_list::AccessList;
use super::drops::{DropReason, drop_as};
use super::ssh::is_to_ssh;
use super::{answer_unknown_flows, comes_in_by};
use crate::config::Acl;
use crate::inputs::{Access, AccessPeer, Lists, Reach};
use crate::net::InterfaceName;

/// What a list allows, as far as there is a path for it.
pub(super) const ALLOWED: &str = "peer_allowed";
/// What a peer's lists do not allow, counted by peer.
const REFUSED: &str = "peer_refused";
/// The same for flows to a peer.
const REFUSED_ORIGIN: &str = "peer_refused_origin";
/// How long the names of groups in a chain's name may be together, in characters; nft takes 127 for all of it.
const MAX_NAMES: usize = 96;

/// The set of the peers of which packets were refused, with how many.
pub(super) const REFUSED_PEERS: &str = "refused_peers";

/// The lists of all peers, ready for the tunnel's chains.
pub(super) struct PeerLists<'a> {
    access: &'a Access,
    /// The public link.
    public: Option<&'a InterfaceName>,
    groups: Vec<CompiledLists>,
    own: CompiledLists,
    default: Option<CompiledReach>,
}

/// A group's lists, or the own lists of all peers.
#[derive(Default)]
struct CompiledLists {
    reach: CompiledReach,
    deny: CompiledReach,
    from: Option<PeerList>,
}

/// What is reached, or not, by what decides about it.
#[derive(Default)]
struct CompiledReach {
    to: Option<PeerList>,
    internet: Option<PeerList>,
}

/// A list of one group, or of all peers.
struct PeerList {
    list: AccessList,
    /// Whether its lines name the peer too.
    is_shared: bool,
}

/// Which lists hold for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Class<'a> {
    /// Its groups, as indices.
    groups: &'a [usize],
    /// Whether it has lists of its own.
    own: bool,
    /// Whether it reaches what is reached without a list, since none of its lists says what it reaches.
    is_open: bool,
}

impl<'a> PeerLists<'a> {
    pub(super) fn new(access: &'a Access, public: Option<&'a InterfaceName>) -> Self {
        // A group's name has letters, digits, `-` and `_`; what follows it in the name of a set begins with `_`.
        let groups = access.groups.iter().map(|(name, lists)| CompiledLists::of_group(&name.replace('_', "."), lists));
        Self {
            public,
            groups: groups.collect(),
            own: CompiledLists::of_peers(&access.peers),
            default: access.default.as_ref().map(|reach| CompiledReach::of_group("default_reach", reach)),
            access,
        }
    }

    /// The rules for the first packet of a flow from a peer. A flow of a peer without lists continues, unless the
    /// configuration says what such peers reach.
    pub(super) fn rules_from_peers(&self) -> Vec<Rule> {
        let lookup = |map: Set| vec![vmap_of(field("ip", "saddr"), map.name)];
        self.reach_maps().into_iter().map(lookup).chain(self.default_rules()).collect()
    }

    /// The rules for the first packet of a flow to a peer. A flow to a peer without lists continues.
    pub(super) fn rules_to_peers(&self) -> Vec<Rule> {
        self.origin_maps().into_iter().map(|map| vec![vmap_of(field("ip", "daddr"), map.name)]).collect()
    }

    /// The rules that keep peers from logging in to this server whose lists do not allow it.
    pub(super) fn rules_for_ssh(&self, tunnel: &InterfaceName) -> Vec<Rule> {
        let rule = |refused: Set| {
            let protocol = if refused.kind.fields().contains(&fields::V6) { "ip6" } else { "ip" };
            let source = eq(field(protocol, "saddr"), set(refused.name));
            // IPv6 is not counted by peer.
            let end = if protocol == "ip" { goto(REFUSED) } else { drop_as(DropReason::Access) };
            vec![comes_in_by(tunnel), is_to_ssh(), source, end]
        };
        self.ssh_sets().into_iter().map(rule).collect()
    }

    /// All sets and maps. A name that no rule looks into has no set.
    pub(super) fn sets(self) -> Vec<Set> {
        let mut sets: Vec<Set> =
            self.reach_maps().into_iter().chain(self.origin_maps()).chain(self.ssh_sets()).collect();
        let lists = self.groups.into_iter().chain([self.own]);
        sets.extend(lists.flat_map(CompiledLists::into_sets));
        sets.extend(self.default.into_iter().flat_map(CompiledReach::into_sets));
        sets
    }

    /// The chains of all combinations of lists. `let_through`: where flows to peers go that are allowed; `unlisted`:
    /// where flows of peers go that no list is about.
    pub(super) fn chains(&self, let_through: &'static str, unlisted: &'static str) -> Vec<Chain> {
        let refused = |name: &'static str, peer: &'static str| {
            let count = update_with(REFUSED_PEERS, &field("ip", peer), &new_counter());
            // Two rules: a packet is dropped whether or not it can be counted.
            Chain::regular(name, vec![vec![count], vec![drop_as(DropReason::Access)]])
        };
        let mut chains = vec![refused(REFUSED, "saddr"), refused(REFUSED_ORIGIN, "daddr")];
        let reach: BTreeSet<Class<'_>> = self.access.peers.iter().filter_map(|peer| self.reach_class(peer)).collect();
        chains.extend(reach.into_iter().map(|class| {
            let denied = self.lists_of(class).flat_map(|lists| lists.deny.rules(self.public, REFUSED));
            let allowed = self.lists_of(class).flat_map(|lists| lists.reach.rules(self.public, ALLOWED));
            let mut rules: Vec<Rule> = denied.chain(allowed).collect();
            match (class.is_open, self.default_rules()) {
                (false, _) => rules.push(vec![goto(REFUSED)]),
                (true, default) if default.is_empty() => rules.push(vec![goto(unlisted)]),
                (true, default) => rules.extend(default),
            }
            Chain::regular(self.chain_name("reach", class), rules)
        }));
        let origin: BTreeSet<Class<'_>> = self.access.peers.iter().filter_map(|peer| self.origin_class(peer)).collect();
        chains.extend(origin.into_iter().map(|class| {
            let from = self.lists_of(class).filter_map(|lists| lists.from.as_ref());
            let mut rules: Vec<Rule> = from.flat_map(|list| list.rules_of_origin(let_through)).collect();
            rules.push(answer_unknown_flows());
            rules.push(vec![goto(REFUSED_ORIGIN)]);
            Chain::regular(self.chain_name("origin", class), rules)
        }));
        chains
    }

    /// What peers without a list reach; nothing if the configuration does not say it.
    fn default_rules(&self) -> Vec<Rule> {
        let rules = self.default.iter().flat_map(|default| default.rules(self.public, ALLOWED));
        rules.chain(self.default.iter().map(|_| vec![goto(REFUSED)])).collect()
    }

    fn lists_of(&self, class: Class<'_>) -> impl Iterator<Item = &CompiledLists> {
        let groups = class.groups.iter().filter_map(|index| self.groups.get(*index));
        groups.chain(class.own.then_some(&self.own)).collect::<Vec<_>>().into_iter()
    }

    /// Which lists say what a peer reaches; `None` if none does.
    fn reach_class(&self, peer: &'a AccessPeer) -> Option<Class<'a>> {
        let own = peer.own.reach.is_some() || !peer.own.deny.is_empty();
        let is_open = !self.access.lists_of(peer).any(|lists| lists.reach.is_some());
        self.access.limits_reach(peer).then_some(Class { groups: &peer.groups, own, is_open })
    }

    /// Which lists say who reaches a peer; `None` if none does.
    fn origin_class(&self, peer: &'a AccessPeer) -> Option<Class<'a>> {
        let own = peer.own.from.is_some();
        self.access.limits_origin(peer).then_some(Class { groups: &peer.groups, own, is_open: false })
    }

    /// Named after the groups, so that it keeps its name when other groups come and go.
    fn chain_name(&self, kind: &str, class: Class<'_>) -> Name {
        let Class { groups, own, is_open } = class;
        let words = format!("{}{}{kind}", if is_open { "open_" } else { "" }, if own { "own_" } else { "" });
        let names: Vec<&str> =
            groups.iter().filter_map(|index| Some(self.access.groups.get(*index)?.0.as_str())).collect();
        let names = names.join(".");
        if names.len() <= MAX_NAMES {
            return format!("{words}_{names}").into();
        }
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        // No group begins with a dot.
        format!("{words}_.{:016x}", hasher.finish()).into()
    }

    fn reach_maps(&self) -> Vec<Set> {
        self.maps(["peer_reach", "peer_reach_ranges"], "reach", |peer| self.reach_class(peer))
    }

    fn origin_maps(&self) -> Vec<Set> {
        self.maps(["peer_origin", "peer_origin_ranges"], "origin", |peer| self.origin_class(peer))
    }

    /// The maps from the addresses of peers, and from the ranges behind them, to their chains.
    fn maps(
        &self,
        [exact, ranges]: [&'static str; 2],
        kind: &str,
        class_of: impl Fn(&'a AccessPeer) -> Option<Class<'a>>,
    ) -> Vec<Set> {
        let mut chains: BTreeMap<Class<'a>, Arc<str>> = BTreeMap::new();
        let (mut single, mut wide) = (Vec::new(), Vec::new());
        for peer in &self.access.peers {
            let Some(class) = class_of(peer) else { continue };
            let chain = chains.entry(class).or_insert_with(|| self.chain_name(kind, class).as_ref().into());
            for range in joined(&peer.v4) {
                let to = if range.is_single() { &mut single } else { &mut wide };
                to.push(Element::mapping([FieldValue::addresses(range)], [FieldValue::Chain(Arc::clone(chain))]));
            }
        }
        Set::chain_map(exact, single).into_iter().chain(Set::chain_range_map(ranges, wide)).collect()
    }

    /// The addresses of peers that may not log in to this server.
    fn ssh_sets(&self) -> Vec<Set> {
        let refused: Vec<&AccessPeer> = self.access.peers.iter().filter(|peer| !peer.ssh).collect();
        let v4 = ranges(refused.iter().flat_map(|peer| peer.v4.iter().copied()));
        let v6 = ranges6(refused.iter().flat_map(|peer| peer.v6.iter().copied()));
        let sets = [("peer_no_ssh4", fields::V4, v4), ("peer_no_ssh6", fields::V6, v6)];
        let sets = sets.into_iter().filter(|(.., elements)| !elements.is_empty());
        sets.map(|(name, field, elements)| Set::ranges(name, [field], elements)).collect()
    }
}

impl CompiledLists {
    fn of_group(name: &str, Lists { reach, deny, from }: &Lists) -> Self {
        let from = from.as_ref().map(|lines| PeerList::of_group(&format!("peer_from_{name}"), lines));
        Self {
            reach: reach
                .as_ref()
                .map(|reach| CompiledReach::of_group(&format!("peer_to_{name}"), reach))
                .unwrap_or_default(),
            deny: CompiledReach::of_group(&format!("peer_not_to_{name}"), deny),
            from: from.flatten(),
        }
    }

    /// The own lists of all peers.
    fn of_peers(peers: &[AccessPeer]) -> Self {
        let reach = |lists: fn(&Lists) -> Option<&Reach>, name: &str| {
            let with_own = || peers.iter().filter_map(|peer| Some((peer, lists(&peer.own)?)));
            let to = with_own().flat_map(|(peer, reach)| reach.to.iter().map(move |line| pair(peer, line)));
            let internet = with_own().flat_map(|(peer, reach)| reach.internet.iter().map(move |line| pair(peer, line)));
            CompiledReach {
                to: PeerList::shared(name, to),
                internet: PeerList::shared(&format!("{name}_internet"), internet),
            }
        };
        let from = peers.iter().flat_map(|peer| peer.own.from.iter().flatten().map(move |line| pair(peer, line)));
        Self {
            reach: reach(|lists| lists.reach.as_ref(), "own_to"),
            deny: reach(|lists| Some(&lists.deny), "own_not_to"),
            from: PeerList::shared("own_from", from),
        }
    }

    fn into_sets(self) -> impl Iterator<Item = Set> {
        let Self { reach, deny, from } = self;
        reach.into_sets().chain(deny.into_sets()).chain(from.into_iter().flat_map(|list| list.list.into_sets()))
    }
}

/// Ascending networks as ranges, of which those that touch are one.
fn joined(networks: &[Ipv4Net]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(networks.len());
    for next in networks.iter().copied().map(Range::from_network) {
        match ranges.last_mut().filter(|last| last.is_followed_by(next)) {
            // Two addresses that a peer has one by one stay apart: single ones are looked up faster.
            Some(last) if !(last.is_single() && next.is_single()) => last.last = next.last,
            _ => ranges.push(next),
        }
    }
    ranges
}

/// A line of a peer's own list, with the peer in the place of its destination and the list's side of the flow in that of
/// its source: the peer is what tells most lines apart, and so is looked up first.
fn pair(peer: &AccessPeer, line: &Acl) -> Acl {
    Acl { to: peer.v4.clone(), from: line.to.clone(), ..line.clone() }
}

impl CompiledReach {
    fn of_group(name: &str, reach: &Reach) -> Self {
        Self {
            to: PeerList::of_group(name, &reach.to),
            internet: PeerList::of_group(&format!("{name}_internet"), &reach.internet),
        }
    }

    /// Rules that send what is in the lists to a chain. `public`: the public link.
    fn rules(&self, public: Option<&InterfaceName>, chain: &'static str) -> Vec<Rule> {
        let leaves = public.map(|public| eq(oifname(), interface(public)));
        let internet = self.internet.iter().zip(leaves).flat_map(|(list, leaves)| {
            list.rules_of_reach(chain).into_iter().map(move |rule| [vec![leaves.clone()], rule].concat())
        });
        self.to.iter().flat_map(|list| list.rules_of_reach(chain)).chain(internet).collect()
    }

    fn into_sets(self) -> impl Iterator<Item = Set> {
        self.to.into_iter().chain(self.internet).flat_map(|list| list.list.into_sets())
    }
}

impl PeerList {
    fn of_group(name: &str, lines: &[Acl]) -> Option<Self> {
        let list = AccessList::of_destinations(name, lines);
        (!lines.is_empty()).then_some(Self { list, is_shared: false })
    }

    /// A list of all peers. A peer without addresses has no line: it would be everybody's.
    fn shared(name: &str, lines: impl Iterator<Item = Acl>) -> Option<Self> {
        let lines: Vec<Acl> = lines.filter(|line| !line.to.is_empty()).collect();
        let list = AccessList::of_pairs(name, &lines);
        (!lines.is_empty()).then_some(Self { list, is_shared: true })
    }

    /// For packets from peers.
    fn rules_of_reach(&self, chain: &'static str) -> Vec<Rule> {
        let (source, destination) = (field("ip", "saddr"), field("ip", "daddr"));
        let goto = || vec![goto(chain)];
        if self.is_shared {
            self.list.rules_between(&source, &destination, goto)
        } else {
            self.list.rules_at(&destination, goto)
        }
    }

    /// For packets to peers.
    fn rules_of_origin(&self, chain: &'static str) -> Vec<Rule> {
        let (source, destination) = (field("ip", "saddr"), field("ip", "daddr"));
        let goto = || vec![goto(chain)];
        if self.is_shared {
            self.list.rules_between(&destination, &source, goto)
        } else {
            self.list.rules_at(&source, goto)
        }
    }
}
