//! Which addresses are private hosts', which are public, and which can be neither.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::site::{CheckedLink, unroutable};
use crate::net::is_private;

/// Class E and the broadcast address (RFC 1112 section 4, RFC 919 section 7), beside what [`unroutable`] knows.
const RESERVED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4);

const OUTSIDE: &str = "outside of 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16, where Hetzner's private networks are";

/// The private networks, as far as the file tells.
pub(super) struct PrivateNetworks {
    known: Vec<Known>,
    others: Others,
}

struct Known {
    /// The block: `site.private[0]`.
    key: String,
    network: Ipv4Net,
    /// The bastion's own.
    address: Option<Ipv4Addr>,
}

/// Whether there are other networks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// Discovery finds them; Hetzner has only those of RFC 1918.
    Discovered,
    /// A mistake hides some.
    Hidden,
    None,
}

impl PrivateNetworks {
    /// Those of `count` blocks, of which `links` could be read; `None`: what is written is no blocks at all.
    pub(super) fn of(links: &[CheckedLink], count: Option<usize>) -> Self {
        let known = links
            .iter()
            .filter_map(|link| Some(Known { key: link.key.clone(), network: link.network?, address: link.address }));
        let known: Vec<_> = known.collect();
        let others = match count {
            Some(0) => Others::Discovered,
            Some(count) if known.len() == count => Others::None,
            Some(_) | None => Others::Hidden,
        };
        Self { known, others }
    }

    /// A private host's address.
    pub(super) fn host(&self, text: &str) -> Result<Ipv4Addr, String> {
        let address = address(text)?;
        if let Some(block) = nobodys(address) {
            return Err(format!("{address} lies inside of {block}, where no private host has its address"));
        }
        if let Some(known) = self.known.iter().find(|known| known.address == Some(address)) {
            let key = &known.key;
            return Err(format!("{address} is this server's own address ({key}.address); a private host is meant"));
        }
        match self.others {
            Others::Discovered if !is_private(address.into()) => Err(format!("{address} lies {OUTSIDE}")),
            Others::None if !self.known.iter().any(|known| known.network.contains(&address)) => {
                Err(format!("{address} lies outside of every network of [[site.private]]"))
            }
            Others::Discovered | Others::Hidden | Others::None => Ok(address),
        }
    }

    /// A private network, by its whole range.
    pub(super) fn network(&self, text: &str) -> Result<Ipv4Net, String> {
        let range: Ipv4Net = text.parse().map_err(|_| format!("`{text}` is no IPv4 range (like 10.0.0.0/16)"))?;
        if range.trunc() != range {
            return Err(format!("`{text}` has host bits set; the range is {}", range.trunc()));
        }
        if let Some(Known { key, network, .. }) =
            self.known.iter().find(|known| known.network != range && known.network.contains(&range))
        {
            return Err(format!("{range} is only a part of {network}, {key}.network: write the whole range"));
        }
        match self.others {
            Others::Discovered if !is_private(range) => Err(format!("{range} lies {OUTSIDE}")),
            Others::None if !self.known.iter().any(|known| known.network == range) => {
                Err(format!("{range} is no network of [[site.private]]"))
            }
            Others::Discovered | Others::Hidden | Others::None => Ok(range),
        }
    }

    /// An address of the public link.
    pub(super) fn public(&self, text: &str) -> Result<Ipv4Addr, String> {
        let address = address(text)?;
        if let Some(block) = nobodys(address) {
            return Err(format!("{address} lies inside of {block}, where no public link has its address"));
        }
        match self.known.iter().find(|known| known.network.contains(&address)) {
            Some(Known { key, network, .. }) => {
                Err(format!("{address} lies inside of {network}, {key}.network; a public address is meant"))
            }
            None => Ok(address),
        }
    }
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("`{text}` is no IPv4 address (like 10.0.0.4 or 203.0.113.7)"))
}

/// The block of addresses that no single host has.
fn nobodys(address: Ipv4Addr) -> Option<Ipv4Net> {
    unroutable(address.into()).or_else(|| RESERVED.contains(&address).then_some(RESERVED))
}
