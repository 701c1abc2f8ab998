//! The nouns: a path that traffic takes through this server, and what is known about it.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

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
}

impl Path {
    /// The private network that the path serves.
    pub fn network(&self) -> Ipv4Net {
        match self {
            Self::Nat { network, .. } | Self::Private { network } | Self::Whole { network } => *network,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nat { network, egress: Some(egress) } => write!(f, "nat {network} by {egress}"),
            Self::Nat { network, egress: None } => write!(f, "nat {network}"),
            Self::Private { network } => write!(f, "private {network}"),
            Self::Whole { network } => write!(f, "whole {network}"),
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
