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
];

/// One key's value: not there, of the right shape, or why not.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Entry<T> {
    #[default]
    Absent,
    Good(T),
    Bad(String),
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(match value.try_into() {
            Ok(good) => Self::Good(good),
            Err(error) => Self::Bad(error.message().trim_end().to_owned()),
        })
    }
}

/// A number that may be left to discovery with the word `auto`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a whole number or \"auto\"")]
pub(super) enum NumberOrWord {
    Number(i64),
    Word(String),
}

/// A list of numbers that may be left to discovery with the word `auto`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a list of whole numbers or \"auto\"")]
pub(super) enum NumbersOrWord {
    Numbers(Vec<i64>),
    Word(String),
}

/// A port, or `false` for a closed one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a port number or false")]
pub(super) enum NumberOrSwitch {
    Number(i64),
    Switch(bool),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawConfig {
    pub log: Entry<RawLog>,
    pub site: Entry<RawSite>,
    pub nat: Entry<RawNat>,
    pub firewall: Entry<RawFirewall>,
    pub hcloud: Entry<RawHcloud>,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawSite {
    pub public_interface: Entry<String>,
    pub server_id: Entry<NumberOrWord>,
    pub metadata_endpoint: Entry<String>,
    pub private: Entry<Vec<RawPrivateLink>>,
    #[serde(flatten)]
    pub unknown: Table,
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

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawNat {
    pub random_ports: Entry<bool>,
    #[serde(flatten)]
    pub unknown: Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawFirewall {
    pub ssh_ports: Entry<NumbersOrWord>,
    pub ssh_from: Entry<Vec<String>>,
    pub wireguard_port: Entry<NumberOrSwitch>,
    #[serde(flatten)]
    pub unknown: Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawHcloud {
    pub enabled: Entry<bool>,
    pub endpoint: Entry<String>,
    pub token_file: Entry<String>,
    pub destinations: Entry<Vec<String>>,
    pub take_over: Entry<bool>,
    pub poll_interval: Entry<String>,
    #[serde(flatten)]
    pub unknown: Table,
}

/// Reads the file's text. Only bad syntax ends here: wrong shapes and unknown keys travel on inside the result.
pub(super) fn parse(text: &str) -> Result<RawConfig, Vec<Problem>> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or_else(|| "the file".to_owned(), |span| position(text, span.start));
        vec![Problem::new(at, error.message().trim_end().replace('\n', ", "))]
    })
}

/// `line 3, column 7` of a byte offset, both counted from one as editors do.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}
