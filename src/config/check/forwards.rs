//! `[[nat.forward]]`

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::budget::Budget;
use super::diagnostics::Diagnostics;
use super::lockout::ssh_port_in;
use super::overlap::{Claim, Overlap, find_overlaps};
use super::private::PrivateNetworks;
use super::values;
use crate::config::policy::{Firewall, Forward, Service, label};
use crate::config::protocol::{IpProtocol, Named, Ports, Transport, Transports};
use crate::config::raw::{Entry, RawForward, TextsOrAuto};

/// The most addresses of one forward: as many as there may be egress addresses.
const MAX_PUBLIC: usize = 64;

/// A forward in which some keys may be wrong. The others are still compared with other forwards.
pub(super) struct CheckedForward {
    pub(super) key: String,
    name: Option<String>,
    /// Each with its index in the list; empty: every address of the public interface; `None`: unknown, because it is
    /// wrong.
    pub(super) public: Option<Vec<(usize, Ipv4Addr)>>,
    transports: Option<Transports>,
    ports: Option<Ports>,
    to: Option<Ipv4Addr>,
    to_port: Option<u16>,
    from: Vec<Ipv4Net>,
    snat: bool,
}

impl CheckedForward {
    /// How messages call it.
    fn label(&self) -> String {
        label("nat.forward", self.name.as_deref(), &self.key)
    }

    pub(super) fn finish(self) -> Option<Forward> {
        let Self { key, name, public, transports, ports, to, to_port, from, snat } = self;
        let public = public?.into_iter().map(|(_, address)| address).collect();
        Some(Forward { key, name, public, transports: transports?, ports: ports?, to: to?, to_port, from, snat })
    }
}

pub(super) fn check_forwards(
    blocks: Vec<Entry<RawForward>>,
    private: &PrivateNetworks,
    diagnostics: &mut Diagnostics,
) -> Vec<CheckedForward> {
    let blocks = diagnostics.elements("nat.forward", blocks);
    let forwards: Vec<_> = blocks.into_iter().map(|(key, raw)| check_forward(key, raw, private, diagnostics)).collect();
    diagnostics.check_names_are_unique(forwards.iter().map(|forward| (forward.key.as_str(), &forward.name)));
    check_overlaps(&forwards, diagnostics);
    check_number_of_entries(&forwards, diagnostics);
    forwards
}

fn check_overlaps(forwards: &[CheckedForward], diagnostics: &mut Diagnostics) {
    let claims = || {
        let known = forwards.iter().enumerate().filter_map(|(index, forward)| {
            let (public, ports) = (forward.public.as_deref()?, forward.ports?);
            let protocols = forward.transports?.protocols();
            Some(protocols.map(move |protocol| Claim { forward: index, public, protocol, ports }))
        });
        known.flatten()
    };
    for Overlap { later, earlier, protocol } in find_overlaps(claims) {
        let (later, earlier) = (&forwards[later], &forwards[earlier]);
        let Some((ports, others)) = later.ports.zip(earlier.ports) else { continue };
        match protocol {
            Named::Transport(transport) => {
                let reason = format!(
                    "{ports}/{transport} overlaps {others} of {}; a public port can lead to only one host",
                    earlier.label()
                );
                diagnostics.error(format!("{}.port", later.key), reason);
            }
            Named::Other(protocol) => {
                let reason = format!(
                    "{protocol} is the protocol of {} too; at a public address it can lead to only one host",
                    earlier.label()
                );
                diagnostics.error(format!("{}.protocol", later.key), reason);
            }
        }
    }
}

/// Reports more entries than the kernel's maps may hold.
fn check_number_of_entries(forwards: &[CheckedForward], diagnostics: &mut Diagnostics) {
    let mut budget = Budget::new("all forwards together (each public address counted with each protocol and source)");
    for CheckedForward { key, public, transports, from, .. } in forwards {
        let sides = [
            public.as_ref().map_or(0, Vec::len),
            transports.map_or(0, |transports| transports.numbers().count()),
            from.len(),
        ];
        budget.add(|| key.clone(), sides);
    }
    budget.check(diagnostics);
}

