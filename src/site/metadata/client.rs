//! One query of the metadata service, and its answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::chain;
use crate::hetzner::MAX_NETWORKS;
use crate::http::{self, read_limited};
use crate::net::{MacAddress, NetworkId, ServerId, is_private};
use crate::printable::{self, printable};

/// The largest answer that is read, in bytes. Three networks with five aliases each take less than 2 KiB.
const MAX_BODY: usize = 64 * 1024;

/// The answer of the metadata service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// This server's number.
    pub server_id: Option<ServerId>,
    /// The networks that it is attached to, in the service's order. The interfaces may have another order.
    pub private_networks: Vec<PrivateNetwork>,
    /// This server's primary public IPv4 address, if it has one.
    #[serde(default)]
    pub public_ipv4: Option<Ipv4Addr>,
}

/// One entry of `/metadata/private-networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateNetwork {
    /// The server's address in the network.
    pub ip: Ipv4Addr,
    /// Further addresses of the server in the network.
    #[serde(default)]
    pub alias_ips: Vec<Ipv4Addr>,
    /// The interface's Ethernet address.
    pub mac_address: MacAddress,
    /// The network's number.
    pub network_id: NetworkId,
    /// The network's name.
    #[serde(default, deserialize_with = "printable::deserialize_option")]
    pub network_name: Option<String>,
    /// The network's whole range; the API calls it `ip_range`.
    pub network: Ipv4Net,
    /// The network's gateway, to which its routes lead.
    #[serde(default, deserialize_with = "if_valid")]
    pub gateway: Option<Ipv4Addr>,
}

/// An address that is only named in messages: without it the list is as good.
fn if_valid<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Addr>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

/// What is known about the metadata at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MetadataView {
    /// What is believed: the last answer, and of earlier ones what that one contradicts against all appearance.
    pub latest: Option<Metadata>,
    /// What of the last answer is not believed.
    pub doubts: Vec<Doubt>,
    /// Why the last query failed; `None` if it succeeded.
    pub error: Option<Failure>,
    /// Whether the first query has succeeded or failed, or no query is needed.
    pub settled: bool,
}

/// A part of an answer that is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// A known network is not listed any more.
    Unlisted(NetworkId),
    /// A known network is listed with this range, and its routes are still those of the known one.
    Range(NetworkId, Ipv4Net),
    /// A known network is listed with this Ethernet address, which no interface has, and the known one's has its
    /// address.
    Interface(NetworkId, MacAddress),
    /// The answer names another server. The number of a running server does not change.
    Server(ServerId),
}

/// Why a query failed, as far as it matters for the advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The error with its causes, on one line.
    pub text: String,
    /// Whether the service accepted the connection and then took too long.
    pub is_slow: bool,
}

impl Error {
    /// Whether the service accepted the connection and then took too long.
    fn is_slow(&self) -> bool {
        matches!(self, Self::Fetch { source: http::Error::Request(error), .. }
            if error.is_timeout() && !error.is_connect())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { text: printable(&chain(&error)).into_owned(), is_slow: error.is_slow() }
    }
}

/// Why a query failed. Every error may be temporary, because the service becomes reachable after the interface.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service does not answer.
    #[error("cannot fetch {url}")]
    Fetch {
        /// The URL of the query.
        url: String,
        /// The error of the HTTP client.
        source: http::Error,
    },
    /// The answer has an error status, so this is probably another service.
    #[error("{url} answered {status}")]
    Status {
        /// The URL of the query.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The answer is not a list of networks.
    #[error("the list of private networks cannot be read: {reason}")]
    PrivateNetworks {
        /// The parser's error, on one line.
        reason: String,
    },
    /// A network is impossible: Hetzner's are private ranges (RFC 1918), and an answer that is truncated after the 1 of
    /// `/16` names a network of half of all addresses.
    #[error("network {network_id} is listed with the impossible range {range} and this server's address {address}")]
    Range {
        /// The network.
        network_id: NetworkId,
        /// This server's address.
        address: Ipv4Addr,
        /// The range in the answer.
        range: Ipv4Net,
    },
    /// More networks than a server can be attached to.
    #[error("{count} private networks are listed, and Hetzner attaches a server to {MAX_NETWORKS} at most")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Two networks at one interface.
    #[error("two networks are listed with the Ethernet address {mac_address}")]
    SameInterface {
        /// The interface's address.
        mac_address: MacAddress,
    },
}

/// Queries the service once: all paths at the same time, because it may be slow. Only the networks have to be there.
pub(super) async fn fetch(client: &reqwest::Client, endpoint: &str) -> Result<Metadata, Error> {
    let get = |path: &str| get(client, format!("{endpoint}/hetzner/v1/metadata/{path}"));
    let (networks, id, public) = tokio::join!(get("private-networks"), get("instance-id"), get("public-ipv4"));
    Ok(Metadata {
        private_networks: parse_private_networks(&networks?)?,
        server_id: id.ok().and_then(|id| id.trim().parse().ok()).map(ServerId),
        public_ipv4: public.ok().and_then(|address| address.trim().parse().ok()),
    })
}

async fn get(client: &reqwest::Client, url: String) -> Result<String, Error> {
    let failed = |source| Error::Fetch { url: url.clone(), source };
    let response = client.get(&url).send().await.map_err(|error| failed(error.into()))?;
    let status = response.status();
    if !status.is_success() {
        return Err(Error::Status { url, status });
    }
    let body = read_limited(response, MAX_BODY).await.map_err(failed)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Parses the YAML list of `/metadata/private-networks`. An empty body, `[]` and `null` mean no networks.
pub fn parse_private_networks(text: &str) -> Result<Vec<PrivateNetwork>, Error> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let networks: Result<Option<Vec<PrivateNetwork>>, _> = serde_saphyr::from_str(text);
    let failed = |error: serde_saphyr::Error| {
        let reason = error.to_string();
        Error::PrivateNetworks { reason: reason.lines().next().unwrap_or_default().trim().to_owned() }
    };
    let mut networks = networks.map_err(failed)?.unwrap_or_default();
    if networks.len() > MAX_NETWORKS {
        return Err(Error::TooMany { count: networks.len() });
    }
    let mut seen = BTreeSet::new();
    for PrivateNetwork { network_id, ip, network, mac_address, .. } in &mut networks {
        if !seen.insert(*mac_address) {
            return Err(Error::SameInterface { mac_address: *mac_address });
        }
        if !is_private(*network) || !network.contains(&*ip) {
            return Err(Error::Range { network_id: *network_id, address: *ip, range: *network });
        }
        // Later comparisons rely on ranges without host bits.
        *network = network.trunc();
    }
    Ok(networks)
}

#[cfg(test)]
mod tests;
