//! The tunnel as the configuration wants it.

use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::net::InterfaceName;
use crate::wireguard::endpoint::EndpointName;
use crate::wireguard::key::{PresharedKey, PrivateKey, PublicKey};

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

    /// The allowed-ips of all peers that the tunnel's own networks do not contain: the sites behind peers. A range inside
    /// another one is left out, and so is everything (`0.0.0.0/0`, `::/0`): a gateway does not send the whole internet to a
    /// peer.
    pub fn sites(&self) -> Vec<IpNet> {
        let mut sites: Vec<IpNet> = self.peers.iter().flat_map(|peer| &peer.allowed_ips).copied().collect();
        sites.retain(|site| site.prefix_len() > 0 && !self.networks().any(|network| network.contains(site)));
        without_nested(sites)
    }

    /// The IPv4 ranges for which the private networks need a way back.
    pub fn routed_v4(&self) -> Vec<Ipv4Net> {
        let v4 = |net| if let IpNet::V4(net) = net { Some(net) } else { None };
        let networks = self.networks().chain(self.sites()).filter_map(v4).filter(|network| network.prefix_len() > 0);
        Ipv4Net::aggregate(&networks.collect::<Vec<_>>())
    }
}

/// The ranges in order, less those inside of another one.
fn without_nested(mut ranges: Vec<IpNet>) -> Vec<IpNet> {
    // By address, the wider first: what contains a range then comes before it, and only the newest kept one can.
    ranges.sort_by_key(|range| (range.network(), range.prefix_len()));
    let mut kept: Vec<IpNet> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if !kept.last().is_some_and(|wider| wider.contains(&range)) {
            kept.push(range);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_inside_another_one_is_left_out() {
        let ranges = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        let given = ["192.168.5.0/24", "10.0.0.0/8", "192.168.0.0/16", "fd00::/64", "10.0.0.0/16", "fd00::1/128"];
        assert_eq!(without_nested(ranges(&given)), ranges(&["10.0.0.0/8", "192.168.0.0/16", "fd00::/64"]));
    }
}
