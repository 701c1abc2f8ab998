//! What peers may reach: `[[wireguard.group]]`, and the lists of peers.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::access_entry::parse_entry;
use super::budget::Budget;
use super::diagnostics::Diagnostics;
use super::peers::{CheckedPeer, RawAccess, RawLists};
use super::places::{Places, parse_name};
use super::suggestion::similar;
use crate::config::access::{AccessEntry, AccessLists, Group, PeerAccess, Place};
use crate::config::raw::{Entry, RawGroup, RawGroups};
use crate::config::wireguard::Peer;

/// More groups make the table slow to list.
const MAX_GROUPS: usize = 256;
/// The chain of a peer's groups has rules for each of them, which a flow meets one after the other.
const MAX_GROUPS_OF_PEER: usize = 16;
/// Each combination of groups has a chain of its own.
const MAX_COMBINATIONS: usize = 1024;

/// The `[[wireguard.group]]` blocks, sorted by name.
pub(super) fn check_groups(raw: Entry<RawGroups>, places: &Places, diagnostics: &mut Diagnostics) -> Vec<Group> {
    let section = "wireguard.group";
    let blocks = diagnostics.value(section, raw).map(|blocks| blocks.0).unwrap_or_default();
    if blocks.len() > MAX_GROUPS {
        diagnostics.error(section, format!("there are {} groups; at most {MAX_GROUPS} are supported", blocks.len()));
    }
    let mut budget = Budget::new("the lists of all groups together");
    let (mut groups, mut seen) = (Vec::new(), BTreeMap::new());
    for (block, raw) in diagnostics.elements(section, blocks) {
        let RawGroup { name, reach, deny, from, unknown } = raw;
        diagnostics.reject_unknown_keys(&block, &unknown);
        diagnostics.require(&block, "name", &name, "peers name their groups by it");
        let name = diagnostics.parse_field(&block, "name", name, parse_name);
        let prefix = format!("{block}.");
        let lists = check_lists(&prefix, RawLists { reach, deny, from }, 1, places, &mut budget, diagnostics);
        let Some(name) = name else { continue };
        if let Some(earlier) = seen.insert(name.clone(), block.clone()) {
            diagnostics.error(format!("{block}.name"), format!("is also the name of {earlier}; choose another name"));
            continue;
        }
        groups.push(Group { name, lists });
    }
    budget.check(diagnostics);
    groups.sort_by(|one, other| one.name.cmp(&other.name));
    groups
}

