//! `[[nat.forward]]`

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::super::findings::Findings;
use super::super::raw::{Entry, RawForward, TextsOrAuto};
use super::super::{Firewall, Forward, Ports, Service, Transport, Transports, values};
use super::budget::Budget;
use super::firewall::ssh_port_in;
use super::overlap;
use super::private::PrivateNetworks;

/// As many as there are egress addresses.
const MAX_PUBLIC: usize = 64;

/// A forward of which some keys may be wrong; the others are still compared with those of other forwards.
pub(super) struct CheckedForward {
    pub(super) key: String,
    name: Option<String>,
    /// Each with its index; empty: every address of the public interface; `None`: not known.
    pub(super) public: Option<Vec<(usize, Ipv4Addr)>>,
    pub(super) transports: Option<Transports>,
    pub(super) ports: Option<Ports>,
    to: Option<Ipv4Addr>,
    to_port: Option<u16>,
    from: Vec<Ipv4Net>,
}

impl CheckedForward {
    pub(super) fn whole(self) -> Option<Forward> {
        let Self { key, name, public, transports, ports, to, to_port, from } = self;
        let public = public?.into_iter().map(|(_, address)| address).collect();
        Some(Forward { key, name, public, transports: transports?, ports: ports?, to: to?, to_port, from })
    }
}

pub(super) fn blocks(
    blocks: Vec<Entry<RawForward>>,
    private: &PrivateNetworks,
    found: &mut Findings,
) -> Vec<CheckedForward> {
    let blocks = found.elements("nat.forward", blocks);
    let forwards: Vec<_> = blocks.into_iter().map(|(key, raw)| block(key, raw, private, found)).collect();
    found.names_differ(forwards.iter().map(|forward| (forward.key.as_str(), &forward.name)));
    overlap::report(&forwards, found);
    keep_within_bounds(&forwards, found);
    forwards
}

/// Reports more entries than the kernel's maps are to hold.
fn keep_within_bounds(forwards: &[CheckedForward], found: &mut Findings) {
    let mut budget = Budget::of("all forwards together, each public address counted with each protocol and source");
    for CheckedForward { key, public, transports, from, .. } in forwards {
        let sides = [
            public.as_ref().map_or(0, Vec::len),
            transports.map_or(0, |transports| transports.each().len()),
            from.len(),
        ];
        budget.take(|| key.clone(), sides);
    }
    budget.keep(found);
}

fn block(key: String, raw: RawForward, private: &PrivateNetworks, found: &mut Findings) -> CheckedForward {
    found.unknown(&key, &raw.unknown);
    found.needed(&key, "port", &raw.port, "the public port, or a range of them in quotes");
    found.needed(&key, "to", &raw.to, "the private host");
    let name = found.read(&key, "name", raw.name, values::label);
    let public = public(&key, raw.public, private, found);
    let transports = match raw.protocol {
        Entry::Absent => Some(Transports::Tcp),
        written => found.read(&key, "protocol", written, values::transports),
    };
    let ports = found.read(&key, "port", raw.port, values::ports);
    let to = found.read(&key, "to", raw.to, |text: &str| private.host(text));
    let to_port = found.read(&key, "to_port", raw.to_port, |&number: &i64| values::port(number));
    if to_port.is_some() && ports.is_some_and(|ports| !ports.is_single()) {
        let reason = "only goes with a single port: those of a range are the same on the private host";
        found.report(format!("{key}.to_port"), reason);
    }
    let nobody = "an empty list would let nobody in; leave the key away for everybody";
    let from = found.list(&key, "from", raw.from, Some(nobody), values::net_v4).unwrap_or_default();
    let from = from.into_iter().map(|(_, range)| range).collect();
    CheckedForward { key, name, public, transports, ports, to, to_port, from }
}

