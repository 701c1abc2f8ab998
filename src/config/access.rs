//! What peers of the tunnel may reach, and who may reach them.

use std::fmt;

use ipnet::Ipv4Net;

use super::policy::NetworkName;
use super::protocol::{Ports, Protocol};

/// The lists of a peer, or of a group of peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessLists {
    /// What the peer may open flows to; `None`: no list.
    pub reach: Option<Vec<AccessEntry>>,
    /// What it may not open flows to, whatever lists it has.
    pub deny: Vec<AccessEntry>,
    /// Who may open flows to the peer and to what is behind it; `None`: no list.
    pub from: Option<Vec<AccessEntry>>,
}

/// `[[wireguard.group]]`: peers that have lists in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name: no two groups have the same one.
    pub name: String,
    /// Its lists.
    pub lists: AccessLists,
}

/// What a peer's own block says about access.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerAccess {
    /// The names of its groups, sorted. Each exists.
    pub groups: Vec<String>,
    /// Its own lists, in addition to those of its groups.
    pub lists: AccessLists,
}

/// An entry of a list: one side of a flow, and what kind of flow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccessEntry {
    /// The other side of the flow: what is reached, or who it comes from.
    pub place: Place,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination ports; empty: any. Only with protocols that have ports.
    pub ports: Vec<Ports>,
}

/// One side of a flow, as an operator names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An address or a range.
    Range(Ipv4Net),
    /// An alias of `[hosts]`, with its ranges.
    Host(String, Vec<Ipv4Net>),
    /// A `[[network]]` with a name.
    Network(String, NetworkName),
    /// `private`: all private networks.
    Private,
    /// `peers`: the tunnel's networks, and the ranges behind other peers.
    Peers,
    /// `internet`: what is neither in a private network nor in the tunnel.
    Internet,
    /// `bastion:ssh`: this server's SSH ports.
    BastionSsh,
}

impl AccessEntry {
    /// The addresses and ranges that it names itself or by an alias.
    pub fn named_ranges(&self) -> &[Ipv4Net] {
        match &self.place {
            Place::Range(range) => std::slice::from_ref(range),
            Place::Host(_, ranges) => ranges,
            Place::Network(..) | Place::Private | Place::Peers | Place::Internet | Place::BastionSsh => &[],
        }
    }

    /// Everything at a place.
    pub fn all_of(place: Place) -> Self {
        Self { place, protocol: Protocol::Any, ports: Vec::new() }
    }
}

/// As it is written in the file.
impl fmt::Display for AccessEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, protocol, ports } = self;
        write!(f, "{place}")?;
        let number = match protocol {
            Protocol::Any => return Ok(()),
            Protocol::Other(other) if other.to_string().contains(' ') => Some(other.number()),
            _ => None,
        };
        match number {
            Some(number) => write!(f, ":{number}")?,
            None => write!(f, ":{protocol}")?,
        }
        for (index, ports) in ports.iter().enumerate() {
            write!(f, "{}{ports}", if index == 0 { '/' } else { ',' })?;
        }
        Ok(())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) if range.prefix_len() == 32 => write!(f, "{}", range.addr()),
            Self::Range(range) => write!(f, "{range}"),
            Self::Host(name, _) | Self::Network(name, _) => f.write_str(name),
            Self::Private => f.write_str("private"),
            Self::Peers => f.write_str("peers"),
            Self::Internet => f.write_str("internet"),
            Self::BastionSsh => f.write_str("bastion:ssh"),
        }
    }
}
