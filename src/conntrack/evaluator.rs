//! Evaluates a policy for a flow: by which permission it passes.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;

use super::access::PeerLists;
use super::forwards::Forwards;
use super::lookup::{AccessList, AddressSet, contains_port, includes_protocol};
use super::model::{BlockReason, Flow, ICMP, Permission, TCP, Tuple, UDP};
use super::policy::{Network, Policy, Service};
use crate::config::EgressLists;
use crate::hetzner::{METADATA_NETWORK, unroutable};
use crate::inputs::Judgement;
use bastiond_tunnel::key::PublicKey;

/// The port of mail between servers (RFC 5321 section 4.5.4.2).
const SMTP: u16 = 25;

/// A policy with the look-up tables that make it fast to evaluate for each of a million flows.
#[derive(Debug)]
pub struct PolicyEvaluator<'p> {
    policy: &'p Policy,
    /// The location of each address, by the longest prefix that contains it.
    locations: PrefixMap<Ipv4Net, Location>,
    blocklist: AddressSet,
    /// What is not routed on the internet, without the ranges that the public link itself has an address in: behind
    /// another gateway these are the internet.
    unroutable: AddressSet,
    forwards: Forwards,
    /// By public address: the private host, and what is open at the address.
    statics: HashMap<Ipv4Addr, (Ipv4Addr, AccessList)>,
    /// The bastion's services, with the sources of each; `None`: all sources.
    services: Vec<(&'p Service, Option<AddressSet>)>,
    egress: EgressRules,
    /// The networks' own lists, by the networks' indices in the policy; `None`: `egress` holds.
    network_egress: Vec<Option<EgressRules>>,
    tenants: AccessList,
    remote_networks: AddressSet,
    peers: PrefixMap<Ipv4Net, PublicKey>,
    lists: PeerLists<'p>,
}

/// Where an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Location {
    /// It is one of the bastion's own.
    Bastion,
    /// In the private network with this index in the policy.
    PrivateNetwork(usize),
    /// In the tunnel's networks or in a range behind a peer.
    Tunnel,
    /// Anywhere else.
    Elsewhere,
}

/// What the hosts of a network may reach on the internet.
#[derive(Debug)]
struct EgressRules {
    smtp: bool,
    allow: Option<AccessList>,
    deny: AccessList,
}

impl EgressRules {
    fn new(lists: &EgressLists) -> Self {
        let EgressLists { smtp, allow, deny } = lists;
        Self { smtp: *smtp, allow: allow.as_deref().map(AccessList::new), deny: AccessList::new(deny) }
    }

    fn permission(&self, flow: &Tuple) -> Permission {
        if !self.smtp && flow.protocol == TCP && flow.destination_port() == Some(SMTP) {
            Permission::Blocked(BlockReason::Smtp)
        } else if self.deny.matches(flow) {
            Permission::Blocked(BlockReason::DenyList)
        } else if self.allow.as_ref().is_some_and(|allow| !allow.matches(flow)) {
            Permission::Blocked(BlockReason::NotInAllowList)
        } else {
            Permission::Egress
        }
    }
}

impl<'p> PolicyEvaluator<'p> {
    /// Builds the look-up tables of a policy.
    pub fn new(policy: &'p Policy) -> Self {
        let service = |service: &'p Service| (service, service.from.as_deref().map(AddressSet::from_ranges));
        let network_egress = |network: &Network| network.lists.as_ref().map(EgressRules::new);
        let statics = policy.statics.iter().filter(|entry| policy.serves_host(entry.private));
        let tunnel = policy.tunnel.as_ref();
        let peers = tunnel.into_iter().flat_map(|tunnel| &tunnel.peers);
        Self {
            policy,
            locations: locations(policy),
            blocklist: AddressSet::from_ranges(&policy.blocklist),
            unroutable: AddressSet::from_ranges(&unroutable(&policy.public)),
            forwards: Forwards::new(policy),
            statics: statics.map(|entry| (entry.public, (entry.private, AccessList::new(&entry.open)))).collect(),
            services: policy.services.iter().map(service).collect(),
            egress: EgressRules::new(&policy.egress),
            network_egress: policy.networks.iter().map(network_egress).collect(),
            tenants: AccessList::new(&policy.tenants),
            remote_networks: AddressSet::from_ranges(tunnel.map_or(&[], |tunnel| &tunnel.remote_networks)),
            lists: tunnel.and_then(|tunnel| tunnel.access.as_ref()).map(PeerLists::new).unwrap_or_default(),
            peers: peers.flat_map(|(peer, nets)| nets.iter().map(move |net| (net.trunc(), *peer))).collect(),
        }
    }

