//! The interfaces of a namespace as the kernel reports them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::error::Error;
use super::netns::Namespace;

/// A network interface, read from `ip -json address show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The name in this namespace.
    pub name: String,
    /// The hardware address in lower case.
    pub mac: String,
    /// The MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up; the carrier does not matter.
    pub up: bool,
    /// The addresses of both families, in the kernel's order.
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
    /// The interfaces by name.
    pub fn links(&self) -> Result<BTreeMap<String, Link>, Error> {
        let text = self.run_with_input("ip", &["-json", "address", "show"], "")?;
        let raw: Vec<RawLink> = self.parse_json("ip", &text)?;
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
