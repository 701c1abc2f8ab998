//! The nouns: a path that traffic takes through this server, and what is known about it.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::net::InterfaceName;

/// A path through this server that probes prove.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Path {
    /// From a private network to the internet and back, through the rules and the translation.
    Nat {
        /// The private network.
        network: Ipv4Net,
        /// The public address under which the packets leave; `None`: whichever the public link has.
        egress: Option<Ipv4Addr>,
    },
    /// The same from hosts of a network that have addresses of their own (`[[network.egress]]`).
    Part {
        /// The private network.
        network: Ipv4Net,
        /// The hosts, or the first range of them.
        hosts: Ipv4Net,
        /// The public address under which the packets leave.
        egress: Ipv4Addr,
    },
    /// The same from a host that has a public address for itself (`[[nat.static]]`).
    Static {
        /// The private network.
        network: Ipv4Net,
        /// The host.
        host: Ipv4Addr,
        /// Its public address.
        egress: Ipv4Addr,
    },
    /// Out by the private link to the network's gateway, and back by the cloud's route to this server.
    Private {
        /// The private network.
        network: Ipv4Net,
    },
    /// Both in one packet: out by the private link and back, and then, as a private host's packet that comes in by it,
    /// through the rules and the translation to the internet and back.
    Whole {
        /// The private network.
        network: Ipv4Net,
    },
    /// The tunnel: its port, or the way to one site.
    Tunnel {
        /// The tunnel's interface.
        interface: InterfaceName,
        /// The site's name, or its key; `None`: the port, by any peer.
        peer: Option<String>,
    },
}

impl Path {
    /// The private network that the path serves; `None`: it is the tunnel's.
    pub fn network(&self) -> Option<Ipv4Net> {
        match self {
            Self::Nat { network, .. }
            | Self::Part { network, .. }
            | Self::Static { network, .. }
            | Self::Private { network }
            | Self::Whole { network } => Some(*network),
            Self::Tunnel { .. } => None,
        }
    }
}

impl Path {
    /// The word for its kind, as in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nat { .. } => "nat",
            Self::Part { .. } => "part",
            Self::Static { .. } => "static",
            Self::Private { .. } => "private",
            Self::Whole { .. } => "whole",
            Self::Tunnel { .. } => "tunnel",
        }
    }

    /// Whether it is this server's or its provider's fault if the path is lost. A single site may be down by itself.
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Tunnel { peer: Some(_), .. })
    }

    /// The public address of a path to the internet, if it has a certain one.
    pub fn egress(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Nat { egress, .. } => *egress,
            Self::Part { egress, .. } | Self::Static { egress, .. } => Some(*egress),
            Self::Private { .. } | Self::Whole { .. } | Self::Tunnel { .. } => None,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nat { network, egress: Some(egress) } => write!(f, "nat {network} by {egress}"),
            Self::Nat { network, egress: None } => write!(f, "nat {network}"),
            Self::Part { hosts, egress, .. } => write!(f, "part {hosts} by {egress}"),
            Self::Static { host, egress, .. } => write!(f, "static {host} by {egress}"),
            Self::Private { network } | Self::Whole { network } => write!(f, "{} {network}", self.kind()),
            Self::Tunnel { interface, peer: Some(peer) } => write!(f, "tunnel {interface} to {peer}"),
            Self::Tunnel { interface, peer: None } => write!(f, "tunnel {interface}"),
        }
    }
}

/// What is known about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathState {
    /// The newest probes came back.
    Ok,
    /// It has passed on this server, and now no target answers.
    Lost,
    /// It has never passed on this server. That does not make the gateway unhealthy.
    Unproven,
    /// Nothing can be sent, for a stated reason. That does not make the gateway unhealthy.
    Cannot,
}

impl fmt::Display for PathState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Lost => "lost",
            Self::Unproven => "unproven",
            Self::Cannot => "cannot",
        })
    }
}

/// A path's part of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// The path.
    #[serde(flatten)]
    pub path: Path,
    /// What is known about it.
    pub state: PathState,
    /// Since when it is in this state, in seconds since 1970-01-01 UTC.
    pub since_unix: u64,
    /// The newest round trip, in microseconds; `None` unless it is ok.
    pub round_trip_us: Option<u64>,
    /// Why it is not ok, where packets are lost, or which of several targets does not answer; may be empty.
    pub detail: String,
}