    /// By which permission the flow passes.
    pub fn permission(&self, flow: &Flow) -> Permission {
        let first = &flow.original;
        let (from, to) = (self.location(first.source), self.location(first.destination));
        let is_foreign = (from, to) == (Location::Elsewhere, Location::Elsewhere) && !flow.is_redirected();
        if is_foreign || from == Location::Bastion || flow.has_zone() || self.is_operator_access(flow) {
            return Permission::Unknown;
        }
        // In both directions: the answers of a blocked address are dropped too, except on the fast path.
        let is_blocked = |location, address| location == Location::Elsewhere && self.blocklist.contains(address);
        if is_blocked(from, first.source) || is_blocked(to, first.destination) {
            return Permission::Blocked(BlockReason::Blocklist);
        }
        if from == Location::Tunnel && self.peer(first.source).is_none() {
            return Permission::Blocked(BlockReason::NoPeer);
        }
        if !flow.is_redirected() {
            return self.direct_permission(first);
        }
        let permission = match self.redirect_permission(flow) {
            permission @ (Permission::Forward(..) | Permission::Static(_) | Permission::Guest(_)) => {
                self.refused_by_lists(&flow.translated()).map_or(permission, Permission::Blocked)
            }
            permission => permission,
        };
        let is_from_inside = matches!(from, Location::PrivateNetwork(_) | Location::Tunnel);
        if is_from_inside && matches!(permission, Permission::Blocked(_)) {
            // Another program translated it. The rules decide by the addresses that it has now.
            match self.direct_permission(&flow.translated()) {
                Permission::Blocked(_) | Permission::Unknown => {}
                allowed => return allowed,
            }
        }
        permission
    }

    /// By which permission a flow with this first packet passes that is not translated on its way in.
    fn direct_permission(&self, first: &Tuple) -> Permission {
        match (self.location(first.source), self.location(first.destination)) {
            (_, Location::Bastion) => self.bastion_permission(first),
            (Location::Tunnel, to) => self.peer_permission(first, to),
            (Location::PrivateNetwork(_), Location::Tunnel) => self.remote_network_permission(first),
            (Location::PrivateNetwork(from), Location::PrivateNetwork(to)) => self.tenant_permission(first, from == to),
            (Location::PrivateNetwork(network), Location::Elsewhere) => {
                self.egress_permission(self.network_egress[network].as_ref().unwrap_or(&self.egress), first)
            }
            (Location::Bastion | Location::Elsewhere, _) => Permission::Blocked(BlockReason::FromInternet),
        }
    }

    /// Whether the flow carries the operator: SSH to the bastion, or the tunnel's own packets.
    pub fn is_operator_access(&self, flow: &Flow) -> bool {
        let first = &flow.original;
        let Some(port) = first.destination_port().filter(|_| !flow.is_redirected()) else { return false };
        let is_access_port = match first.protocol {
            TCP => self.policy.ssh_ports.contains(&port),
            UDP => self.policy.tunnel_port == Some(port),
            _ => false,
        };
        is_access_port && self.location(first.destination) == Location::Bastion
    }

    /// The host, and the port if the protocol has ports, to which a forward or a static address redirects a flow with
    /// this first packet.
    pub fn redirect_target(&self, flow: &Flow) -> Option<(Ipv4Addr, Option<u16>)> {
        let first = &flow.original;
        if flow.has_zone() || self.location(first.source) == Location::Bastion {
            return None;
        }
        self.forwards.target(first).or_else(|| Some((self.static_host(first)?, first.destination_port())))
    }

    /// Whether a flow with this first packet is forwarded with the bastion's own address as its source.
    pub fn hides_source(&self, flow: &Flow) -> bool {
        self.forwards.find(&flow.original).is_some_and(|(index, ..)| self.policy.forwards[index].snat)
    }

