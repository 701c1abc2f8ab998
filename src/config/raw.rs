//! The file as it stands: names and shapes, nothing checked.
//!
//! Each value is kept with its own verdict ([`Entry`]) and unknown keys are collected instead of ending the read, so that
//! one run can show everything that is wrong.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use super::Problem;

/// Every key of the file, dotted. `config.example.toml` documents exactly these (a test compares).
pub const KNOWN_KEYS: &[&str] = &[
    "log.level",
    "site.public_interface",
    "site.server_id",
    "site.metadata_endpoint",
    "site.private.interface",
    "site.private.network",
    "site.private.address",
    "site.private.network_id",
    "nat.random_ports",
    "firewall.ssh_ports",
    "firewall.ssh_from",
    "firewall.wireguard_port",
    "hcloud.enabled",
    "hcloud.endpoint",
    "hcloud.token_file",
    "hcloud.destinations",
    "hcloud.take_over",
    "hcloud.poll_interval",
    "wireguard.enabled",
    "wireguard.interface",
    "wireguard.listen_port",
    "wireguard.private_key_file",
    "wireguard.addresses",
    "wireguard.mtu",
    "wireguard.fwmark",
    "wireguard.backend",
    "wireguard.full_tunnel",
    "wireguard.snat",
    "wireguard.file",
    "wireguard.peer.name",
    "wireguard.peer.public_key",
    "wireguard.peer.preshared_key",
    "wireguard.peer.preshared_key_file",
    "wireguard.peer.allowed_ips",
    "wireguard.peer.endpoint",
    "wireguard.peer.persistent_keepalive",
];

/// One key's value: not there, of the right shape, or why not.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Entry<T> {
    #[default]
    Absent,
    Good(T),
    Bad(String),
}

impl<T: Shape> From<Value> for Entry<T> {
    fn from(value: Value) -> Self {
        match T::of(value) {
            Ok(good) => Self::Good(good),
            Err(other) => Self::Bad(format!("expected {}, found {}", T::EXPECTED, found(&other))),
        }
    }
}

impl<'de, T: Shape> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

/// What a value must look like. serde could tell it from the types, but would speak of sequences and Rust's structs.
pub(super) trait Shape: Sized {
    /// What the operator is told: `true or false`.
    const EXPECTED: &'static str;
    /// The value in its shape, or unchanged if it has another.
    fn of(value: Value) -> Result<Self, Value>;
}

/// A value of the wrong shape, as the operator wrote it where that is short.
fn found(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
    }
}

impl Shape for bool {
    const EXPECTED: &'static str = "true or false";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::Boolean(switch) = value { Ok(switch) } else { Err(value) }
    }
}

impl Shape for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::Integer(number) = value { Ok(number) } else { Err(value) }
    }
}

impl Shape for String {
    const EXPECTED: &'static str = "a string in quotes";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::String(text) = value { Ok(text) } else { Err(value) }
    }
}

impl<T: Shape> Shape for Vec<Entry<T>> {
    const EXPECTED: &'static str = "a list";

    fn of(value: Value) -> Result<Self, Value> {
        if let Value::Array(values) = value { Ok(values.into_iter().map(Entry::from).collect()) } else { Err(value) }
    }
}

/// A number that may be left to discovery with the word `auto`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NumberOrAuto {
    Number(i64),
    Auto,
}

impl Shape for NumberOrAuto {
    const EXPECTED: &'static str = "a whole number or \"auto\"";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Integer(number) => Ok(Self::Number(number)),
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            other => Err(other),
        }
    }
}

/// A list of ports that may be left to discovery with the word `auto`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PortsOrAuto {
    Ports(Vec<Entry<i64>>),
    Auto,
}

impl Shape for PortsOrAuto {
    const EXPECTED: &'static str = "a list of ports or \"auto\"";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            other => Vec::of(other).map(Self::Ports),
        }
    }
}

/// A port, the tunnel's own with the word `auto`, or `false` for a closed one.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PortAutoOrClosed {
    Port(i64),
    Auto,
    Closed,
}

impl Shape for PortAutoOrClosed {
    const EXPECTED: &'static str = "a port number, \"auto\", or false for a closed port";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Integer(number) => Ok(Self::Port(number)),
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            Value::Boolean(false) => Ok(Self::Closed),
            other => Err(other),
        }
    }
}

/// A switch that may be left to the daemon with the word `auto`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SwitchOrAuto {
    Switch(bool),
    Auto,
}

