//! The links of a namespace as the kernel shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::{Error, Namespace};

/// A link, read back from `ip -json address show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name in this namespace.
    pub name: String,
    /// Its hardware address, in small letters.
    pub mac: String,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is switched on (not whether a carrier is there).
    pub up: bool,
    /// Its addresses of both families, in the kernel's order.
    pub addresses: Vec<IpNet>,
}

#[derive(Deserialize)]
struct RawLink {
    ifname: String,
    #[serde(default)]
    address: String,
    mtu: u32,
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<RawAddress>,
}

#[derive(Deserialize)]
struct RawAddress {
    local: IpAddr,
    prefixlen: u8,
}

impl Namespace {
    /// The links by name.
    pub fn links(&self) -> Result<BTreeMap<String, Link>, Error> {
        let text = self.fed("ip", &["-json", "address", "show"], "")?;
        let raw: Vec<RawLink> = self.parsed("ip", &text)?;
        Ok(raw.into_iter().map(|link| (link.ifname.clone(), link.into())).collect())
    }
}

impl From<RawLink> for Link {
    fn from(raw: RawLink) -> Self {
        let net = |a: RawAddress| IpNet::new(a.local, a.prefixlen).expect("the kernel's prefix lengths are in range");
        Self {
            name: raw.ifname,
            mac: raw.address,
            mtu: raw.mtu,
            up: raw.flags.iter().any(|flag| flag == "UP"),
            addresses: raw.addr_info.into_iter().map(net).collect(),
        }
    }
}
