//! Configuration files of wg(8) and wg-quick(8), so that an existing tunnel can be taken over without changes.
//!
//! Files are only read. Hooks (`PostUp` and the like) are never run, resolvers never changed and the file never
//! written: these keys are listed in [`File::ignored`], so that the operator can be informed. The parser is our own,
//! since the crates for these files know only some of the keys, or accept what wg(8) refuses.

mod hook;
mod parse;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;

use ipnet::IpNet;

pub use hook::HookSetting;
pub use parse::parse;

use crate::endpoint::EndpointName;
use crate::key::{PresharedKey, PrivateKey, PublicKey};

/// A larger file is no configuration but a mistake: 10 000 peers with every key take about 3 MB.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The content of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct File {
    /// `PrivateKey`; `None` if there is none, or one of zeroes.
    pub private_key: Option<PrivateKey>,
    /// `ListenPort`; 0 lets the kernel choose.
    pub listen_port: Option<u16>,
    /// `FwMark`, the mark of outgoing UDP packets; 0 is none.
    pub fwmark: Option<u32>,
    /// `Address` of wg-quick: the interface's own addresses, with the length of their network's prefix.
    pub addresses: Vec<IpNet>,
    /// `MTU` of wg-quick, in bytes, from 68 (RFC 791 §3.2) to 65535.
    pub mtu: Option<u32>,
    /// `Table` of wg-quick.
    pub table: Table,
    /// The peers in their order. No two have the same key, and no two the same allowed-ip: the last one in the file
    /// has it.
    pub peers: Vec<FilePeer>,
    /// Keys that are not acted on, in the file's order.
    pub ignored: Vec<Ignored>,
    /// What wg(8) and wg-quick(8) accept silently although it is probably a mistake, by line; at most 100.
    pub warnings: Vec<Problem>,
}

/// Where the routes to the peers go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Table {
    /// Into the main table, with special care for default routes.
    #[default]
    Auto,
    /// No routes are added.
    Off,
    /// Into this table; never 0.
    Number(u32),
}

/// One peer of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePeer {
    /// The peer's public key, which identifies it.
    pub public_key: PublicKey,
    /// The secret shared with it; `None` if there is none, or one of zeroes.
    pub preshared_key: Option<PresharedKey>,
    /// Its prefixes without host bits, each once, in the file's order.
    pub allowed_ips: Vec<IpNet>,
    /// The peer's address or name with a port, if the file has one.
    pub endpoint: Option<EndpointName>,
    /// Seconds between persistent keepalives; 0 is off.
    pub persistent_keepalive: Option<u16>,
}

impl FilePeer {
    /// A peer with nothing but its key.
    pub fn new(public_key: PublicKey) -> Self {
        Self { public_key, preshared_key: None, allowed_ips: vec![], endpoint: None, persistent_keepalive: None }
    }
}

/// A key that wg-quick would act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The number of its line in the file, from 1.
    pub line: usize,
    /// The key, as wg-quick(8) spells it.
    pub key: &'static str,
    /// What the interface lacks without it, if it is a hook that runs wg(8).
    pub sets: Vec<HookSetting>,
}

/// One thing that is wrong with a file. Never repeats a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The number of its line in the file, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}