fn check_forward(
    key: String,
    raw: RawForward,
    private: &PrivateNetworks,
    diagnostics: &mut Diagnostics,
) -> CheckedForward {
    diagnostics.reject_unknown_keys(&key, &raw.unknown);
    diagnostics.require(&key, "to", &raw.to, "the address of the private host");
    let name = diagnostics.parse_field(&key, "name", raw.name, values::parse_label);
    let public = check_public(&key, raw.public, private, diagnostics);
    let transports = match raw.protocol {
        Entry::Absent => Some(Transports::Tcp),
        written => diagnostics.parse_field(&key, "protocol", written, values::parse_transports),
    };
    let without_ports = transports.and_then(Transports::without_ports);
    let ports = match without_ports {
        None => {
            if transports.is_some() {
                diagnostics.require(&key, "port", &raw.port, "the public port, or a range of ports in quotes");
            }
            diagnostics.parse_field(&key, "port", raw.port, values::parse_ports)
        }
        Some(protocol) => {
            diagnostics.refuse_ports(&key, "port", &raw.port, protocol);
            diagnostics.refuse_ports(&key, "to_port", &raw.to_port, protocol);
            check_whole_protocol(&key, protocol, diagnostics);
            Some(Ports::ALL)
        }
    };
    let to = diagnostics.parse_field(&key, "to", raw.to, |text: &str| private.parse_host(text));
    let to_port = if without_ports.is_none() { raw.to_port } else { Entry::Absent };
    let to_port = diagnostics.parse_field(&key, "to_port", to_port, |&number: &i64| values::parse_port(number));
    if to_port.is_some() && ports.is_some_and(|ports| !ports.is_single()) {
        let reason = "works only with a single port: a range has the same ports on the private host; remove the key";
        diagnostics.error(format!("{key}.to_port"), reason);
    }
    let empty = "an empty list would admit no one; remove the key to admit everyone";
    let from = diagnostics.parse_list(&key, "from", raw.from, Some(empty), values::parse_net_v4).unwrap_or_default();
    let from: Vec<Ipv4Net> = from.into_iter().map(|(_, range)| range).collect();
    let snat = diagnostics.field(&key, "snat", raw.snat).unwrap_or(false);
    if let Some(protocol) = without_ports.filter(|_| snat && !is_single_host(&from)) {
        let reason = format!(
            "{protocol} has no ports by which the host's answers could be told apart, so only one client at a time \
             gets through; name a single client in `from`, or leave out `snat`"
        );
        diagnostics.warn(format!("{key}.snat"), reason);
    }
    CheckedForward { key, name, public, transports, ports, to, to_port, from, snat }
}

fn is_single_host(from: &[Ipv4Net]) -> bool {
    matches!(from, [single] if single.prefix_len() == 32)
}

/// A forward leads a protocol without ports to its host as a whole.
fn check_whole_protocol(key: &str, protocol: IpProtocol, diagnostics: &mut Diagnostics) {
    let key = format!("{key}.protocol");
    if protocol.is_icmp() {
        let reason = format!(
            "{protocol} cannot be forwarded: this server needs the errors about its own connections, and answers \
             pings; give the host a public address with [[nat.static]] and open icmp there"
        );
        diagnostics.error(key, reason);
    } else if protocol.stays_on_link() {
        let reason = format!("{protocol} is for hosts on one link: what passed a router is not accepted");
        diagnostics.warn(key, reason);
    }
}

