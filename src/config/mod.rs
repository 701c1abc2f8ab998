//! The configuration: the file, its defaults, its checks, and the few environment variables of the ecosystem.
//!
//! Nothing outside this room meets an unchecked value, and nothing here looks at the world: [`parse_with`] is a pure function
//! of the file's text, the [`Environment`] and the [`Files`] that belong to it, so `bastionctl check` and the daemon give the
//! same answer.

mod check;
mod environment;
mod files;
mod findings;
mod policy;
mod raw;
mod values;
mod wireguard;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::Serialize;

pub use environment::Environment;
pub use files::{Files, NoFiles, Text, Unreadable};
pub use policy::{
    Acl, Egress, EgressLists, Fastpath, Firewall, Forward, LogDrops, Nat, NetworkPolicy, Ports, Protocol, Service,
    StaticNat, Transport, Transports,
};
pub use raw::KNOWN_KEYS;
pub use wireguard::{Backend, Peer, Snat, Wireguard};

use crate::net::{InterfaceName, NetworkId, ServerId};

/// Where the package puts the file.
pub const DEFAULT_PATH: &str = "/etc/bastiond/config.toml";

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How much is logged.
    pub log: Log,
    /// What this server is, where the operator knows better than discovery.
    pub site: Site,
    /// How private sources are translated.
    pub nat: Nat,
    /// What private hosts may reach.
    pub egress: Egress,
    /// `[[network]]`: what holds for single private networks.
    pub networks: Vec<NetworkPolicy>,
    /// `[tenants]`: what may pass from one private network to another, from those who open a flow to those who answer.
    pub tenants: Vec<Acl>,
    /// What may reach the bastion itself.
    pub firewall: Firewall,
    /// The routes in the Hetzner Network.
    pub hcloud: Hcloud,
    /// The tunnel; `None`: there is none.
    pub wireguard: Option<Wireguard>,
    /// What is allowed but hardly meant, sorted by key.
    pub warnings: Vec<Problem>,
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
    /// The interface towards the internet; `None`: the one of the IPv4 default route.
    pub public_interface: Option<InterfaceName>,
    /// This server's number; `None`: asked of the metadata service.
    pub server_id: Option<ServerId>,
    /// Base of the metadata service, without a trailing slash.
    pub metadata_endpoint: String,
    /// The private links; empty: those that the metadata service names.
    pub private: Vec<PrivateLink>,
}

impl Site {
    /// The metadata service to ask, if any: it is asked for private links, and where they are written by hand nobody is.
    pub fn metadata_to_ask(&self) -> Option<String> {
        self.private.is_empty().then(|| self.metadata_endpoint.clone())
    }
}

/// `[[site.private]]`: one private link, written by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateLink {
    /// The interface.
    pub interface: InterfaceName,
    /// The network behind it: sources from it are let out and translated.
    pub network: Ipv4Net,
    /// The bastion's own address there; `None`: the interface's first address inside `network`.
    pub address: Option<Ipv4Addr>,
    /// The number of the Hetzner Network, for its routes; `None`: `HCLOUD_NETWORK`, or no routes.
    pub network_id: Option<NetworkId>,
}

/// `[hcloud]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hcloud {
    /// Whether cloud routes are looked after at all.
    pub enabled: bool,
    /// Base URL of the API, with its version, without a trailing slash.
    pub endpoint: String,
    /// Where the token comes from, first match first.
    pub token: TokenSource,
    /// Destinations whose traffic each attached network shall send here.
    pub destinations: Vec<Ipv4Net>,
    /// Whether a route for one of `destinations` that names somebody else's gateway is replaced.
    pub take_over: bool,
    /// Time between two looks at an idle API, for each attached network.
    pub poll_interval: Duration,
    /// `HCLOUD_NETWORK`: the network, by number or name, of a private link without a number of its own.
    pub network: Option<String>,
}

/// Where the API token is read from. It is read afresh for every pass, so a rotated token needs no reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSource {
    /// The systemd credential, tried first. An empty one counts as absent: a unit can name a file that need not be there only
    /// together with a stand-in.
    pub credential: Option<PathBuf>,
    /// Files to try next, in order: `hcloud.token_file`, `HCLOUD_TOKEN_FILE`.
    pub files: Vec<PathBuf>,
    /// `HCLOUD_TOKEN`, if no file exists.
    pub value: Option<Secret>,
}

/// A text that never shows itself in logs.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret over.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself: only for the header or key it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The key, dotted as in the file: `firewall.ssh_from[1]`. A syntax error has its line and column here.
    pub key: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl Problem {
    fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { key: key.into(), reason: one_line(&reason.into()) }
    }
}

/// The text on one line and short enough to read, whatever of the file it quotes: the middle goes, the advice at its end
/// stays.
fn one_line(text: &str) -> String {
    const KEEP: usize = 160;
    let escape = |text: &str| {
        text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
            if c.is_control() {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
            line
        })
    };
    if text.len() <= 2 * KEEP {
        return escape(text);
    }
    let head = text.char_indices().nth(KEEP).map(|(at, _)| at);
    let tail = text.char_indices().nth_back(KEEP - 1).map(|(at, _)| at);
    match head.zip(tail) {
        Some((head, tail)) if head < tail => format!("{} … {}", escape(&text[..head]), escape(&text[tail..])),
        _ => escape(text),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// Why there is no configuration. Exit code 78 (`EX_CONFIG`), whatever the variant.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: Unreadable,
    },
    /// The file is wrong.
    #[error("the configuration {} has {} problem(s)", path.display(), problems.len())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that is wrong, sorted by key.
        problems: Vec<Problem>,
    },
}

impl Error {
    /// What is wrong with the file's content; empty when it could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            Self::Read { .. } => &[],
        }
    }
}

/// Reads and checks the file at `path`, and those that belong to it.
pub fn load(path: &Path, environment: &Environment) -> Result<Config, Error> {
    let files = files::Disk::beside(path);
    let file = files.read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    check_with(&file.text, file.readable_by_all, environment, &files)
        .map_err(|problems| Error::Invalid { path: path.to_owned(), problems })
}

/// Checks the text of a configuration file that stands alone; every problem at once, sorted by key.
pub fn parse(text: &str, environment: &Environment) -> Result<Config, Vec<Problem>> {
    parse_with(text, environment, &NoFiles)
}

/// Checks the text of a configuration file and those that belong to it; every problem at once, sorted by key.
pub fn parse_with(text: &str, environment: &Environment, files: &impl Files) -> Result<Config, Vec<Problem>> {
    check_with(text, false, environment, files)
}

fn check_with(
    text: &str,
    readable_by_all: bool,
    environment: &Environment,
    files: &impl Files,
) -> Result<Config, Vec<Problem>> {
    let raw = raw::parse(text).map_err(|problem| vec![problem])?;
    check::check(raw, &check::Surroundings { environment, files, readable_by_all })
}

#[cfg(test)]
mod tests;
