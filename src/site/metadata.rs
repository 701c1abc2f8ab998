//! The server's metadata service: which private networks this server is attached to, and its number.
//!
//! The list is live, not frozen at boot: a network attached later shows up later. A task of its own asks, so that a service
//! that hangs never delays a repair; what it said last stays valid until it says something else.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::http::{self, read_limited};
use crate::net::{MacAddress, NetworkId, ServerId};

/// The service is one hop away; cloud-init gives it 2 s as well (cloud-init `DataSourceHetzner`).
const TIMEOUT: Duration = Duration::from_secs(2);
/// Three networks with five aliases each take less than 2 KiB.
const MAX_BODY: usize = 64 * 1024;
/// 10.0.0.0/8 is the largest private range (RFC 1918), and the largest that Hetzner takes.
const SHORTEST_PREFIX: u8 = 8;
/// While something is still expected to appear.
const SOON: Duration = Duration::from_secs(5);
/// When all is there: the answer changes only by hand, and a hot-plugged link asks at once.
const IDLE: Duration = Duration::from_secs(60);
/// Between two questions, however many links come and go.
const AT_LEAST: Duration = Duration::from_millis(500);

/// What the metadata service says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// This server's number.
    pub server_id: Option<ServerId>,
    /// The networks it is attached to, in the service's order, which is not that of the interfaces.
    pub private_networks: Vec<PrivateNetwork>,
}

/// One entry of `/metadata/private-networks`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
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
    /// Not a number.
    #[error("the instance id `{text}` is no number")]
    InstanceId {
        /// What came instead.
        text: String,
    },
}

/// Asks once.
pub async fn fetch(client: &reqwest::Client, endpoint: &str) -> Result<Metadata, Error> {
    let id = get(client, format!("{endpoint}/hetzner/v1/metadata/instance-id")).await?;
    let id = id.trim();
    let server_id = id.parse().map_err(|_| Error::InstanceId { text: id.chars().take(40).collect() })?;
    let networks = get(client, format!("{endpoint}/hetzner/v1/metadata/private-networks")).await?;
    Ok(Metadata { server_id: Some(ServerId(server_id)), private_networks: parse_private_networks(&networks)? })
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

/// The task that keeps asking.
#[derive(Debug)]
pub struct Watcher {
    view: watch::Receiver<MetadataView>,
    nudge: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Starts to ask `endpoint`; `None` asks nobody and is settled at once.
    pub fn start(endpoint: Option<String>) -> Self {
        let nudge = Arc::new(Notify::new());
        let (sender, view) = watch::channel(MetadataView { settled: endpoint.is_none(), ..MetadataView::default() });
        let task = tokio::spawn(watch_metadata(endpoint, sender, Arc::clone(&nudge)));
        Self { view, nudge, task }
    }

    /// What is known now; changes wake its receiver.
    pub fn view(&self) -> watch::Receiver<MetadataView> {
        self.view.clone()
    }

    /// Asks again soon: a link appeared or went.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch_metadata(endpoint: Option<String>, view: watch::Sender<MetadataView>, nudge: Arc<Notify>) {
    let Some(endpoint) = endpoint else { return view.closed().await };
    let client = match http::client(TIMEOUT) {
        Ok(client) => client,
        Err(error) => {
            let error = Some(crate::report::chain(&error));
            view.send_replace(MetadataView { latest: None, error, settled: true });
            return view.closed().await;
        }
    };
    loop {
        let asked = Instant::now();
        let answer = fetch(&client, &endpoint).await;
        let expecting = !matches!(&answer, Ok(metadata) if !metadata.private_networks.is_empty());
        view.send_if_modified(|view| {
            let before = view.clone();
            match answer {
                Ok(metadata) => {
                    *view = MetadataView { latest: Some(metadata), error: None, settled: true };
                }
                Err(error) => {
                    view.error = Some(crate::report::chain(&error));
                    view.settled = true;
                }
            }
            *view != before
        });
        tokio::select! {
            () = tokio::time::sleep(if expecting { SOON } else { IDLE }) => {}
            () = nudge.notified() => tokio::time::sleep_until(asked + AT_LEAST).await,
            () = view.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests;
