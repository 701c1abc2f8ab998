//! Which addresses can be private hosts, and which can be public.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::reserved::reserved_block_of_host;
use super::values;
use crate::net::is_private;

const OUTSIDE: &str = "outside 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16, the ranges of Hetzner's private networks";

/// The private networks, as far as the file names them.
pub(super) struct PrivateNetworks {
    known: Vec<KnownNetwork>,
    others: OtherNetworks,
    /// Ranges behind networks, in `[[network]]`.
    behind: Vec<Ipv4Net>,
}

/// The network of a `[[site.private]]` block.
pub(super) struct KnownNetwork {
    /// The block: `site.private[0]`.
    pub(super) key: String,
    pub(super) network: Ipv4Net,
    /// The bastion's own address in it.
    pub(super) address: Option<Ipv4Addr>,
    /// The ranges behind it.
    pub(super) also: Vec<Ipv4Net>,
}

/// Whether there are networks besides the known ones.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OtherNetworks {
    /// Discovery finds them. Hetzner's networks are all inside the ranges of RFC 1918.
    Discovered,
    /// Some blocks have errors, so their networks are unknown.
    Unknown,
    None,
}

impl PrivateNetworks {
    /// `known` are the networks without errors among `count` blocks. `count` is `None` if the key is not a list of
    /// blocks.
    pub(super) fn new(known: Vec<KnownNetwork>, count: Option<usize>) -> Self {
        let others = match count {
            Some(0) => OtherNetworks::Discovered,
            Some(count) if known.len() == count => OtherNetworks::None,
            Some(_) | None => OtherNetworks::Unknown,
        };
        Self { known, others, behind: Vec::new() }
    }

    /// The same with ranges behind networks that `[[network]]` names.
    pub(super) fn with_ranges_behind(self, behind: Vec<Ipv4Net>) -> Self {
        Self { behind, ..self }
    }

    fn is_behind(&self, address: Ipv4Addr) -> bool {
        self.behind.iter().chain(self.known.iter().flat_map(|known| &known.also)).any(|range| range.contains(&address))
    }

    /// The address of a private host.
    pub(super) fn parse_host(&self, text: &str) -> Result<Ipv4Addr, String> {
        let address = parse_address(text)?;
        if let Some(block) = reserved_block_of_host(address) {
            return Err(format!("{address} is inside {block}, which no private host can use"));
        }
        if let Some(known) = self.known.iter().find(|known| known.address == Some(address)) {
            let key = &known.key;
            return Err(format!(
                "{address} is this server's own address ({key}.address); write a private host's address"
            ));
        }
        match self.others {
            _ if self.is_behind(address) => Ok(address),
            OtherNetworks::Discovered if !is_private(address.into()) => Err(format!("{address} is {OUTSIDE}")),
            OtherNetworks::None if !self.known.iter().any(|known| known.network.contains(&address)) => {
                Err(format!("{address} is outside every network of [[site.private]]"))
            }
            OtherNetworks::Discovered | OtherNetworks::Unknown | OtherNetworks::None => Ok(address),
        }
    }

    /// The whole range of a private network.
    pub(super) fn parse_network(&self, text: &str) -> Result<Ipv4Net, String> {
        let range = values::parse_range_v4(text)?;
        if let Some(KnownNetwork { key, network, .. }) =
            self.known.iter().find(|known| known.network != range && known.network.contains(&range))
        {
            return Err(format!("{range} is only a part of {network} ({key}.network); write the whole range"));
        }
        match self.others {
            OtherNetworks::Discovered if !is_private(range) => Err(format!("{range} is {OUTSIDE}")),
            OtherNetworks::None if !self.known.iter().any(|known| known.network == range) => {
                Err(format!("{range} is not a network of [[site.private]]"))
            }
            OtherNetworks::Discovered | OtherNetworks::Unknown | OtherNetworks::None => Ok(range),
        }
    }

    /// An address that the public interface can have.
    pub(super) fn parse_public(&self, text: &str) -> Result<Ipv4Addr, String> {
        let address = parse_address(text)?;
        if let Some(block) = reserved_block_of_host(address) {
            return Err(format!("{address} is inside {block}, which no public interface can use"));
        }
        if self.is_behind(address) {
            return Err(format!("{address} is behind a private network (`also`); write a public address"));
        }
        match self.known.iter().find(|known| known.network.contains(&address)) {
            Some(KnownNetwork { key, network, .. }) => {
                Err(format!("{address} is inside {network} ({key}.network); write a public address"))
            }
            None => Ok(address),
        }
    }
}

fn parse_address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| match text.rsplit_once(':').filter(|(address, _)| address.parse::<Ipv4Addr>().is_ok()) {
        Some((address, port)) => {
            format!(
                "`{text}` is an address with a port; write \"{address}\" here and the port {port} in a key of its own"
            )
        }
        None => format!("`{text}` is not an IPv4 address (like 10.0.0.4 or 203.0.113.7)"),
    })
}