/// `wireguard.default_reach`
pub(super) fn check_default_reach(
    raw: Entry<Vec<Entry<String>>>,
    places: &Places,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<AccessEntry>> {
    let mut budget = Budget::new("wireguard.default_reach");
    let list = check_list("wireguard.default_reach", raw, Side::Reached, 1, places, &mut budget, diagnostics);
    budget.check(diagnostics);
    list
}

/// The peers with their groups and lists.
pub(super) fn check_peers(
    peers: Vec<CheckedPeer>,
    groups: &[Group],
    places: &Places,
    diagnostics: &mut Diagnostics,
) -> Vec<Peer> {
    let mut budget = Budget::new("the own lists of all peers together (each counted for each address of its peer)");
    let mut combinations = BTreeSet::new();
    let v4 = peers.iter().flat_map(|peer| &peer.allowed_ips).filter_map(|(_, net)| bounds(net));
    let mut starts: Vec<u32> = v4.map(|(first, _)| first).collect();
    starts.sort_unstable();
    let mut checked = Vec::with_capacity(peers.len());
    for mut peer in peers {
        let RawAccess { groups: named, lists } = std::mem::take(&mut peer.access);
        let own_groups = check_groups_of_peer(&peer.prefix, named, groups, diagnostics);
        if combinations.len() < MAX_COMBINATIONS || combinations.contains(&own_groups) {
            combinations.insert(own_groups.clone());
        } else {
            let reason = format!(
                "is one more combination of groups than the {MAX_COMBINATIONS} that are supported; give peers with \
                 the same rights the same groups"
            );
            diagnostics.error(format!("{}groups", peer.prefix), reason);
        }
        let addresses = pieces_of(&peer, &starts);
        let lists = check_lists(&peer.prefix, lists, addresses, places, &mut budget, diagnostics);
        checked.extend(peer.finish(PeerAccess { groups: own_groups, lists }));
    }
    budget.check(diagnostics);
    checked
}

/// Into how many pieces a peer's IPv4 addresses are cut at most, by those of other peers inside its ranges. `starts`: the
/// first addresses of all peers' ranges, in ascending order.
fn pieces_of(peer: &CheckedPeer, starts: &[u32]) -> usize {
    let inside = |(first, last): (u32, u32)| {
        starts.partition_point(|start| *start <= last) - starts.partition_point(|start| *start < first)
    };
    peer.allowed_ips.iter().filter_map(|(_, net)| bounds(net)).map(inside).sum()
}

/// The first and last address of an IPv4 range.
fn bounds(net: &IpNet) -> Option<(u32, u32)> {
    match net {
        IpNet::V4(net) => Some((net.network().into(), net.broadcast().into())),
        IpNet::V6(_) => None,
    }
}

fn check_groups_of_peer(
    prefix: &str,
    raw: Entry<Vec<Entry<String>>>,
    groups: &[Group],
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    if matches!(raw, Entry::Absent) {
        return Vec::new();
    }
    let key = format!("{prefix}groups");
    let named = diagnostics.value(&key, raw).unwrap_or_default();
    if named.len() > MAX_GROUPS_OF_PEER {
        let reason = format!("names {} groups; at most {MAX_GROUPS_OF_PEER} are supported", named.len());
        diagnostics.error(&key, reason);
    }
    let mut found = BTreeSet::new();
    for (key, name) in diagnostics.elements(&key, named) {
        if groups.binary_search_by(|group| group.name.cmp(&name)).is_err() {
            let known = similar(&name, groups.iter().map(|group| group.name.as_str()));
            let advice = known.map_or_else(
                || "add a [[wireguard.group]] with that name".to_owned(),
                |meant| format!("did you mean `{meant}`?"),
            );
            diagnostics.error(key, format!("there is no group `{}`; {advice}", name.escape_debug()));
        } else if !found.insert(name.clone()) {
            diagnostics.error(key, format!("{name} is listed twice; remove one of them"));
        }
    }
    found.into_iter().collect()
}

/// Which side of a flow the entries of a list name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// What peers reach, or not.
    Reached,
    /// Who reaches peers.
    Origin,
}

/// `copies`: into how many entries of the kernel's sets each entry becomes for each of its ranges.
fn check_lists(
    prefix: &str,
    RawLists { reach, deny, from }: RawLists,
    copies: usize,
    places: &Places,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> AccessLists {
    let mut check = |name: &str, raw: Entry<Vec<Entry<String>>>, side: Side| {
        if matches!(raw, Entry::Absent) {
            return None;
        }
        check_list(&format!("{prefix}{name}"), raw, side, copies, places, budget, diagnostics)
    };
    AccessLists {
        reach: check("reach", reach, Side::Reached),
        deny: check("deny", deny, Side::Reached).unwrap_or_default(),
        from: check("from", from, Side::Origin),
    }
}

/// A list; `None` if there is none.
fn check_list(
    key: &str,
    raw: Entry<Vec<Entry<String>>>,
    side: Side,
    copies: usize,
    places: &Places,
    budget: &mut Budget,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<AccessEntry>> {
    let listed = diagnostics.value(key, raw)?;
    let (mut entries, mut seen) = (Vec::with_capacity(listed.len()), BTreeSet::new());
    for (element, text) in diagnostics.elements(key, listed) {
        let entry = match parse_entry(&text, places) {
            Ok(entry) => entry,
            Err(reason) => {
                diagnostics.error(element, reason);
                continue;
            }
        };
        let is_refused = match (side, &entry.place) {
            (Side::Origin, Place::Internet) => {
                Some("internet: nothing of the internet opens flows to peers; remove the entry")
            }
            (Side::Origin, Place::BastionSsh) => {
                Some("bastion:ssh is something to reach; this list says who reaches the peer, so remove the entry")
            }
            (Side::Reached, Place::Internet) if !places.has_internet() => {
                Some("internet is out of reach for all peers; set wireguard.full_tunnel = true, or remove the entry")
            }
            _ => None,
        };
        if let Some(reason) = is_refused {
            diagnostics.error(element, reason);
            continue;
        }
        if !seen.insert(entry.clone()) {
            diagnostics.error(element, format!("{entry} is listed twice; remove one of them"));
            continue;
        }
        let ranges = if let Place::Host(_, ranges) = &entry.place { ranges.len() } else { 1 };
        budget.add(|| key.to_owned(), [ranges, entry.ports.len(), copies]);
        entries.push(entry);
    }
    Some(entries)
}