impl Shape for SwitchOrAuto {
    const EXPECTED: &'static str = "true, false or \"auto\"";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Boolean(switch) => Ok(Self::Switch(switch)),
            Value::String(word) if word == "auto" => Ok(Self::Auto),
            other => Err(other),
        }
    }
}

/// A table with keys of its own. Their values are [`Entry`]s, so reading it cannot fail once it is a table.
trait Section: DeserializeOwned {}

impl<T: Section> Shape for T {
    const EXPECTED: &'static str = "a table";

    fn of(value: Value) -> Result<Self, Value> {
        match value {
            Value::Table(table) => table.try_into().map_err(|_| Value::Table(Table::new())),
            other => Err(other),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawConfig {
    pub log: Entry<RawLog>,
    pub site: Entry<RawSite>,
    pub nat: Entry<RawNat>,
    pub firewall: Entry<RawFirewall>,
    pub hcloud: Entry<RawHcloud>,
    pub wireguard: Entry<RawWireguard>,
    #[serde(flatten)]
    pub unknown: Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLog {
    pub level: Entry<String>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawLog {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawSite {
    pub public_interface: Entry<String>,
    pub server_id: Entry<NumberOrAuto>,
    pub metadata_endpoint: Entry<String>,
    pub private: Entry<RawPrivateLinks>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawSite {}

#[derive(Debug)]
pub(super) struct RawPrivateLinks(pub Vec<Entry<RawPrivateLink>>);

impl Shape for RawPrivateLinks {
    const EXPECTED: &'static str = "[[site.private]] blocks, in double brackets";

    fn of(value: Value) -> Result<Self, Value> {
        Vec::of(value).map(Self)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPrivateLink {
    pub interface: Entry<String>,
    pub network: Entry<String>,
    pub address: Entry<String>,
    pub network_id: Entry<i64>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawPrivateLink {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNat {
    pub random_ports: Entry<bool>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawNat {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawFirewall {
    pub ssh_ports: Entry<PortsOrAuto>,
    pub ssh_from: Entry<Vec<Entry<String>>>,
    pub wireguard_port: Entry<PortAutoOrClosed>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawFirewall {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawHcloud {
    pub enabled: Entry<bool>,
    pub endpoint: Entry<String>,
    pub token_file: Entry<String>,
    pub destinations: Entry<Vec<Entry<String>>>,
    pub take_over: Entry<bool>,
    pub poll_interval: Entry<String>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawHcloud {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawWireguard {
    pub enabled: Entry<bool>,
    pub interface: Entry<String>,
    pub listen_port: Entry<i64>,
    pub private_key_file: Entry<String>,
    pub addresses: Entry<Vec<Entry<String>>>,
    pub mtu: Entry<NumberOrAuto>,
    pub fwmark: Entry<i64>,
    pub backend: Entry<String>,
    pub full_tunnel: Entry<bool>,
    pub snat: Entry<SwitchOrAuto>,
    pub file: Entry<String>,
    pub peer: Entry<RawPeers>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawWireguard {}

#[derive(Debug)]
pub(super) struct RawPeers(pub Vec<Entry<RawPeer>>);

impl Shape for RawPeers {
    const EXPECTED: &'static str = "[[wireguard.peer]] blocks, in double brackets";

    fn of(value: Value) -> Result<Self, Value> {
        Vec::of(value).map(Self)
    }
}

/// A peer: a block of the file, or a file of `peers.d`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPeer {
    pub name: Entry<String>,
    pub public_key: Entry<String>,
    pub preshared_key: Entry<String>,
    pub preshared_key_file: Entry<String>,
    pub allowed_ips: Entry<Vec<Entry<String>>>,
    pub endpoint: Entry<String>,
    pub persistent_keepalive: Entry<i64>,
    #[serde(flatten)]
    pub unknown: Table,
}

impl Section for RawPeer {}

/// Reads a file's text. Only bad syntax ends here: wrong shapes and unknown keys travel on inside the result.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or_else(|| "the file".to_owned(), |span| position(text, span.start));
        let literal = error.span().and_then(|span| text.get(span)).unwrap_or_default();
        let reason = if is_too_large(literal) {
            format!("{literal} is larger than any number that is meant here")
        } else {
            error.message().trim_end().replace('\n', ", ")
        };
        Problem::new(at, reason)
    })
}

/// A whole number beyond 64 bits, which ends the read: TOML promises no more (TOML 1.0, "Integer").
fn is_too_large(literal: &str) -> bool {
    let plain = literal.replace('_', "");
    let digits = plain.trim_start_matches(['+', '-']);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && plain.parse::<i64>().is_err()
}

/// `line 3, column 7` of a byte offset, both counted from one as editors do.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
