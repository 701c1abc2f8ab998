//! The checked configuration: [`Config`] and those of its sections that are only a few values.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ipnet::Ipv4Net;

use super::diagnostic::Diagnostic;
use super::policy::{Acl, Egress, Firewall, Nat, NetworkPolicy};
use super::secret::Secret;
use super::wireguard::Wireguard;
use crate::net::{InterfaceName, NetworkId, ServerId};

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What is logged.
    pub log: Log,
    /// Facts about this server that override discovery.
    pub site: Site,
    /// How private sources are translated.
    pub nat: Nat,
    /// What private hosts may reach on the internet.
    pub egress: Egress,
    /// `[[network]]`: settings of single private networks.
    pub networks: Vec<NetworkPolicy>,
    /// `[tenants]`: which flows may pass from one private network to another; `from` opens the flow, `to` answers.
    pub tenants: Vec<Acl>,
    /// What may reach the bastion itself.
    pub firewall: Firewall,
    /// The routes in the Hetzner Network.
    pub hcloud: Hcloud,
    /// The probes that prove that traffic flows.
    pub health: Health,
    /// The tunnel; `None`: there is no tunnel.
    pub wireguard: Option<Wireguard>,
    /// `[hosts]`: names for addresses and ranges.
    pub hosts: BTreeMap<String, Vec<Ipv4Net>>,
    /// What is allowed but probably a mistake, sorted by key.
    pub warnings: Vec<Diagnostic>,
}

impl Config {
    /// The configuration at this time: without the peers of the tunnel that are disabled or have expired.
    #[must_use]
    pub fn at(&self, now: SystemTime) -> Self {
        Self { wireguard: self.wireguard.as_ref().map(|tunnel| tunnel.at(now)), ..self.clone() }
    }

    /// The settings of the private network with this range behind this interface, if it has some of its own.
    pub fn policy_of(&self, network: Ipv4Net, interface: &InterfaceName) -> Option<&NetworkPolicy> {
        self.networks.iter().find(|policy| policy.network.is(network, interface))
    }
}

/// `[log]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: tracing::Level,
}

/// `[site]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The interface towards the internet; `None`: the interface of the IPv4 default route.
    pub public_interface: Option<InterfaceName>,
    /// This server's number; `None`: ask the metadata service.
    pub server_id: Option<ServerId>,
    /// Base URL of the metadata service, without a trailing slash.
    pub metadata_endpoint: String,
    /// What happens to the bridges of Docker.
    pub docker: DockerBridges,
    /// The private links; empty: the links that the metadata service lists.
    pub private: Vec<PrivateLink>,
}

impl Site {
    /// The metadata service to query; `None` if the private links are configured, because then no query is needed.
    pub fn metadata_to_query(&self) -> Option<String> {
        self.private.is_empty().then(|| self.metadata_endpoint.clone())
    }
}

/// `site.docker`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DockerBridges {
    /// They are not served, which is reported if one has containers.
    #[default]
    Report,
    /// They are served as networks of the gateway.
    Serve,
    /// They are not served, and nothing is said about it.
    Ignore,
}

/// `[[site.private]]`: one configured private link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateLink {
    pub interface: InterfaceName,
    /// The network behind it. Packets from its hosts are forwarded and translated.
    pub network: Ipv4Net,
    /// The bastion's own address in `network`; `None`: the interface's first address inside `network`.
    pub address: Option<Ipv4Addr>,
    /// The number of the Hetzner Network whose routes are managed; `None`: `HCLOUD_NETWORK`, or no routes.
    pub network_id: Option<NetworkId>,
    /// Further ranges whose hosts are reached through the network.
    pub also: Vec<Ipv4Net>,
}

/// `[hcloud]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hcloud {
    /// Whether the daemon manages cloud routes.
    pub enabled: bool,
    /// Base URL of the API, with its version, without a trailing slash.
    pub endpoint: String,
    /// Where the token comes from.
    pub token: TokenSource,
    /// Each attached network gets a route to this server for each of these destinations.
    pub destinations: Vec<Ipv4Net>,
    /// Whether a route for one of `destinations` that names another gateway is replaced.
    pub take_over: bool,
    /// Time between two polls of the routes of one network. 1 s to 24 h.
    pub poll_interval: Duration,
    /// `HCLOUD_NETWORK`: number or name of the network of a private link that has no number of its own.
    pub network: Option<String>,
}

/// `[health]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether probes are sent.
    pub enabled: bool,
    /// The resolvers that probes ask, by DNS over UDP; at least one.
    pub targets: Vec<SocketAddrV4>,
}

/// Where the API token comes from: the first source that exists. It is read in every pass, so that a rotated token
/// needs no reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSource {
    /// The systemd credential, tried first. An empty file counts as absent: a unit can make a credential optional only
    /// by giving it an empty default.
    pub credential: Option<PathBuf>,
    /// Files to try next, in this order: `hcloud.token_file`, `HCLOUD_TOKEN_FILE`.
    pub files: Vec<PathBuf>,
    /// `HCLOUD_TOKEN`, used if none of the files exists.
    pub value: Option<Secret>,
}
