//! The API's objects, as far as the daemon needs them. Unknown fields and values are ignored, because the API grows.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::net::{NetworkId, ServerId};
use crate::printable;

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
    pub id: NetworkId,
    #[serde(default, deserialize_with = "printable::deserialize")]
    pub name: String,
    #[serde(default)]
    pub subnets: Vec<Subnet>,
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Whether servers behind a vSwitch learn the network's routes.
    #[serde(default)]
    pub expose_routes_to_vswitch: bool,
}

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Subnet {
    /// The subnet's range; `None` in a subnet without one.
    #[serde(default)]
    pub ip_range: Option<Ipv4Net>,
    /// `cloud`, `server` or `vswitch`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
}

/// `{"servers": […]}`
#[derive(Debug, Deserialize)]
pub(super) struct ServersEnvelope {
    pub servers: Vec<Server>,
}

/// A server, as far as its private addresses go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Server {
    pub id: ServerId,
    #[serde(default)]
    pub private_net: Vec<Attachment>,
}

/// A server's addresses in one network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Attachment {
    pub network: NetworkId,
    #[serde(default)]
    pub ip: Option<Ipv4Addr>,
    #[serde(default)]
    pub alias_ips: Vec<Ipv4Addr>,
}

impl Attachment {
    /// Whether the server has this address in the network.
    pub(super) fn holds(&self, network: NetworkId, address: Ipv4Addr) -> bool {
        self.network == network && (self.ip == Some(address) || self.alias_ips.contains(&address))
    }
}

/// A route of a network, and the body that adds or deletes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Packets to this range …
    pub destination: Ipv4Net,
    /// … go to the server that holds this address.
    pub gateway: Ipv4Addr,
}

/// A change that the API carries out after it has answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Action {
    pub id: u64,
    /// What it does: `add_route`, `delete_route`.
    #[serde(default, deserialize_with = "printable::deserialize")]
    pub command: String,
    /// Whether it runs, succeeded or failed.
    pub status: ActionStatus,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<ActionFailure>,
}

/// The state of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActionStatus {
    /// Done.
    Success,
    /// Failed.
    Error,
    /// Running, or a state that this version does not know.
    #[serde(other)]
    Running,
}

/// Why an action failed. Both fields may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ActionFailure {
    /// The API's error code.
    #[serde(default, deserialize_with = "printable::deserialize")]
    pub code: String,
    /// The API's message, for people.
    #[serde(default, deserialize_with = "printable::deserialize")]
    pub message: String,
}

#[derive(Debug, Deserialize)]
struct ErrorEnvelope {
    error: ErrorBody,
}

/// `{"error": {"code": …, "message": …}}`
#[derive(Debug, Deserialize)]
pub struct ErrorBody {
    /// The API's error code.
    #[serde(default)]
    pub code: String,
    /// The API's message, for people.
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
