//! The server's metadata service: which private networks this server is attached to, and its number.
//!
//! The list is live, not frozen at boot: a network attached later shows up later. A task of its own asks, so that a service
//! that hangs never delays a repair; what it said last stays valid until it says something else.

mod watcher;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

pub use watcher::Watcher;

use crate::http::{self, read_limited};
use crate::net::{MacAddress, NetworkId, ServerId};

/// Three networks with five aliases each take less than 2 KiB.
const MAX_BODY: usize = 64 * 1024;
/// 10.0.0.0/8 is the largest private range (RFC 1918), and the largest that Hetzner takes.
const SHORTEST_PREFIX: u8 = 8;

/// What the metadata service says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// This server's number.
    pub server_id: Option<ServerId>,
    /// The networks it is attached to, in the service's order, which is not that of the interfaces.
    pub private_networks: Vec<PrivateNetwork>,
}

/// One entry of `/metadata/private-networks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateNetwork {
    /// The server's address in it.
    pub ip: Ipv4Addr,
    /// Further addresses of the server in it.
    #[serde(default)]
    pub alias_ips: Vec<Ipv4Addr>,
    /// The interface's Ethernet address.
    pub mac_address: MacAddress,
    /// The network's number.
    pub network_id: NetworkId,
    /// The network's name.
    #[serde(default)]
    pub network_name: Option<String>,
    /// The network's whole range, which the API calls `ip_range`.
    pub network: Ipv4Net,
}

/// What is known of the metadata at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataView {
    /// The newest answer.
    pub latest: Option<Metadata>,
    /// Why the last question went unanswered.
    pub error: Option<String>,
    /// Whether the first question has been answered or given up, or none is to be asked.
    pub settled: bool,
}

/// Why the metadata could not be had. All of them may pass: the service comes up after the interface does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer.
    #[error("cannot fetch {url}")]
    Fetch {
        /// What was asked for.
        url: String,
        /// Why not.
        source: http::Error,
    },
    /// Not the service that was expected.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// Not a list of networks.
    #[error("the list of private networks cannot be read: {reason}")]
    PrivateNetworks {
        /// What the parser says, on one line.
        reason: String,
    },
    /// A network that cannot be: an answer cut off after the 1 of `/16` has half of all addresses for a private network.
    #[error("network {network_id} is said to be {range} with this server at {address}, which cannot be")]
    Range {
        /// The network.
        network_id: NetworkId,
        /// This server's address.
        address: Ipv4Addr,
        /// The range as it came.
        range: Ipv4Net,
    },
}

/// Asks once. The server's number is only shown, so its absence hides nothing else.
pub async fn fetch(client: &reqwest::Client, endpoint: &str) -> Result<Metadata, Error> {
    let networks = get(client, format!("{endpoint}/hetzner/v1/metadata/private-networks")).await?;
    let private_networks = parse_private_networks(&networks)?;
    let id = get(client, format!("{endpoint}/hetzner/v1/metadata/instance-id")).await;
    let server_id = id.ok().and_then(|id| id.trim().parse().ok()).map(ServerId);
    Ok(Metadata { server_id, private_networks })
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

/// Reads the YAML list of `/metadata/private-networks`; an empty body, `[]` and `null` are no networks.
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
    for PrivateNetwork { network_id, ip, network, .. } in &mut networks {
        if network.prefix_len() < SHORTEST_PREFIX || !network.contains(&*ip) {
            return Err(Error::Range { network_id: *network_id, address: *ip, range: *network });
        }
        // Ranges are compared by their first address from here on.
        *network = network.trunc();
    }
    Ok(networks)
}

#[cfg(test)]
mod tests;
