//! What peers may reach on this server, and who may reach them: the configuration's lists, with the names in them
//! resolved. Pure.
//!
//! Components compile this in their own ways (sets of the kernel, look-ups for live flows); [`Access::judge`] says in
//! the plainest way what they have to agree with.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use serde::{Deserialize, Serialize};

use super::Tunnel;
use crate::config::{AccessEntry, AccessLists, Acl, Config, Peer, Place, Ports, Transport, Wireguard};
use crate::net::{overlap, v4};
use crate::site::{PrivateLink, Site};
use bastiond_tunnel::key::PublicKey;

/// What the lists of all peers say. There is none where no peer has a list and the default is as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Access {
    /// The groups that some peer is in, sorted by name.
    pub(crate) groups: Vec<(String, Lists)>,
    /// The peers that have lists, or have to be told apart from those that do.
    pub(crate) peers: Vec<AccessPeer>,
    /// What peers without a list reach; `None`: as without any list.
    pub(crate) default: Option<Reach>,
}

/// The lists of a group, or a peer's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lists {
    /// What is reached; `None`: no list.
    pub(crate) reach: Option<Reach>,
    /// What is not reached.
    pub(crate) deny: Reach,
    /// Who may open flows to the peer, as lines whose `to` is the source; `None`: no list.
    pub(crate) from: Option<Vec<Acl>>,
}

/// The entries of a list by what decides about them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reach {
    /// By the destination's address. `from` is empty in all of them, `to` in none.
    pub(crate) to: Vec<Acl>,
    /// To the internet, wherever that is: `from` and `to` are empty.
    pub(crate) internet: Vec<Acl>,
    /// SSH to this server.
    pub(crate) ssh: bool,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessPeer {
    /// Who it is.
    pub(crate) key: PublicKey,
    /// Its IPv4 addresses, without those that a narrower range gives to another peer. They overlap with no other peer's.
    pub(crate) v4: Vec<Ipv4Net>,
    /// The same for IPv6.
    pub(crate) v6: Vec<Ipv6Net>,
    /// Its groups, as indices.
    pub(crate) groups: Vec<usize>,
    /// Its own lists.
    pub(crate) own: Lists,
    /// Whether it may log in to this server.
    pub(crate) ssh: bool,
}

/// A new flow, as lists see it: with the destination that a forward leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewFlow {
    /// Who opens it.
    pub(crate) source: Ipv4Addr,
    /// Where it leads.
    pub(crate) destination: Ipv4Addr,
    /// The protocol's number in the IP header.
    pub(crate) protocol: u8,
    /// The destination port, if the protocol has ports.
    pub(crate) port: Option<u16>,
    /// Whether it leaves by the public link.
    pub(crate) to_internet: bool,
}

/// What the lists say about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// No list is about it: what holds for peers without lists holds.
    Unlisted,
    /// A list allows it.
    Allowed,
    /// A list denies it, or no list allows it.
    Denied,
}

/// What the lists say on this server; `None` if they say nothing.
pub(crate) fn access(config: &Config, site: &Site, tunnel: &Tunnel) -> Option<Access> {
    let wireguard = config.wireguard.as_ref()?;
    let is_listed = |peer: &Peer| wireguard.lists_of(peer).any(|lists| *lists != AccessLists::default());
    if wireguard.default_reach.is_none() && !wireguard.peers.iter().any(is_listed) {
        return None;
    }
    let names = Names { site, tunnel };
    let in_use: BTreeSet<&String> = wireguard.peers.iter().flat_map(|peer| &peer.access.groups).collect();
    let used: Vec<_> = wireguard.groups.iter().filter(|group| in_use.contains(&group.name)).collect();
    let mut access = Access {
        groups: used.iter().map(|group| (group.name.clone(), names.lists(&group.lists))).collect(),
        peers: Vec::with_capacity(wireguard.peers.len()),
        default: wireguard.default_reach.as_deref().map(|entries| names.reach(entries)),
    };
    for (peer, (v4, v6)) in wireguard.peers.iter().zip(owned(wireguard)) {
        let index = |name: &String| used.binary_search_by(|group| group.name.cmp(name)).ok();
        let groups = peer.access.groups.iter().filter_map(index).collect();
        let own = names.lists(&peer.access.lists);
        let mut peer = AccessPeer { key: peer.public_key, v4, v6, groups, own, ssh: false };
        peer.ssh = access.allows_ssh(&peer);
        access.peers.push(peer);
    }
    Some(access)
}

/// What names in lists stand for on this server.
struct Names<'a> {
    site: &'a Site,
    tunnel: &'a Tunnel,
}

