//! The tunnel in the configuration.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use ipnet::IpNet;

use super::access::{AccessEntry, AccessLists, Group, PeerAccess, Place};
use crate::net::InterfaceName;
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::key::{PresharedKey, PrivateKey, PublicKey};

/// `[wireguard]`, with the peers from the file, from `peers.d` and from a wg file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wireguard {
    /// The tunnel's interface.
    pub interface: InterfaceName,
    /// UDP port, 1 to 65535.
    pub listen_port: u16,
    /// The interface's key; `None`: the daemon creates it in `private_key_file`.
    pub private_key: Option<PrivateKey>,
    /// The file that holds the key or will hold it. If a wg file holds the key, this is the wg file.
    pub private_key_file: PathBuf,
    /// Whether `private_key_file` is a wg file, which holds the key among other things.
    pub is_key_in_wg_file: bool,
    /// The bastion's own addresses in the tunnel, each with the prefix of its network.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet in the tunnel, in bytes; `None`: the public link's MTU minus 80.
    pub mtu: Option<u32>,
    /// Mark of the outgoing UDP packets (`SO_MARK`); 0: no mark.
    pub fwmark: u32,
    /// Which WireGuard implementation carries the packets.
    pub backend: BackendChoice,
    /// Whether peers reach the internet through the bastion.
    pub full_tunnel: bool,
    /// Whether ranges behind peers are routed into the tunnel, and the cloud's networks to this server for the tunnel.
    pub routes: bool,
    /// Whether private hosts see the bastion's address instead of the peer's.
    pub snat: Snat,
    /// Where clients reach this server, as they are told; `None`: at its public address, on `listen_port`.
    pub endpoint: Option<EndpointName>,
    /// The resolvers that clients are told to use.
    pub dns: Vec<IpAddr>,
    /// What a peer reaches that has no list, neither of its own nor of a group; `None`: the private networks, SSH to
    /// this server, and the internet with `full_tunnel`.
    pub default_reach: Option<Vec<AccessEntry>>,
    /// `[[wireguard.group]]`, sorted by name.
    pub groups: Vec<Group>,
    /// The peers. No two have the same key, name or allowed-ip.
    pub peers: Vec<Peer>,
    /// Peers that are configured and may not use the tunnel: see [`Wireguard::at`]. Empty in a configuration as it is
    /// written.
    pub out: Vec<Peer>,
}

/// `[[wireguard.peer]]`: a device or site that may use the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The operator's name for the peer; a peer in a file of `peers.d` without one gets the file's name.
    pub name: Option<String>,
    /// The key that identifies the peer.
    pub public_key: PublicKey,
    /// A secret that both sides share in addition to their keys.
    pub preshared_key: Option<PresharedKey>,
    /// The addresses that belong to the peer: its own in the tunnel, and ranges behind it. Without host bits.
    pub allowed_ips: Vec<IpNet>,
    /// Whether `allowed_ips` may be parts of a private network, because those hosts are behind this peer.
    pub in_private_network: bool,
    /// The peer's public address or name, and port; `None`: the peer initiates the handshake.
    pub endpoint: Option<EndpointName>,
    /// Seconds between persistent keepalives, 1 to 65535; `None`: no keepalives.
    pub persistent_keepalive: Option<u16>,
    /// Whether the peer may use the tunnel.
    pub enabled: bool,
    /// From this second on the peer may not use the tunnel.
    pub expires: Option<SystemTime>,
    /// What it may reach, and who may reach it.
    pub access: PeerAccess,
}

impl Peer {
    /// The name for messages: the peer's name, or its key.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.public_key.to_string())
    }

    /// Whether the peer may use the tunnel at this time.
    pub fn is_in(&self, now: SystemTime) -> bool {
        self.enabled && self.expires.is_none_or(|expires| now < expires)
    }
}

/// `wireguard.backend`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// The kernel's WireGuard if the kernel has one, else bastiond's own.
    Auto,
    /// bastiond's own data plane, `bastiond-tunnel`.
    Userspace,
    /// The kernel's WireGuard.
    Kernel,
}

/// `wireguard.snat`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snat {
    /// Masquerade peers' packets to private hosts only while the cloud has no return route to the tunnel.
    Auto,
    /// Always masquerade.
    Always,
    /// Never masquerade.
    Never,
}

impl Wireguard {
    /// The tunnel at this time: disabled and expired peers are in `out`, and the others in `peers`.
    #[must_use]
    pub fn at(&self, now: SystemTime) -> Self {
        let all = self.peers.iter().chain(&self.out).cloned();
        let (peers, out) = all.partition(|peer| peer.is_in(now));
        Self { peers, out, ..self.clone() }
    }

    /// When the next peer expires.
    pub fn next_expiry(&self, now: SystemTime) -> Option<SystemTime> {
        self.peers.iter().filter(|peer| peer.is_in(now)).filter_map(|peer| peer.expires).min()
    }

    /// The lists that hold for a peer: those of its groups, then its own.
    pub(crate) fn lists_of<'a>(&'a self, peer: &'a Peer) -> impl Iterator<Item = &'a AccessLists> + 'a {
        let find = |name: &String| self.groups.binary_search_by(|group| group.name.cmp(name)).ok();
        let groups = peer.access.groups.iter().filter_map(find).map(|index| &self.groups[index].lists);
        groups.chain([&peer.access.lists])
    }

    /// Whether a peer may log in to this server.
    pub(crate) fn reaches_ssh(&self, peer: &Peer) -> bool {
        let is_ssh = |entry: &AccessEntry| entry.place == Place::BastionSsh;
        if self.lists_of(peer).any(|lists| lists.deny.iter().any(is_ssh)) {
            return false;
        }
        let mut reach = self.lists_of(peer).filter_map(|lists| lists.reach.as_ref()).peekable();
        match (reach.peek(), &self.default_reach) {
            (Some(_), _) => reach.flatten().any(is_ssh),
            (None, Some(default)) => default.iter().any(is_ssh),
            (None, None) => true,
        }
    }

    /// The networks of the tunnel's own addresses, without host bits.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().map(IpNet::trunc)
    }

    /// The ranges behind peers, each with its peer: the allowed-ips that are outside the tunnel's own networks.
    /// `0.0.0.0/0` and `::/0` are left out, because a gateway does not send the whole internet to a peer.
    pub fn remote_networks(&self) -> impl Iterator<Item = (&Peer, IpNet)> + '_ {
        let is_inside = |range: &IpNet| self.networks().any(|network| network.contains(range));
        let allowed_ips = self.peers.iter().flat_map(|peer| peer.allowed_ips.iter().map(move |range| (peer, *range)));
        allowed_ips.filter(move |(_, range)| range.prefix_len() > 0 && !is_inside(range))
    }
}