    /// The peers of the tunnel that the flow comes from and goes to.
    pub fn peers_of(&self, flow: &Flow) -> [Option<PublicKey>; 2] {
        let ends = [flow.original.source, flow.original.destination];
        ends.map(|end| if self.location(end) == Location::Tunnel { self.peer(end) } else { None })
    }

    fn location(&self, address: Ipv4Addr) -> Location {
        self.locations.get_lpm(&Ipv4Net::from(address)).map_or(Location::Elsewhere, |(_, location)| *location)
    }

    fn redirect_permission(&self, flow: &Flow) -> Permission {
        let first = &flow.original;
        let (host, port) = (flow.reply.source, flow.reply.source_port());
        if self.location(host) == Location::Tunnel && !self.leads_into_tunnel(&flow.translated()) {
            // A range of a peer inside a private network: private hosts reach it, and what lists name.
            return Permission::Blocked(BlockReason::Tunnel);
        }
        if let Some((to, to_port)) = self.forwards.target(first) {
            let is_target = to == host && to_port.is_none_or(|to_port| port == Some(to_port));
            return if is_target {
                Permission::Forward(to, to_port)
            } else if self.is_published_guest(first, host) {
                Permission::Guest(host)
            } else {
                Permission::Blocked(BlockReason::OtherTarget)
            };
        }
        match self.static_host(first) {
            Some(private) if private == host => Permission::Static(host),
            _ if self.is_published_guest(first, host) => Permission::Guest(host),
            Some(_) => Permission::Blocked(BlockReason::OtherTarget),
            None if self.statics.contains_key(&first.destination) => Permission::Blocked(BlockReason::StaticClosed),
            None if self.forwards.has_forward(first) => Permission::Blocked(BlockReason::ForwardSource),
            None => Permission::Blocked(BlockReason::NoForward),
        }
    }

    /// Whether a flow that goes on with this first packet may go to a peer or to what is behind it.
    fn leads_into_tunnel(&self, goes_on: &Tuple) -> bool {
        let peer = self.peer(goes_on.destination);
        let origin = peer.map_or(Judgement::Unlisted, |peer| self.lists.judge_origin(peer, goes_on));
        match self.location(goes_on.source) {
            Location::PrivateNetwork(_) => match origin {
                Judgement::Unlisted => self.remote_networks.contains(goes_on.destination),
                judgement => judgement == Judgement::Allowed,
            },
            Location::Tunnel => {
                let reach = self.peer(goes_on.source).map(|from| self.lists.judge_reach(from, goes_on, false));
                reach == Some(Judgement::Allowed) && origin != Judgement::Denied
            }
            Location::Bastion | Location::Elsewhere => false,
        }
    }

    /// Why lists of peers refuse a flow that goes on with this first packet to a private host, if they do.
    fn refused_by_lists(&self, goes_on: &Tuple) -> Option<BlockReason> {
        if self.location(goes_on.source) != Location::Tunnel {
            return None;
        }
        let peer = self.peer(goes_on.source)?;
        let judgement = self.lists.judge_reach(peer, goes_on, false);
        (judgement == Judgement::Denied).then_some(BlockReason::PeerLists)
    }

    /// Whether a flow to an address of this server was translated to a guest of one of its bridges.
    fn is_published_guest(&self, first: &Tuple, host: Ipv4Addr) -> bool {
        self.location(first.destination) == Location::Bastion
            && matches!(self.location(host), Location::PrivateNetwork(index) if self.policy.networks[index].is_local)
    }

    /// The private host whose public address is the destination, if it is open for a flow with this first packet.
    fn static_host(&self, first: &Tuple) -> Option<Ipv4Addr> {
        let (private, open) = self.statics.get(&first.destination)?;
        open.matches(first).then_some(*private)
    }

    /// Inside one network the rules let flows pass only where it may have published hosts.
    fn tenant_permission(&self, first: &Tuple, is_same_network: bool) -> Permission {
        let has_path = !is_same_network || self.policy.has_redirects();
        if has_path && self.tenants.matches(first) {
            Permission::Tenant
        } else if is_same_network {
            Permission::Unknown
        } else {
            Permission::Blocked(BlockReason::OtherTenant)
        }
    }

