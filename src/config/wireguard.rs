//! The tunnel as the configuration wants it.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::net::InterfaceName;
use bastiond_tunnel::endpoint::EndpointName;
use bastiond_tunnel::key::{PresharedKey, PrivateKey, PublicKey};

/// `[wireguard]`, with the peers of the file, of `peers.d` and of a wg file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wireguard {
    /// The tunnel's interface.
    pub interface: InterfaceName,
    /// UDP port, from 1.
    pub listen_port: u16,
    /// The interface's key; `None`: it is yet to be made, in `private_key_file`.
    pub private_key: Option<PrivateKey>,
    /// Where the key is, or shall be; a wg file that holds the key itself is named here.
    pub private_key_file: PathBuf,
    /// The bastion's own addresses in the tunnel, with the prefixes of their networks.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet inside, in bytes; `None`: the public link's less 80.
    pub mtu: Option<u32>,
    /// Mark of the outgoing UDP packets (`SO_MARK`); 0 is none.
    pub fwmark: u32,
    /// Which data plane carries the packets.
    pub backend: Backend,
    /// Whether peers reach the internet through the bastion.
    pub full_tunnel: bool,
    /// Whether private hosts see the bastion instead of the peers.
    pub snat: Snat,
    /// The peers; keys, names and allowed-ips are each one peer's only.
    pub peers: Vec<Peer>,
}

/// `[[wireguard.peer]]`: somebody who may use the tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// A label for people; a file of `peers.d` without one is called by its own name.
    pub name: Option<String>,
    /// Who.
    pub public_key: PublicKey,
    /// A secret that both sides share beside their keys.
    pub preshared_key: Option<PresharedKey>,
    /// The addresses that are the peer's, inside the tunnel; without host bits.
    pub allowed_ips: Vec<IpNet>,
    /// Where it is reached; `None`: it comes by itself.
    pub endpoint: Option<EndpointName>,
    /// Seconds between persistent keepalives, from 1; `None`: there are none.
    pub persistent_keepalive: Option<u16>,
}

impl Peer {
    /// What people call it: its name, or its key.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.public_key.to_string())
    }
}

/// `wireguard.backend`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's where there is one, else our own.
    Auto,
    /// Our own.
    Userspace,
    /// The kernel's.
    Kernel,
}

/// `wireguard.snat`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snat {
    /// Peers' packets to private hosts are masqueraded only while the cloud has no route back to the tunnel.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Wireguard {
    /// The networks of the tunnel's own addresses, without host bits.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().map(IpNet::trunc)
    }

    /// The allowed-ips of all peers that the tunnel's own networks do not contain: the sites behind peers. Everything
    /// (`0.0.0.0/0`, `::/0`) is left out: a gateway does not send the whole internet to a peer.
    pub fn sites(&self) -> impl Iterator<Item = IpNet> + '_ {
        let inside = |site: &IpNet| self.networks().any(|network| network.contains(site));
        let allowed_ips = self.peers.iter().flat_map(|peer| &peer.allowed_ips).copied();
        allowed_ips.filter(move |site| site.prefix_len() > 0 && !inside(site))
    }
}
