//! Under which public addresses the hosts of a private network are seen: its pool, or this server's own address.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::{Config, StaticNat};
use crate::site::{PrivateLink, PublicLink, Site};

/// The addresses that the sources of a private network are spread over, a slot each; empty: this server's own address.
pub(super) fn egress_pool(link: &PrivateLink, config: &Config, public: &PublicLink) -> Vec<Ipv4Addr> {
    slots(own_pool(link, config).unwrap_or(&config.nat.egress_addresses), config, public)
}

/// The egress addresses that a network has of its own; `None`: it shares those of all networks.
pub(super) fn own_pool<'a>(link: &PrivateLink, config: &'a Config) -> Option<&'a [Ipv4Addr]> {
    config.policy_of(link.network, &link.interface)?.egress_addresses.as_deref()
}

/// The server's own address for new flows: the first one, unless that is drained and there is another one that no
/// static entry has.
pub(super) fn own_address(config: &Config, public: &PublicLink) -> Option<Ipv4Addr> {
    let is_drained = |address: &Ipv4Addr| config.nat.drain.contains(address);
    let first = public.addresses.first()?;
    let other =
        || public.addresses.iter().find(|address| !is_drained(address) && !config.nat.is_static_address(**address));
    if is_drained(first) { other().or(Some(first)).copied() } else { Some(*first) }
}

/// The addresses that sources are spread over, a slot each. Only addresses of this server: answers to others do not
/// come here. A slot whose address is drained or missing is filled by the others in turn, so that the sources of the
/// other slots keep the address they have. Empty if this server has none of them.
pub(super) fn slots(addresses: &[Ipv4Addr], config: &Config, public: &PublicLink) -> Vec<Ipv4Addr> {
    let is_usable = |address: &Ipv4Addr| public.addresses.contains(address) && !config.nat.drain.contains(address);
    let substitutes: Vec<Ipv4Addr> = addresses.iter().copied().filter(is_usable).collect();
    let mut in_turn = substitutes.iter().copied().cycle();
    let mut slots: Vec<Ipv4Addr> = addresses
        .iter()
        .filter_map(|address| if is_usable(address) { Some(*address) } else { in_turn.next() })
        .collect();
    if slots.iter().all(|slot| Some(slot) == slots.first()) {
        slots.truncate(1);
    }
    slots
}

/// Hosts that one rule translates to addresses of their own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostsWithAddresses<'a> {
    /// Their ranges, all of one length of prefix, each with the network that it is in.
    pub ranges: Vec<(Ipv4Net, Ipv4Net)>,
    /// Their addresses; empty: this server's own address.
    pub addresses: &'a [Ipv4Addr],
}

/// The hosts of `[[network.egress]]` that are in a network of this server. Narrow ranges come first, so that the first
/// match is the narrowest: one rule for each list of addresses and length of prefix.
pub(super) fn hosts_with_addresses<'a>(config: &'a Config, site: &Site) -> Vec<HostsWithAddresses<'a>> {
    let mut all: Vec<(Ipv4Net, Ipv4Net, &[Ipv4Addr])> = Vec::new();
    for link in &site.private {
        let policy = config.policy_of(link.network, &link.interface);
        for entry in policy.iter().flat_map(|policy| &policy.egress) {
            let is_served = |range: &&Ipv4Net| link.ranges().any(|own| own.contains(*range));
            let served = entry.from.iter().filter(is_served);
            all.extend(served.map(|range| (*range, link.network, entry.addresses.as_slice())));
        }
    }
    all.sort_by_key(|(range, _, addresses)| (std::cmp::Reverse(range.prefix_len()), *addresses, *range));
    let mut grouped: Vec<HostsWithAddresses<'a>> = Vec::new();
    for (range, network, addresses) in all {
        match grouped.last_mut() {
            Some(same) if same.addresses == addresses && same.ranges[0].0.prefix_len() == range.prefix_len() => {
                same.ranges.push((range, network));
            }
            _ => grouped.push(HostsWithAddresses { ranges: vec![(range, network)], addresses }),
        }
    }
    grouped
}

/// The static entries whose host is in a network of this server. One for this server's own first address is left out:
/// it would lock the operator out.
pub(super) fn usable_statics<'a>(config: &'a Config, site: &'a Site) -> impl Iterator<Item = &'a StaticNat> {
    let own = site.own_address();
    let is_served = |entry: &&StaticNat| site.private.iter().any(|link| link.serves(entry.private));
    config.nat.statics.iter().filter(is_served).filter(move |entry| Some(entry.public) != own)
}
