//! The API's objects, as far as we need them: unknown fields and values are let be, since the API grows.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::net::NetworkId;

/// `{"network": …}`
#[derive(Debug, Deserialize)]
pub(super) struct NetworkEnvelope {
    pub network: Network,
}

/// `{"networks": […]}`
#[derive(Debug, Deserialize)]
pub(super) struct NetworksEnvelope {
    pub networks: Vec<Network>,
}

/// `{"action": …}`
#[derive(Debug, Deserialize)]
pub(super) struct ActionEnvelope {
    pub action: Action,
}

/// A Hetzner Network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Network {
    /// Its number.
    pub id: NetworkId,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its subnets.
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subnet {
    /// Its range.
    #[serde(default)]
    pub ip_range: Option<Ipv4Net>,
}

/// A route of a network, and the body that adds or deletes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Packets for this range …
    pub destination: Ipv4Net,
    /// … go to the server that holds this address.
    pub gateway: Ipv4Addr,
}

/// Something that the API does after it has answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Action {
    /// Its number.
    pub id: u64,
    /// What it does: `add_route`, `delete_route`.
    #[serde(default)]
    pub command: String,
    /// How it stands.
    pub status: ActionStatus,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<ActionFailure>,
}

/// How an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionStatus {
    /// Done.
    Success,
    /// Failed.
    Error,
    /// Going on, or something that a later API calls otherwise.
    #[serde(other)]
    Running,
}

/// Why an action failed. An empty message is a failure too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ActionFailure {
    /// The API's code.
    #[serde(default)]
    pub code: String,
    /// The API's words.
    #[serde(default)]
    pub message: String,
}

#[derive(Debug, Deserialize)]
struct ErrorEnvelope {
    error: ErrorBody,
}

/// `{"error": {"code": …, "message": …}}`
#[derive(Debug, Deserialize)]
pub struct ErrorBody {
    /// The API's code.
    #[serde(default)]
    pub code: String,
    /// The API's words.
    #[serde(default)]
    pub message: String,
}

/// The API's error in a response's body; `None` if there is none, as in a load balancer's own answer.
pub fn parse_error_body(body: &[u8]) -> Option<ErrorBody> {
    let envelope: ErrorEnvelope = serde_json::from_slice(body).ok()?;
    Some(envelope.error).filter(|error| !error.code.is_empty() || !error.message.is_empty())
}

/// The answer to `GET /networks/{id}`.
pub fn parse_network(body: &[u8]) -> Result<Network, serde_json::Error> {
    serde_json::from_slice::<NetworkEnvelope>(body).map(|envelope| envelope.network)
}
