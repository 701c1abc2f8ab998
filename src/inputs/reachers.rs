//! Who may reach what, in an operator's words. Pure.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Access, AccessPeer, Judgement, NewFlow, Tunnel, access};
use crate::config::{AccessLists, Config, Peer, Wireguard};
use crate::net::v4;
use crate::site::{PrivateLink, Site};

/// Something to reach inside, or on the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its address; of a forward, that of the host behind it.
    pub address: Ipv4Addr,
    /// The protocol's number in the IP header.
    pub protocol: u8,
    /// The port, if the protocol has ports.
    pub port: Option<u16>,
}

/// A peer that may open flows to a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reacher {
    /// The peer's name, or its key.
    pub peer: String,
    /// The lists that allow it: `group dev`, `its own list`, or how it is without a list.
    pub by: Vec<String>,
}

/// What the configuration says about one peer, entry by entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerRights {
    /// What it reaches; `None`: what peers reach without lists.
    pub reach: Option<Vec<Grant>>,
    /// What it does not reach.
    pub deny: Vec<Grant>,
    /// Who reaches it; `None`: who reaches peers without lists.
    pub from: Option<Vec<Grant>>,
}

/// An entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// As it is written: `10.0.1.0/24:tcp/5432`.
    pub entry: String,
    /// The list that it is in: `group dev`, `its own list`, `wireguard.default_reach`.
    pub by: String,
}

const OWN: &str = "its own list";
const DEFAULT: &str = "wireguard.default_reach";
const UNLISTED: &str = "it has no list";

/// The peers that may open flows to a target, in the order of the configuration. It does not know of the lists of
/// `[egress]`, which hold for the internet besides.
pub fn who_can_reach(config: &Config, site: &Site, tunnel: &Tunnel, target: Target) -> Vec<Reacher> {
    let Some(wireguard) = &config.wireguard else { return Vec::new() };
    let lists = access(config, site, tunnel);
    let place = place_of(target.address, site, tunnel);
    let reacher = |(index, peer): (usize, &Peer)| {
        // Any of its addresses is as good as another: lists are about peers.
        let source = v4(peer.allowed_ips.iter().copied()).first()?.addr();
        let flow = NewFlow {
            source,
            destination: target.address,
            protocol: target.protocol,
            port: target.port,
            to_internet: place == Location::Internet,
        };
        let listed = lists.as_ref().and_then(|lists| Some((lists, lists.peers.get(index)?)));
        let judgement = listed.map_or(Judgement::Unlisted, |(lists, peer)| lists.judge_reach(peer, &flow));
        let is_reached = match (place, judgement) {
            (_, Judgement::Denied) | (Location::Bastion, _) | (Location::Tunnel, Judgement::Unlisted) => false,
            (Location::Network, _) => true,
            (Location::Internet, _) => tunnel.full_tunnel,
            (Location::Tunnel, Judgement::Allowed) => listed
                .and_then(|(lists, _)| Some(lists.judge_origin(lists.peer_at(target.address)?, &flow)))
                .is_none_or(|origin| origin != Judgement::Denied),
        };
        let by = match listed {
            Some((lists, peer)) if judgement == Judgement::Allowed => allowing(lists, peer, &flow),
            _ => vec![UNLISTED.to_owned()],
        };
        is_reached.then(|| Reacher { peer: peer.label(), by })
    };
    wireguard.peers.iter().enumerate().filter_map(reacher).collect()
}

/// What the lists say about the peer with this name or key; `None` if there is none.
pub fn rights_of(config: &Config, peer: &str) -> Option<PeerRights> {
    let wireguard = config.wireguard.as_ref()?;
    let peer = wireguard.peers.iter().find(|known| known.label() == peer)?;
    let mut rights = PeerRights::default();
    for (by, AccessLists { reach, deny, from }) in named_lists(wireguard, peer) {
        let grant = |entry: &crate::config::AccessEntry| Grant { entry: entry.to_string(), by: by.clone() };
        if let Some(reach) = reach {
            rights.reach.get_or_insert_default().extend(reach.iter().map(grant));
        }
        rights.deny.extend(deny.iter().map(grant));
        if reach.is_some() || from.is_some() {
            rights.from.get_or_insert_default().extend(from.iter().flatten().map(grant));
        }
    }
    if rights.reach.is_none() {
        let grant = |entry: &crate::config::AccessEntry| Grant { entry: entry.to_string(), by: DEFAULT.to_owned() };
        rights.reach = wireguard.default_reach.as_ref().map(|entries| entries.iter().map(grant).collect());
    }
    Some(rights)
}

fn named_lists<'a>(wireguard: &'a Wireguard, peer: &'a Peer) -> impl Iterator<Item = (String, &'a AccessLists)> {
    let groups = peer.access.groups.iter().map(|name| format!("group {name}"));
    groups.chain([OWN.to_owned()]).zip(wireguard.lists_of(peer))
}

/// The lists by which a flow is allowed.
fn allowing(lists: &Access, peer: &AccessPeer, flow: &NewFlow) -> Vec<String> {
    let allows = |list: &&super::Lists| list.reach.as_ref().is_some_and(|reach| reach.contains(flow));
    let groups = peer.groups.iter().filter_map(|index| lists.groups.get(*index));
    let groups = groups.filter(|(_, list)| allows(&list)).map(|(name, _)| format!("group {name}"));
    let mut by: Vec<String> = groups.chain(allows(&&peer.own).then(|| OWN.to_owned())).collect();
    if by.is_empty() {
        by.push(DEFAULT.to_owned());
    }
    by
}

