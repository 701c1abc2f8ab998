//! Says of a flow by which permission of a policy it passes.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;

use super::forwards::Forwards;
use super::lookup::{Lines, Ranges, are_in, is_of};
use super::model::{Block, Flow, TCP, Tuple, UDP, Way};
use super::policy::{Network, Policy, Service};
use crate::config::EgressLists;
use crate::hetzner::{METADATA_NETWORK, unroutable};
use bastiond_tunnel::key::PublicKey;

/// The port of mail between servers (RFC 5321 section 4.5.4.2).
const SMTP: u16 = 25;

/// A policy, made ready to be asked about each of a million flows.
#[derive(Debug)]
pub struct Judge<'p> {
    policy: &'p Policy,
    /// Whose each address is: of the longest prefix.
    places: PrefixMap<Ipv4Net, Place>,
    blocklist: Ranges,
    /// What nobody has, without what the public link itself is in: behind another gateway that is the internet.
    unroutable: Ranges,
    forwards: Forwards,
    statics: HashMap<Ipv4Addr, (Ipv4Addr, Lines)>,
    services: Vec<(&'p Service, Option<Ranges>)>,
    egress: Egress,
    /// By the networks' places in the policy.
    own_egress: Vec<Option<Egress>>,
    tenants: Lines,
    sites: Ranges,
    peers: PrefixMap<Ipv4Net, PublicKey>,
}

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The bastion's own.
    Own,
    /// In the private network at this place of the policy.
    Private(usize),
    /// In the tunnel or behind a peer.
    Tunnel,
    /// Anywhere else.
    Elsewhere,
}

/// What a network's hosts may reach.
#[derive(Debug)]
struct Egress {
    smtp: bool,
    allow: Option<Lines>,
    deny: Lines,
}

impl Egress {
    fn of(lists: &EgressLists) -> Self {
        let EgressLists { smtp, allow, deny } = lists;
        Self { smtp: *smtp, allow: allow.as_deref().map(Lines::of), deny: Lines::of(deny) }
    }

    fn way(&self, flow: &Tuple) -> Way {
        if !self.smtp && flow.protocol == TCP && flow.destination_port() == Some(SMTP) {
            Way::Blocked(Block::Smtp)
        } else if self.deny.have(flow) {
            Way::Blocked(Block::Denied)
        } else if self.allow.as_ref().is_some_and(|allow| !allow.have(flow)) {
            Way::Blocked(Block::NotAllowed)
        } else {
            Way::Egress
        }
    }
}

impl<'p> Judge<'p> {
    /// Makes a policy ready.
    pub fn of(policy: &'p Policy) -> Self {
        let service = |service: &'p Service| (service, service.from.as_deref().map(Ranges::of));
        let own_egress = |network: &Network| network.lists.as_ref().map(Egress::of);
        let statics = policy.statics.iter().filter(|of| policy.serves(of.private));
        let tunnel = policy.tunnel.as_ref();
        let peers = tunnel.into_iter().flat_map(|tunnel| &tunnel.peers);
        Self {
            policy,
            places: places(policy),
            blocklist: Ranges::of(&policy.blocklist),
            unroutable: Ranges::of(&unroutable(&policy.public)),
            forwards: Forwards::of(policy),
            statics: statics.map(|of| (of.public, (of.private, Lines::of(&of.open)))).collect(),
            services: policy.services.iter().map(service).collect(),
            egress: Egress::of(&policy.egress),
            own_egress: policy.networks.iter().map(own_egress).collect(),
            tenants: Lines::of(&policy.tenants),
            sites: Ranges::of(tunnel.map_or(&[], |tunnel| &tunnel.sites)),
            peers: peers.flat_map(|(peer, nets)| nets.iter().map(move |net| (net.trunc(), *peer))).collect(),
        }
    }

    /// By which permission the flow passes.
    pub fn way(&self, flow: &Flow) -> Way {
        let first = &flow.original;
        let places = (self.place(first.source), self.place(first.destination));
        let is_strangers = places == (Place::Elsewhere, Place::Elsewhere) && !flow.is_redirected();
        if is_strangers || places.0 == Place::Own || flow.is_in_a_zone() || self.is_operators(flow) {
            return Way::Unknown;
        }
        // Both ways: the answers of who is blocked are not heard either, but for those that take the fast path already.
        let is_blocked = |place, address| place == Place::Elsewhere && self.blocklist.contain(address);
        if is_blocked(places.0, first.source) || is_blocked(places.1, first.destination) {
            return Way::Blocked(Block::Blocklist);
        }
        if places.0 == Place::Tunnel && self.peer(first.source).is_none() {
            return Way::Blocked(Block::NoPeer);
        }
        if flow.is_redirected() {
            return self.redirected(flow);
        }
        match places {
            (_, Place::Own) => self.service(first),
            (Place::Tunnel, to) => self.way_from_tunnel(first, to),
            (Place::Private(_), Place::Tunnel) => self.way_to_site(first),
            (Place::Private(from), Place::Private(to)) if from == to => Way::Unknown,
            (Place::Private(_), Place::Private(_)) if self.tenants.have(first) => Way::Tenant,
            (Place::Private(_), Place::Private(_)) => Way::Blocked(Block::OtherTenant),
            (Place::Private(network), Place::Elsewhere) => {
                self.egress(self.own_egress[network].as_ref().unwrap_or(&self.egress), first)
            }
            (Place::Own | Place::Elsewhere, _) => Way::Blocked(Block::Outside),
        }
    }

