//! `[firewall]`

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::super::findings::Findings;
use super::super::raw::{Entry, PortAutoOrClosed, PortsOrAuto, RawFirewall};
use super::super::{Firewall, LogDrops};
use super::{everywhere_v4, everywhere_v6};

/// Tools that open a connection for each host stay below; guessers of passwords do not.
const DEFAULT_SSH_ATTEMPTS: u32 = 30;
const DEFAULT_SSH_BAN: Duration = Duration::from_secs(600);
const DEFAULT_PINGS: u32 = 100;
const DEFAULT_SYNS: u32 = 200;

/// What `firewall.wireguard_port` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenPort {
    /// Whatever the tunnel listens on.
    Auto,
    Closed,
    Port(u16),
}

/// The section, but for the tunnel's port, which the tunnel has a say in.
pub(super) fn section(raw: RawFirewall, found: &mut Findings) -> (Firewall, OpenPort) {
    found.unknown("firewall", &raw.unknown);
    let ssh_ports = match found.value("firewall.ssh_ports", raw.ssh_ports) {
        None | Some(PortsOrAuto::Auto) => None,
        Some(PortsOrAuto::Ports(numbers)) => Some(ssh_ports(numbers, found)),
    };
    let ssh_from = match found.value("firewall.ssh_from", raw.ssh_from) {
        None => vec![everywhere_v4().into(), everywhere_v6().into()],
        Some(texts) => ssh_sources(texts, found),
    };
    let port = match found.value("firewall.wireguard_port", raw.wireguard_port) {
        None | Some(PortAutoOrClosed::Auto) => OpenPort::Auto,
        Some(PortAutoOrClosed::Closed) => OpenPort::Closed,
        Some(PortAutoOrClosed::Port(number)) => {
            found.port("firewall.wireguard_port", number).map_or(OpenPort::Auto, OpenPort::Port)
        }
    };
    let firewall = Firewall {
        ssh_ports,
        ssh_from,
        ssh_only_by_tunnel: false,
        ssh_attempts: Some(DEFAULT_SSH_ATTEMPTS),
        ssh_ban: DEFAULT_SSH_BAN,
        wireguard_port: None,
        services: Vec::new(),
        pings_per_second: Some(DEFAULT_PINGS),
        syns_per_second: Some(DEFAULT_SYNS),
        blocklist: Vec::new(),
        log_drops: LogDrops::Journal,
    };
    (firewall, port)
}

fn ssh_ports(numbers: Vec<Entry<i64>>, found: &mut Findings) -> BTreeSet<u16> {
    if numbers.is_empty() {
        // Closing SSH for good is the tunnel's business, when there is one: here it would only lock the operator out.
        found.report("firewall.ssh_ports", "an empty list would lock you out; name a port or write \"auto\"");
    }
    let numbers = found.elements("firewall.ssh_ports", numbers);
    numbers.into_iter().filter_map(|(key, number)| found.port(&key, number)).collect()
}

fn ssh_sources(texts: Vec<Entry<String>>, found: &mut Findings) -> Vec<IpNet> {
    if texts.is_empty() {
        found.report(
            "firewall.ssh_from",
            "an empty list would lock you out; name who may connect, or leave the key away",
        );
    }
    let (mut sources, mut seen) = (Vec::new(), BTreeSet::new());
    for (key, text) in found.elements("firewall.ssh_from", texts) {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match parsed {
            Ok(source) if source.trunc() != source => {
                found.report(key, format!("`{text}` has host bits set; the range is {}", source.trunc()));
            }
            // One address to the parser, everybody to most who write it: taken literally it would lock them out.
            Ok(source) if source.addr().is_unspecified() && source.prefix_len() > 0 => {
                found.report(key, format!("`{text}` is nobody's address; everybody is 0.0.0.0/0 and ::/0"));
            }
            Ok(source) if seen.insert(source) => sources.push(source),
            Ok(source) => found.report(key, format!("{source} is listed twice")),
            Err(_) => found
                .report(key, format!("`{text}` is neither an address nor a range (like 203.0.113.7 or 2001:db8::/32)")),
        }
    }
    sources
}