impl Names<'_> {
    fn lists(&self, AccessLists { reach, deny, from }: &AccessLists) -> Lists {
        Lists {
            reach: reach.as_deref().map(|entries| self.reach(entries)),
            deny: self.reach(deny),
            from: from.as_ref().map(|entries| entries.iter().filter_map(|entry| self.line(entry)).collect()),
        }
    }

    fn reach(&self, entries: &[AccessEntry]) -> Reach {
        let mut reach = Reach::default();
        for entry in entries {
            match &entry.place {
                Place::BastionSsh => reach.ssh = true,
                Place::Internet => reach.internet.push(Acl { to: Vec::new(), ..of_entry(entry) }),
                _ => reach.to.extend(self.line(entry)),
            }
        }
        reach
    }

    /// An entry as a line; `None` if its place has no addresses here: a line without a destination would be for every
    /// one.
    fn line(&self, entry: &AccessEntry) -> Option<Acl> {
        let to = self.ranges(&entry.place);
        (!to.is_empty()).then(|| Acl { to, ..of_entry(entry) })
    }

    fn ranges(&self, place: &Place) -> Vec<Ipv4Net> {
        let of_links = |is_meant: &dyn Fn(&PrivateLink) -> bool| {
            self.site.private.iter().filter(|link| is_meant(link)).flat_map(PrivateLink::ranges).collect()
        };
        match place {
            Place::Range(range) => vec![*range],
            Place::Host(_, ranges) => ranges.clone(),
            Place::Network(_, name) => of_links(&|link| name.is(link.network, &link.interface)),
            Place::Private => of_links(&|_| true),
            Place::Peers => v4(self.tunnel.sources()),
            Place::Internet | Place::BastionSsh => Vec::new(),
        }
    }
}

fn of_entry(AccessEntry { place: _, protocol, ports }: &AccessEntry) -> Acl {
    Acl { from: Vec::new(), to: Vec::new(), protocol: *protocol, ports: ports.clone() }
}

/// By peer: its addresses without those of narrower ranges of other peers, as the tunnel tells peers apart.
fn owned(wireguard: &Wireguard) -> Vec<(Vec<Ipv4Net>, Vec<Ipv6Net>)> {
    let mut owned = vec![(Vec::new(), Vec::new()); wireguard.peers.len()];
    let ranges = |is_v4: bool| {
        let all = wireguard.peers.iter().enumerate();
        let all = all.flat_map(|(index, peer)| peer.allowed_ips.iter().map(move |range| (index, *range)));
        all.filter(move |(_, range)| matches!(range, IpNet::V4(_)) == is_v4).collect::<Vec<_>>()
    };
    for (index, first, last) in apart(ranges(true)) {
        let address = |bits: u128| Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX));
        owned[index].0.extend(Ipv4Subnets::new(address(first), address(last), 0));
    }
    for (index, first, last) in apart(ranges(false)) {
        owned[index].1.extend(Ipv6Subnets::new(first.into(), last.into(), 0));
    }
    owned
}

/// Cuts ranges of one family, of which each two are apart or nested, into pieces that are apart: an address belongs to
/// the narrowest range that contains it.
fn apart(ranges: Vec<(usize, IpNet)>) -> Vec<(usize, u128, u128)> {
    let bounds = |range: IpNet| match range {
        IpNet::V4(range) => (u32::from(range.network()).into(), u32::from(range.broadcast()).into()),
        IpNet::V6(range) => (u128::from(range.network()), u128::from(range.broadcast())),
    };
    let mut ranges: Vec<(u128, u8, u128, usize)> = ranges
        .into_iter()
        .map(|(index, range)| {
            let (first, last) = bounds(range);
            (first, range.prefix_len(), last, index)
        })
        .collect();
    ranges.sort_unstable();
    let (mut pieces, mut open): (Vec<_>, Vec<(usize, u128)>) = (Vec::new(), Vec::new());
    // The first address that belongs to no piece yet; `None` beyond the last address of all.
    let mut next = Some(0_u128);
    let mut cut = |next: &mut Option<u128>, index: usize, last: u128| {
        if let Some(first) = next.filter(|first| *first <= last) {
            pieces.push((index, first, last));
            *next = last.checked_add(1);
        }
    };
    for (first, _, last, index) in ranges {
        while let Some(&(outer, end)) = open.last().filter(|(_, end)| *end < first) {
            open.pop();
            cut(&mut next, outer, end);
        }
        if let Some((outer, _)) = open.last().filter(|_| first > 0) {
            cut(&mut next, *outer, first - 1);
        }
        next = next.map(|next| next.max(first));
        open.push((index, last));
    }
    while let Some((outer, end)) = open.pop() {
        cut(&mut next, outer, end);
    }
    pieces
}