    /// The rules for flows to the bastion, in their order.
    fn bastion_permission(&self, first: &Tuple) -> Permission {
        if self.statics.contains_key(&first.destination) {
            return Permission::Blocked(BlockReason::StaticClosed);
        }
        let is_wireguard = first.protocol == UDP
            && first.destination_port().is_some_and(|port| self.policy.wireguard_port == Some(port));
        if first.protocol == ICMP || is_wireguard {
            // Pings and the port for a tunnel of another program.
            return Permission::Unknown;
        }
        self.service_permission(first)
    }

    fn service_permission(&self, first: &Tuple) -> Permission {
        let matches = |(service, from): &(&Service, Option<AddressSet>)| {
            let has_port = || first.destination_port().is_some_and(|port| contains_port(&service.ports, port));
            includes_protocol(service.transports, first.protocol)
                && (service.transports.without_ports().is_some() || has_port())
                && from.as_ref().is_none_or(|from| from.contains(first.source))
        };
        if self.services.iter().any(matches) {
            Permission::Service
        } else {
            Permission::Blocked(BlockReason::NoService)
        }
    }

    /// Peers reach the internet like hosts of networks without lists of their own.
    fn peer_permission(&self, first: &Tuple, to: Location) -> Permission {
        let Some(peer) = self.peer(first.source) else { return Permission::Blocked(BlockReason::NoPeer) };
        let is_full_tunnel = self.policy.tunnel.as_ref().is_some_and(|tunnel| tunnel.full_tunnel);
        let judgement = self.lists.judge_reach(peer, first, to == Location::Elsewhere);
        match to {
            Location::Tunnel if self.leads_into_tunnel(first) => Permission::Tunnel(peer),
            _ if judgement == Judgement::Denied => Permission::Blocked(BlockReason::PeerLists),
            Location::PrivateNetwork(_) => Permission::Tunnel(peer),
            Location::Elsewhere if is_full_tunnel => match self.egress_permission(&self.egress, first) {
                Permission::Egress => Permission::Tunnel(peer),
                blocked => blocked,
            },
            Location::Elsewhere | Location::Tunnel | Location::Bastion => Permission::Blocked(BlockReason::Tunnel),
        }
    }

    /// Private hosts may reach the networks behind peers, but not the peers' own devices; what lists name of a peer with
    /// lists.
    fn remote_network_permission(&self, first: &Tuple) -> Permission {
        if !self.leads_into_tunnel(first) {
            return Permission::Blocked(BlockReason::Tunnel);
        }
        self.peer(first.destination).map_or(Permission::Blocked(BlockReason::NoPeer), Permission::Tunnel)
    }

    fn peer(&self, address: Ipv4Addr) -> Option<PublicKey> {
        self.peers.get_lpm(&Ipv4Net::from(address)).map(|(_, peer)| *peer)
    }

    /// The bastion's own metadata service is out of reach even without the guard.
    fn egress_permission(&self, rules: &EgressRules, first: &Tuple) -> Permission {
        let destination = first.destination;
        if METADATA_NETWORK.contains(&destination) || self.policy.guard && self.unroutable.contains(destination) {
            return Permission::Blocked(BlockReason::Unroutable);
        }
        rules.permission(first)
    }
}

/// A range of a peer inside a private network belongs to the peer, because it is the narrower route.
fn locations(policy: &Policy) -> PrefixMap<Ipv4Net, Location> {
    let bastion = policy.public.iter().chain(&policy.own);
    let bastion = bastion.map(|address| (Ipv4Net::from(*address), Location::Bastion));
    let private = policy.networks.iter().enumerate();
    let private = private.flat_map(|(index, network)| {
        network.ranges().map(move |range| (range.trunc(), Location::PrivateNetwork(index)))
    });
    let tunnel = policy.tunnel.iter().flat_map(|tunnel| tunnel.networks.iter().chain(&tunnel.remote_networks));
    let tunnel = tunnel.map(|range| (range.trunc(), Location::Tunnel));
    // A later entry replaces an earlier one of the same range.
    private.chain(tunnel).chain(bastion).collect()
}