fn check_public(
    key: &str,
    raw: Entry<TextsOrAuto>,
    private: &PrivateNetworks,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<(usize, Ipv4Addr)>> {
    let texts = match raw {
        Entry::Absent | Entry::Good(TextsOrAuto::Auto) => return Some(Vec::new()),
        Entry::Good(TextsOrAuto::Texts(texts)) => texts,
        Entry::Bad(reason) => {
            diagnostics.error(format!("{key}.public"), reason);
            return None;
        }
    };
    if texts.len() > MAX_PUBLIC {
        let reason = format!("{} addresses; at most {MAX_PUBLIC} are supported", texts.len());
        diagnostics.error(format!("{key}.public"), reason);
        return None;
    }
    let empty = "an empty list names no address; write \"auto\" for every address of the public interface";
    let texts = Entry::Good(texts);
    let addresses = diagnostics.parse_list(key, "public", texts, Some(empty), |text: &str| private.parse_public(text));
    // If no address is right, the result must not mean "every address".
    addresses.filter(|addresses| !addresses.is_empty())
}

/// Warns about forwards that take the ports, or the protocol, of a service on the bastion.
pub(super) fn warn_about_hidden_services(
    forwards: &[CheckedForward],
    firewall: &Firewall,
    diagnostics: &mut Diagnostics,
) {
    if firewall.services.is_empty() {
        return;
    }
    for CheckedForward { key, public, transports, ports, .. } in forwards {
        let Some(((public, transports), ports)) = public.as_ref().zip(*transports).zip(*ports) else { continue };
        let without_ports = transports.without_ports();
        let takes_from = |service: &&Service| {
            let same_protocol =
                transports.numbers().any(|number| service.transports.numbers().any(|own| own == number));
            let same_port = without_ports.is_some() || service.ports.iter().any(|port| ports.overlaps(*port));
            same_protocol && same_port
        };
        let Some(service) = firewall.services.iter().find(takes_from) else { continue };
        let at = if public.is_empty() { "every public address" } else { "the listed addresses" };
        let (name, taken) = if without_ports.is_some() { ("protocol", "the protocol") } else { ("port", "ports") };
        let reason = format!("takes {taken} of {} at {at}, where the service cannot be reached any more", service.key);
        diagnostics.warn(format!("{key}.{name}"), reason);
    }
}

/// Reports forwards that take a port that the bastion itself needs, for SSH or for WireGuard. Only discovery knows
/// which addresses are the bastion's own, so a forward that lists its addresses gets a warning instead of an error.
pub(super) fn check_ports_of_bastion(forwards: &[CheckedForward], firewall: &Firewall, diagnostics: &mut Diagnostics) {
    for CheckedForward { key, public, transports, ports, .. } in forwards {
        let Some(((public, transports), ports)) = public.as_ref().zip(*transports).zip(*ports) else { continue };
        let forwards = |transport| transports.each().contains(&transport);
        // If only the tunnel leads to SSH, SSH uses the tunnel's address, which no forward takes.
        let ssh = ssh_port_in(ports, firewall).filter(|_| forwards(Transport::Tcp) && !firewall.ssh_only_by_tunnel);
        let tunnel = firewall.wireguard_port.filter(|&port| ports.overlaps(Ports::single(port)));
        let tunnel = tunnel.filter(|_| forwards(Transport::Udp));
        if ssh.is_none() && tunnel.is_none() {
            continue;
        }
        let key = format!("{key}.port");
        let listed = public.first().map(|(_, first)| match public.len() {
            1 => first.to_string(),
            _ => format!("{first} or another listed address"),
        });
        match (ssh, &listed) {
            (None, _) => {}
            (Some(port), Some(listed)) => {
                let reason = format!(
                    "{port}/tcp is this server's SSH port: if you log in at {listed}, this locks you out; choose \
                     another port or address"
                );
                diagnostics.warn(&key, reason);
            }
            (Some(port), None) => {
                let reason = format!(
                    "{port}/tcp is this server's SSH port, so this would lock you out; choose another port, or set \
                     `public` to addresses at which you do not log in"
                );
                diagnostics.error(&key, reason);
            }
        }
        match (tunnel, &listed) {
            (None, _) => {}
            (Some(port), Some(listed)) => {
                let reason = format!(
                    "{port}/udp is this server's WireGuard port: peers cannot connect to {listed}; choose another \
                     port or address"
                );
                diagnostics.warn(&key, reason);
            }
            (Some(port), None) => {
                let reason = format!(
                    "{port}/udp is this server's WireGuard port, so no peer could connect; choose another port, set \
                     `public` to addresses that no peer uses, or close the port with firewall.wireguard_port = false"
                );
                diagnostics.error(&key, reason);
            }
        }
    }
}