fn public(
    key: &str,
    raw: Entry<TextsOrAuto>,
    private: &PrivateNetworks,
    found: &mut Findings,
) -> Option<Vec<(usize, Ipv4Addr)>> {
    let texts = match raw {
        Entry::Absent | Entry::Good(TextsOrAuto::Auto) => return Some(Vec::new()),
        Entry::Good(TextsOrAuto::Texts(texts)) => texts,
        Entry::Bad(reason) => {
            found.report(format!("{key}.public"), reason);
            return None;
        }
    };
    if texts.len() > MAX_PUBLIC {
        found.report(format!("{key}.public"), format!("{} addresses; at most {MAX_PUBLIC} are supported", texts.len()));
        return None;
    }
    let empty = "an empty list names no address; write \"auto\" for every address of the public interface";
    let addresses = found.list(key, "public", Entry::Good(texts), Some(empty), |text: &str| private.public(text));
    // Without an address that is right: not "every address".
    addresses.filter(|addresses| !addresses.is_empty())
}

/// Warns of forwards that take a port from a service of the bastion's own.
pub(super) fn spare_services(forwards: &[CheckedForward], firewall: &Firewall, found: &mut Findings) {
    if firewall.services.is_empty() {
        return;
    }
    for CheckedForward { key, public, transports, ports, .. } in forwards {
        let Some(((public, transports), ports)) = public.as_ref().zip(*transports).zip(*ports) else { continue };
        let takes = |service: &&Service| {
            let same_protocol = transports.each().iter().any(|transport| service.transports.each().contains(transport));
            same_protocol && service.ports.iter().any(|port| ports.overlaps(*port))
        };
        let Some(service) = firewall.services.iter().find(takes) else { continue };
        let at = if public.is_empty() { "every public address" } else { "the named addresses" };
        found.warn(format!("{key}.port"), format!("takes ports of {} at {at}: nobody reaches it there", service.key));
    }
}

/// Reports forwards that would lead away what the bastion itself needs. Which addresses are its own only discovery knows, so
/// named ones are warned of.
pub(super) fn spare_the_bastion(forwards: &[CheckedForward], firewall: &Firewall, found: &mut Findings) {
    for CheckedForward { key, public, transports, ports, .. } in forwards {
        let Some(((public, transports), ports)) = public.as_ref().zip(*transports).zip(*ports) else { continue };
        let forwards = |transport| transports.each().contains(&transport);
        // Where only the tunnel leads to SSH, that is by an address which is not public.
        let ssh = ssh_port_in(ports, firewall).filter(|_| forwards(Transport::Tcp) && !firewall.ssh_only_by_tunnel);
        let tunnel = firewall.wireguard_port.filter(|&port| ports.overlaps(Ports::single(port)));
        let tunnel = tunnel.filter(|_| forwards(Transport::Udp));
        if ssh.is_none() && tunnel.is_none() {
            continue;
        }
        let key = format!("{key}.port");
        let named = public.first().map(|(_, first)| match public.len() {
            1 => first.to_string(),
            _ => format!("{first} or another address of the list"),
        });
        match (ssh, &named) {
            (None, _) => {}
            (Some(port), Some(named)) => {
                let reason =
                    format!("{port}/tcp is this server's SSH port: if you log in by {named}, you are locked out");
                found.warn(&key, reason);
            }
            (Some(port), None) => {
                let reason = format!(
                    "{port}/tcp is this server's SSH port, so you would be locked out: choose another port, or name public \
                     addresses that you do not log in by"
                );
                found.report(&key, reason);
            }
        }
        match (tunnel, &named) {
            (None, _) => {}
            (Some(port), Some(named)) => {
                found.warn(&key, format!("{port}/udp is this server's WireGuard port: by {named} no peer gets in"));
            }
            (Some(port), None) => {
                let reason = format!(
                    "{port}/udp is this server's WireGuard port, so no peer would get in: choose another port, name public \
                     addresses that they do not use, or close it with firewall.wireguard_port = false"
                );
                found.report(&key, reason);
            }
        }
    }
}
