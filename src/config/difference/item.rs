//! One thing that a configuration says, and how it is written.

use std::fmt::{self, Display};
use std::time::Duration;

use bastiond_tunnel::key::{PresharedKey, PrivateKey};

use crate::config::secret::Secret;

/// One thing that a configuration says.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// What kind of thing it is, in the file's words: `forward`, `nat.random_ports`.
    pub(super) kind: &'static str,
    /// What makes it the same thing in another configuration; empty for a key that exists once.
    pub(super) identity: String,
    /// What is said about it.
    pub(super) text: String,
    /// A secret that belongs to it and is never shown.
    pub(super) secret: Option<SecretValue<'a>>,
}

/// A secret, for comparison alone.
#[derive(Debug, PartialEq)]
pub(super) enum SecretValue<'a> {
    /// A peer's.
    Preshared(&'a PresharedKey),
    /// This server's.
    Private(&'a PrivateKey),
    /// The API token.
    Token(&'a Secret),
}

impl Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.text)
    }
}

impl Item<'_> {
    /// A block, or an entry of a list, which is the same in another configuration if `identity` is.
    pub(super) fn named(kind: &'static str, identity: impl Into<String>, text: impl Into<String>) -> Self {
        Self { kind, identity: identity.into(), text: text.into(), secret: None }
    }

    /// An entry of a list that is there or not.
    pub(super) fn entry(kind: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self::named(kind, text.clone(), text)
    }

    /// A key with a value.
    pub(super) fn key(key: &'static str, value: impl Display) -> Self {
        Self::named(key, "", format!("= {value}"))
    }
}

/// The place of a kind of items in the file.
pub(super) fn place_of(kind: &'static str) -> usize {
    KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len())
}

/// Every kind of item, in the order of the file.
pub(super) const KINDS: [&str; 64] = [
    "host",
    "log.level",
    "site.public_interface",
    "site.server_id",
    "site.metadata_endpoint",
    "site.docker",
    "private link",
    "nat.random_ports",
    "nat.egress_addresses",
    "nat.drain",
    "nat.fastpath",
    "forward",
    "static",
    "egress.guard",
    "egress.smtp",
    "egress.new_flows_per_second",
    "egress.max_flows",
    "egress.network_new_flows_per_second",
    "egress.allow",
    "egress allow",
    "egress deny",
    "network",
    "tenants allow",
    "firewall.ssh_ports",
    "ssh",
    "firewall.ssh_only_by_tunnel",
    "firewall.ssh_attempts",
    "firewall.ssh_ban",
    "firewall.wireguard_port",
    "firewall.pings_per_second",
    "firewall.syns_per_second",
    "firewall.new_flows_per_second",
    "firewall.max_flows",
    "firewall.fair_share",
    "firewall.log_drops",
    "firewall.metadata_users",
    "blocklist",
    "service",
    "hcloud.enabled",
    "hcloud.endpoint",
    "hcloud.token_file",
    "HCLOUD_TOKEN",
    "HCLOUD_NETWORK",
    "cloud route",
    "hcloud.take_over",
    "hcloud.poll_interval",
    "health.enabled",
    "probe target",
    "tunnel",
    "wireguard.listen_port",
    "wireguard.private_key_file",
    "tunnel address",
    "wireguard.mtu",
    "wireguard.fwmark",
    "wireguard.backend",
    "wireguard.full_tunnel",
    "wireguard.routes",
    "wireguard.snat",
    "wireguard.endpoint",
    "wireguard.dns",
    "wireguard.default_reach",
    "group",
    "peer",
    "peer access",
];

/// The value, or a word in its place.
pub(super) fn or<T: Display>(value: Option<T>, word: &str) -> String {
    value.map_or_else(|| word.to_owned(), |value| value.to_string())
}

/// `[a, b]`
pub(super) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    format!("[{}]", values.join(", "))
}

pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// ` "web"`, or nothing.
pub(super) fn name(name: Option<&String>) -> String {
    name.map_or_else(String::new, |name| format!(" {name:?}"))
}
