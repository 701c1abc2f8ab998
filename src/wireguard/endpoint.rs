//! Where a peer is reached: an address, or a name that is yet to be resolved.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A peer's endpoint as it is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointName {
    /// An address: `192.0.2.7:51820`, `[2001:db8::7]:51820`.
    Address(SocketAddr),
    /// A host's name.
    Name {
        /// The name.
        host: String,
        /// The UDP port, from 1.
        port: u16,
    },
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no endpoint (like 192.0.2.7:51820, [2001:db8::7]:51820 or vpn.example.org:51820)")]
pub struct InvalidEndpoint(String);

/// A name's length on the wire, less its root (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 253;

impl FromStr for EndpointName {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEndpoint(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(invalid()) } else { Ok(Self::Address(address)) };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().ok().filter(|&port| port > 0).ok_or_else(invalid)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        // What ends in a number is meant to be an address (RFC 1123 section 2.1), and is a wrong one.
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let numeric = last.chars().all(|c| c.is_ascii_digit());
        if (1..=MAX_NAME).contains(&host.len()) && host.chars().all(allowed) && !numeric {
            Ok(Self::Name { host: host.to_owned(), port })
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}
