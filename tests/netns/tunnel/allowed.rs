//! Which peer may use an address as a source, and gets the packets to it: the one with the longest matching prefix.

use std::net::{Ipv4Addr, SocketAddr};

use libtest_mimic::Trial;
use sandbox::star::{Family, Star};
use sandbox::traffic::{self, ProbeFailure, Reflector};
use sandbox::tunnel::Program;

use super::site::{Site, ours};
use crate::gateway::{NEVER, Result, SOON, ensure_eq, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("an_address_inside_a_peers_network_is_used_only_by_its_owner", longest_prefix)]
}

fn longest_prefix() -> Result {
    let star = Star::with_hosts(3)?;
    let us = Site::start(&star, 0, &ours())?;
    let office = Site::start(&star, 1, &Program::wireguard_go())?;
    let laptop = Site::start(&star, 2, &Program::boringtun())?;
    // Both believe that they own the laptop's address, and send whatever they like to us.
    let address = Ipv4Addr::new(10, 77, 0, 100);
    for peer in [&office, &laptop] {
        peer.namespace().ip(&format!("addr add {address}/32 dev {}", peer.interface.name()))?;
        peer.interface.set(&format!(
            "peer {} endpoint {} allowed-ips 0.0.0.0/0,::/0",
            us.public_key(),
            us.outside(Family::V4)
        ))?;
    }
    us.interface.set(&format!("peer {} allowed-ips 10.77.0.0/24,fd77::/64", office.public_key()))?;
    us.interface.set(&format!("peer {} allowed-ips {address}/32", laptop.public_key()))?;

    let reflector = Reflector::udp(us.namespace(), (us.v4(), 0))?;
    let probe = |peer: &Site<'_>, source: Ipv4Addr, timeout| {
        let seen = traffic::udp_probe_from(peer.namespace(), (source, 0), reflector.address(), timeout);
        seen.map(|seen| seen.ip())
    };
    let servers = [&office, &laptop].map(|peer| Reflector::udp(peer.namespace(), (address, 4000)));
    let [at_office, at_laptop] = servers;
    let (at_office, at_laptop) = (at_office?, at_laptop?);
    let reached = || -> Result<(usize, usize)> {
        let target = SocketAddr::from((address, 4000));
        traffic::udp_probe(us.namespace(), target, SOON)?;
        Ok((at_office.seen().len(), at_laptop.seen().len()))
    };

    ensure_eq(probe(&office, office.v4(), SOON), Ok(office.v4().into()))?;
    ensure_eq(probe(&office, address, NEVER), Err(ProbeFailure::Timeout))?;
    ensure_eq(probe(&laptop, address, SOON), Ok(address.into()))?;
    ensure_eq(probe(&laptop, laptop.v4(), NEVER), Err(ProbeFailure::Timeout))?;
    ensure_eq(reached()?, (0, 1))?;
    // Not only was nothing answered: nothing came.
    let seen: Vec<_> = reflector.seen().iter().map(SocketAddr::ip).collect();
    ensure_eq(seen, vec![office.v4().into(), address.into()])?;

    // What the office gets, the laptop loses.
    us.changes(&office, &format!("allowed-ips 10.77.0.0/24,fd77::/64,{address}/32"))?;
    ensure_eq(us.peer(&laptop)?.allowed_ips, vec![])?;
    ensure_eq(probe(&office, address, SOON), Ok(address.into()))?;
    ensure_eq(probe(&laptop, address, NEVER), Err(ProbeFailure::Timeout))?;
    ensure_eq(reached()?, (1, 1))?;

    // And without it, the network's owner has it.
    us.changes(&office, "allowed-ips 10.77.0.0/24")?;
    ensure_eq(probe(&office, address, SOON), Ok(address.into()))?;
    ensure_eq(reached()?, (2, 1))
}
