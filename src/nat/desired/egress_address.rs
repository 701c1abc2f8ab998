//! Under which public addresses the hosts of a private network are seen: its pool, or this server's own address.

use std::net::Ipv4Addr;

use crate::config::Config;
use crate::site::{PrivateLink, PublicLink};

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