    /// Whether the flow is one of those that carry the operator: SSH to the bastion, and the tunnel's own packets.
    pub fn is_operators(&self, flow: &Flow) -> bool {
        let first = &flow.original;
        let Some(port) = first.destination_port().filter(|_| !flow.is_redirected()) else { return false };
        let right_port = match first.protocol {
            TCP => self.policy.ssh_ports.contains(&port),
            UDP => self.policy.tunnel_port == Some(port),
            _ => false,
        };
        right_port && self.place(first.destination) == Place::Own
    }

    /// Whether a flow that begins as this one did would be redirected.
    pub fn redirects(&self, flow: &Flow) -> bool {
        let first = &flow.original;
        let is_judged = !flow.is_in_a_zone() && self.place(first.source) != Place::Own;
        is_judged && (self.forwards.target(first).is_some() || self.static_host(first).is_some())
    }

    /// Whose of the tunnel the flow is.
    pub fn peer_of(&self, flow: &Flow) -> Option<PublicKey> {
        let ends = [flow.original.source, flow.original.destination];
        ends.into_iter().filter(|end| self.place(*end) == Place::Tunnel).find_map(|end| self.peer(end))
    }

    fn place(&self, address: Ipv4Addr) -> Place {
        self.places.get_lpm(&Ipv4Net::from(address)).map_or(Place::Elsewhere, |(_, place)| *place)
    }

    fn redirected(&self, flow: &Flow) -> Way {
        let first = &flow.original;
        let (host, port) = (flow.reply.source, flow.reply.source_port());
        if let Some((to, to_port)) = self.forwards.target(first) {
            let goes_there = to == host && port == Some(to_port);
            return if goes_there { Way::Forward(to, to_port) } else { Way::Blocked(Block::AnotherTarget) };
        }
        match self.static_host(first) {
            Some(private) if private == host => Way::Static(host),
            Some(_) => Way::Blocked(Block::AnotherTarget),
            None if self.statics.contains_key(&first.destination) => Way::Blocked(Block::Closed),
            None if self.forwards.has(first) => Way::Blocked(Block::Source),
            None => Way::Blocked(Block::NoForward),
        }
    }

    /// The private host whose public address this is, if it is open for a flow with this first packet.
    fn static_host(&self, first: &Tuple) -> Option<Ipv4Addr> {
        let (private, open) = self.statics.get(&first.destination)?;
        open.have(first).then_some(*private)
    }

    fn service(&self, first: &Tuple) -> Way {
        let serves = |(service, from): &(&Service, Option<Ranges>)| {
            is_of(service.transports, first.protocol)
                && first.destination_port().is_some_and(|port| are_in(&service.ports, port))
                && from.as_ref().is_none_or(|from| from.contain(first.source))
        };
        if self.services.iter().any(serves) { Way::Service } else { Way::Blocked(Block::NoService) }
    }

    /// Peers reach the internet as hosts of networks without lists of their own.
    fn way_from_tunnel(&self, first: &Tuple, to: Place) -> Way {
        let Some(peer) = self.peer(first.source) else { return Way::Blocked(Block::NoPeer) };
        let is_full = self.policy.tunnel.as_ref().is_some_and(|tunnel| tunnel.full);
        match to {
            Place::Private(_) => Way::Tunnel(peer),
            Place::Elsewhere if is_full => match self.egress(&self.egress, first) {
                Way::Egress => Way::Tunnel(peer),
                blocked => blocked,
            },
            Place::Elsewhere | Place::Tunnel | Place::Own => Way::Blocked(Block::Tunnel),
        }
    }

    /// Private hosts call on sites, not on people's devices.
    fn way_to_site(&self, first: &Tuple) -> Way {
        if !self.sites.contain(first.destination) {
            return Way::Blocked(Block::Tunnel);
        }
        self.peer(first.destination).map_or(Way::Blocked(Block::NoPeer), Way::Tunnel)
    }

    fn peer(&self, address: Ipv4Addr) -> Option<PublicKey> {
        self.peers.get_lpm(&Ipv4Net::from(address)).map(|(_, peer)| *peer)
    }

    /// The bastion's own metadata service is out of reach, guard or not.
    fn egress(&self, lists: &Egress, first: &Tuple) -> Way {
        let destination = first.destination;
        if METADATA_NETWORK.contains(&destination) || self.policy.guard && self.unroutable.contain(destination) {
            return Way::Blocked(Block::Unroutable);
        }
        lists.way(first)
    }
}

/// What lies inside of a private network goes to the peer that has it, as the narrower route.
fn places(policy: &Policy) -> PrefixMap<Ipv4Net, Place> {
    let own = policy.public.iter().chain(&policy.own).map(|address| (Ipv4Net::from(*address), Place::Own));
    let private = policy.networks.iter().enumerate().map(|(at, network)| (network.range.trunc(), Place::Private(at)));
    let tunnel = policy.tunnel.iter().flat_map(|tunnel| tunnel.networks.iter().chain(&tunnel.sites));
    let tunnel = tunnel.map(|range| (range.trunc(), Place::Tunnel));
    // What comes later replaces what was there.
    private.chain(tunnel).chain(own).collect()
}
