//! `also`: ranges behind a private network.

use ipnet::{IpNet, Ipv4Net};

use super::diagnostics::Diagnostics;
use super::reserved::reserved_block;
use super::values;
use crate::config::model::Site;
use crate::config::policy::NetworkPolicy;
use crate::config::raw::{Entry, RawNetworks};
use crate::config::wireguard::Wireguard;
use crate::hetzner::{MAX_ROUTES, PUBLIC_GATEWAY};
use crate::net::overlap;

/// The `also` of a block.
pub(super) fn check_also(
    block: &str,
    mut raw: Entry<Vec<Entry<String>>>,
    diagnostics: &mut Diagnostics,
) -> Vec<Ipv4Net> {
    if let Entry::Good(texts) = &mut raw {
        if texts.len() > MAX_ROUTES {
            let reason = format!("{} ranges; at most {MAX_ROUTES} are supported for a network", texts.len());
            diagnostics.error(format!("{block}.also"), reason);
            texts.truncate(MAX_ROUTES);
        }
    }
    let ranges = diagnostics.parse_list(block, "also", raw, None, parse);
    ranges.unwrap_or_default().into_iter().map(|(_, range)| range).collect()
}

/// A range that hosts behind a network can have.
fn parse(text: &str) -> Result<Ipv4Net, String> {
    let range = values::parse_net_v4(text)?;
    if range.prefix_len() == 0 {
        return Err(format!("{range} is the whole internet, which is not behind a private network"));
    }
    if let Some(block) = reserved_block(range) {
        return Err(format!("{range} overlaps {block}, which no host behind a network can use"));
    }
    if range.contains(&PUBLIC_GATEWAY) {
        return Err(format!("{range} contains {PUBLIC_GATEWAY}, the gateway of Hetzner's public links"));
    }
    Ok(range)
}

/// The ranges of all `[[network]]` blocks that are right, for keys that are checked before these blocks.
pub(super) fn ranges_of_networks(blocks: &Entry<RawNetworks>) -> Vec<Ipv4Net> {
    let good = |entry: &Entry<Vec<Entry<String>>>| match entry {
        Entry::Good(texts) => {
            texts.iter().filter_map(|text| if let Entry::Good(text) = text { parse(text).ok() } else { None }).collect()
        }
        Entry::Absent | Entry::Bad(_) => Vec::new(),
    };
    let Entry::Good(RawNetworks(blocks)) = blocks else { return Vec::new() };
    blocks
        .iter()
        .flat_map(|block| if let Entry::Good(block) = block { good(&block.also) } else { Vec::new() })
        .collect()
}

/// A range that something else in the file has already.
struct Taken {
    range: Ipv4Net,
    key: String,
}

/// Reports ranges that overlap another network, a range behind another one, or the tunnel.
pub(super) fn check_ranges_behind(
    site: &Site,
    networks: &[NetworkPolicy],
    tunnel: Option<&Wireguard>,
    diagnostics: &mut Diagnostics,
) {
    let taken = |range: Ipv4Net, key: String| Taken { range, key };
    let mut all: Vec<Taken> = Vec::new();
    for (index, link) in site.private.iter().enumerate() {
        all.push(taken(link.network, format!("site.private[{index}].network")));
    }
    let is_known = |range: Ipv4Net, all: &[Taken]| all.iter().any(|other| other.range == range);
    for policy in networks {
        if let Some(range) = policy.network.range().filter(|range| !is_known(*range, &all)) {
            all.push(taken(range, format!("{}.range", policy.key)));
        }
    }
    let in_tunnel = tunnel.iter().flat_map(|tunnel| {
        let networks = tunnel.networks().map(|range| (range, "wireguard.addresses"));
        networks.chain(tunnel.remote_networks().map(|(_, range)| (range, "allowed_ips")))
    });
    for (range, key) in in_tunnel {
        if let IpNet::V4(range) = range {
            all.push(taken(range, key.to_owned()));
        }
    }
    let of_links = site.private.iter().enumerate();
    let of_links = of_links.flat_map(|(index, link)| {
        link.also
            .iter()
            .enumerate()
            .map(move |(at, range)| (format!("site.private[{index}].also[{at}]"), *range, Some(link.network)))
    });
    let of_networks = networks.iter().flat_map(|policy| {
        policy
            .also
            .iter()
            .enumerate()
            .map(|(at, range)| (format!("{}.also[{at}]", policy.key), *range, policy.network.range()))
    });
    let behind: Vec<_> = of_links.chain(of_networks).collect();
    for (index, (key, range, network)) in behind.iter().enumerate() {
        let other = all.iter().find(|other| overlap(other.range, *range));
        let earlier =
            behind[..index].iter().find(|(_, other, of)| overlap(*other, *range) && !(of == network && other == range));
        if let Some(other) = other {
            let reason = format!("{range} overlaps {} ({}); a range can be in one place only", other.range, other.key);
            diagnostics.error(key, reason);
        } else if let Some((other, of, _)) = earlier {
            diagnostics.error(key, format!("{range} overlaps {of} ({other}); a range can be in one place only"));
        }
    }
}