impl Access {
    /// The lists that hold for a peer: those of its groups, then its own.
    pub(crate) fn lists_of<'a>(&'a self, peer: &'a AccessPeer) -> impl Iterator<Item = &'a Lists> + 'a {
        peer.groups.iter().filter_map(|index| self.groups.get(*index)).map(|(_, lists)| lists).chain([&peer.own])
    }

    /// Whether lists say what a peer reaches.
    pub(crate) fn limits_reach(&self, peer: &AccessPeer) -> bool {
        self.lists_of(peer).any(|lists| lists.reach.is_some() || !lists.deny.is_empty())
    }

    /// Whether lists say who reaches a peer.
    pub(crate) fn limits_origin(&self, peer: &AccessPeer) -> bool {
        self.lists_of(peer).any(|lists| lists.reach.is_some() || lists.from.is_some())
    }

    /// Whether a peer may log in to this server. By the compiled lists: there may be a thousand entries for each of ten
    /// thousand peers.
    fn allows_ssh(&self, peer: &AccessPeer) -> bool {
        let mut reach = self.lists_of(peer).filter_map(|lists| lists.reach.as_ref()).peekable();
        let is_denied = self.lists_of(peer).any(|lists| lists.deny.ssh);
        let is_reached = match (reach.peek(), &self.default) {
            (Some(_), _) => reach.any(|reach| reach.ssh),
            (None, Some(default)) => default.ssh,
            (None, None) => true,
        };
        is_reached && !is_denied
    }

    /// Every list once: those of the groups that some peer is in, and the peers' own.
    fn all_lists(&self) -> impl Iterator<Item = &Lists> {
        self.groups.iter().map(|(_, lists)| lists).chain(self.peers.iter().map(|peer| &peer.own))
    }

    /// Whether a list names who reaches peers.
    pub(crate) fn names_origins(&self) -> bool {
        self.all_lists().any(|lists| lists.from.as_ref().is_some_and(|lines| !lines.is_empty()))
    }

    /// Whether a list names addresses of peers as something to reach.
    pub(crate) fn leads_to_peers(&self, tunnel: &Tunnel) -> bool {
        let reach = self.all_lists().filter_map(|lists| lists.reach.as_ref()).chain(&self.default);
        let peers = tunnel.routed();
        let mut named = reach.flat_map(|reach| reach.to.iter().flat_map(|line| &line.to));
        named.any(|range| peers.iter().any(|peer| overlap(*range, *peer)))
    }

    /// Whether lists say what some peer reaches.
    pub(crate) fn has_reach(&self) -> bool {
        self.default.is_some() || self.all_lists().any(|lists| lists.reach.is_some())
    }

    /// What the lists say about a flow that a peer opens. [`Judgement::Unlisted`] means: what peers reach without
    /// lists.
    pub(crate) fn judge_reach(&self, peer: &AccessPeer, flow: &NewFlow) -> Judgement {
        if self.lists_of(peer).any(|lists| lists.deny.contains(flow)) {
            return Judgement::Denied;
        }
        let mut lists: Vec<&Reach> = self.lists_of(peer).filter_map(|lists| lists.reach.as_ref()).collect();
        if lists.is_empty() {
            lists.extend(&self.default);
        }
        match lists.as_slice() {
            [] => Judgement::Unlisted,
            lists if lists.iter().any(|reach| reach.contains(flow)) => Judgement::Allowed,
            _ => Judgement::Denied,
        }
    }

    /// What the lists say about a flow that somebody inside opens to a peer.
    pub(crate) fn judge_origin(&self, peer: &AccessPeer, flow: &NewFlow) -> Judgement {
        if !self.limits_origin(peer) {
            return Judgement::Unlisted;
        }
        let origin = NewFlow { destination: flow.source, ..*flow };
        let mut lines = self.lists_of(peer).flat_map(|lists| lists.from.iter().flatten());
        if lines.any(|line| matches(line, &origin)) { Judgement::Allowed } else { Judgement::Denied }
    }

    /// By address: the peer that has it.
    pub(crate) fn peer_at(&self, address: Ipv4Addr) -> Option<&AccessPeer> {
        self.peers.iter().find(|peer| peer.v4.iter().any(|range| range.contains(&address)))
    }
}

impl Reach {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { to, internet, ssh } = self;
        to.is_empty() && internet.is_empty() && !ssh
    }

    pub(super) fn contains(&self, flow: &NewFlow) -> bool {
        let by_address = self.to.iter().any(|line| matches(line, flow));
        by_address || flow.to_internet && self.internet.iter().any(|line| matches(line, flow))
    }
}

/// Whether a line, whose sources are everyone, matches a flow.
fn matches(line: &Acl, flow: &NewFlow) -> bool {
    let to = line.to.is_empty() || line.to.iter().any(|range| range.contains(&flow.destination));
    let protocol = match line.protocol.number() {
        Some(number) => number == flow.protocol,
        None => line.ports.is_empty() || Transport::ALL.iter().any(|transport| transport.number() == flow.protocol),
    };
    let port = |ports: &Ports| flow.port.is_some_and(|port| ports.overlaps(Ports::single(port)));
    to && protocol && (line.ports.is_empty() || line.ports.iter().any(port))
}
