//! The addresses under which private hosts and peers are seen on the internet.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nftables::types::NfHook;

use super::super::model::Chain;
use super::super::statement::{
    RuleStatement, address, address_by_source, eq, field, interface, masquerade, oifname, prefix, set, snat,
};
use super::{nat, published, tunnel};
use crate::config::Config;
use crate::inputs::Tunnel;
use crate::site::{PublicLink, Site};

/// nft's `srcnat`.
const SRCNAT: i32 = 100;

pub(super) fn postrouting(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Chain {
    let random_ports = config.nat.random_ports;
    let mut rules = Vec::new();
    if let Some(public) = &site.public {
        rules.extend(published::outgoing(config, site, public));
        let out = |from: RuleStatement, pool: &[Ipv4Addr]| {
            vec![eq(oifname(), interface(&public.interface)), from, translation(pool, config, public)]
        };
        let source = |network: Ipv4Net| eq(field("ip", "saddr"), prefix(network.into()));
        let shared = slots(&config.nat.egress_addresses, config, public);
        for link in &site.private {
            let policy = config.networks.iter().find(|policy| policy.range == link.network);
            if let Some(addresses) = policy.and_then(|policy| policy.egress_addresses.as_ref()) {
                rules.push(out(source(link.network), &slots(addresses, config, public)));
            }
        }
        match site.private.as_slice() {
            [] => {}
            // One comparison instead of a look-up.
            [link] => rules.push(out(source(link.network), &shared)),
            _ => rules.push(out(eq(field("ip", "saddr"), set("private_networks")), &shared)),
        }
        if tunnel.is_some_and(|tunnel| tunnel.full_tunnel) {
            rules.push(out(eq(field("ip", "saddr"), set("tunnel_sources4")), &shared));
        }
    }
    rules.extend(published::hairpin(config, site));
    rules.extend(tunnel.and_then(|tunnel| tunnel::masqueraded(tunnel, random_ports)));
    Chain { name: "postrouting".into(), base: Some(nat(NfHook::Postrouting, SRCNAT)), rules }
}

/// The server's own address is said, not left to `masquerade`, which looks it up for every flow (a fifth of a new flow's whole
/// price, measured) and forgets all flows when the link is down for a moment. Only while there is no address the kernel chooses
/// by itself, so that nothing waits for us when one comes.
fn translation(pool: &[Ipv4Addr], config: &Config, public: &PublicLink) -> RuleStatement {
    let random_ports = config.nat.random_ports;
    match (pool, own(config, public)) {
        ([], None) => masquerade(random_ports),
        ([], Some(single)) => snat(address(single), random_ports),
        ([single], _) => snat(address(*single), random_ports),
        (several, _) => snat(address_by_source(several), random_ports),
    }
}

/// The server's own address for new flows: the first one, unless it is drained and another one is no host's own.
fn own(config: &Config, public: &PublicLink) -> Option<Ipv4Addr> {
    let is_drained = |address: &Ipv4Addr| config.nat.drain.contains(address);
    let first = public.addresses.first()?;
    let other =
        || public.addresses.iter().find(|address| !is_drained(address) && !config.nat.is_static_address(**address));
    if is_drained(first) { other().or(Some(first)).copied() } else { Some(*first) }
}

/// The addresses that sources are spread over, a slot each. Only those that this server has: an answer to another never comes
/// here. A slot whose address is drained, or missing, is filled by the others in turn, so that the sources of the other
/// slots keep the address they have. Empty: none of them is here.
pub(super) fn slots(addresses: &[Ipv4Addr], config: &Config, public: &PublicLink) -> Vec<Ipv4Addr> {
    let good = |address: &Ipv4Addr| public.addresses.contains(address) && !config.nat.drain.contains(address);
    let stand_ins: Vec<Ipv4Addr> = addresses.iter().copied().filter(good).collect();
    let mut in_turn = stand_ins.iter().copied().cycle();
    let mut slots: Vec<Ipv4Addr> =
        addresses.iter().filter_map(|address| if good(address) { Some(*address) } else { in_turn.next() }).collect();
    if slots.iter().all(|slot| Some(slot) == slots.first()) {
        slots.truncate(1);
    }
    slots
}