/// Where an address is, as the rules of the tunnel see it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Location {
    /// This server's own.
    Bastion,
    Network,
    Tunnel,
    Internet,
}

fn place_of(address: Ipv4Addr, site: &Site, tunnel: &Tunnel) -> Location {
    let own = site.private.iter().map(|link| link.address);
    let own = own.chain(site.public.iter().flat_map(|link| link.addresses.iter().copied()));
    let mut own = own.chain(v4(tunnel.addresses.iter().copied()).into_iter().map(|net| net.addr()));
    if own.any(|own| own == address) {
        return Location::Bastion;
    }
    // A range of a peer inside a private network belongs to the peer, because it is the narrower route.
    let networks = site.private.iter().flat_map(PrivateLink::ranges).map(|range| (range, Location::Network));
    let peers = tunnel.routed().into_iter().map(|range| (range, Location::Tunnel));
    let at = networks.chain(peers).filter(|(range, _)| range.contains(&address));
    at.max_by_key(|(range, _)| range.prefix_len()).map_or(Location::Internet, |(_, location)| location)
}

#[cfg(test)]
mod tests {
    use super::super::{SeenReturnRoutes, tunnel};
    use super::*;
    use crate::config::{Environment, parse};
    use crate::site::PublicLink;

    const CONFIG: &str = r#"
        [hosts]
        db = "10.0.1.5"
        [wireguard]
        addresses = ["10.100.0.1/24"]
        full_tunnel = true
        [[wireguard.group]]
        name = "dev"
        reach = ["db:tcp/5432", "peers:tcp/22"]
        [[wireguard.group]]
        name = "ops"
        deny = ["db"]
        [[wireguard.peer]]
        name = "ada"
        public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
        allowed_ips = ["10.100.0.2"]
        groups = ["dev"]
        reach = ["10.0.1.0/24", "internet"]
        [[wireguard.peer]]
        name = "bob"
        public_key = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
        allowed_ips = ["10.100.0.3"]
        groups = ["ops"]
        from = ["10.100.0.2"]
        [[wireguard.peer]]
        name = "cy"
        public_key = "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA="
        allowed_ips = ["10.100.0.4"]
    "#;

    fn config() -> Config {
        parse(CONFIG, &Environment::default()).unwrap()
    }

    fn reached(address: &str, port: u16) -> Vec<(String, String)> {
        let site = Site {
            public: Some(PublicLink::example("eth0", &["198.51.100.2"])),
            private: vec![PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")],
            ..Site::default()
        };
        let config = config();
        let tunnel = tunnel(&config, &site, &SeenReturnRoutes::new()).unwrap();
        let target = Target { address: address.parse().unwrap(), protocol: 6, port: Some(port) };
        let reachers = who_can_reach(&config, &site, &tunnel, target);
        reachers.into_iter().map(|reacher| (reacher.peer, reacher.by.join(", "))).collect()
    }

    #[test]
    fn who_can_reach_a_target_is_said_with_the_lists_that_allow_it() {
        let listed = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(peer, by)| ((*peer).to_owned(), (*by).to_owned())).collect()
        };
        let unlisted = ("cy", "it has no list");
        assert_eq!(reached("10.0.1.5", 5432), listed(&[("ada", "group dev, its own list"), unlisted]));
        assert_eq!(reached("10.0.1.5", 80), listed(&[("ada", "its own list"), unlisted]));
        assert_eq!(reached("10.0.9.9", 80), listed(&[("bob", "it has no list"), unlisted]));
        assert_eq!(
            reached("93.184.216.34", 443),
            listed(&[("ada", "its own list"), ("bob", "it has no list"), unlisted])
        );
        assert_eq!(reached("10.100.0.3", 22), listed(&[("ada", "group dev")]));
        assert_eq!(reached("10.100.0.4", 23), listed(&[]));
        assert_eq!(reached("10.100.0.1", 22), listed(&[]), "the bastion itself is not forwarded to");
    }

    #[test]
    fn the_rights_of_a_peer_are_listed_entry_by_entry() {
        let grant = |entry: &str, by: &str| Grant { entry: entry.to_owned(), by: by.to_owned() };
        let ada = rights_of(&config(), "ada").unwrap();
        let reach = vec![
            grant("db:tcp/5432", "group dev"),
            grant("peers:tcp/22", "group dev"),
            grant("10.0.1.0/24", "its own list"),
            grant("internet", "its own list"),
        ];
        assert_eq!(ada, PeerRights { reach: Some(reach), deny: Vec::new(), from: Some(Vec::new()) });
        let bob = rights_of(&config(), "bob").unwrap();
        let from = Some(vec![grant("10.100.0.2", "its own list")]);
        assert_eq!(bob, PeerRights { reach: None, deny: vec![grant("db", "group ops")], from });
        assert_eq!(rights_of(&config(), "cy"), Some(PeerRights::default()));
        assert_eq!(rights_of(&config(), "nobody"), None);
    }
}
