//! `[firewall]`

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ipnet::IpNet;

use super::super::findings::Findings;
use super::super::raw::{Entry, JournalGroupOrOff, PortAutoOrClosed, PortsOrAuto, RawFirewall};
use super::super::{Firewall, LogDrops, Ports, Problem, Wireguard, values};
use super::{everywhere_v4, everywhere_v6, services};

/// Tools that open a connection for each host stay below; guessers of passwords do not.
const DEFAULT_SSH_ATTEMPTS: u32 = 60;
const DEFAULT_SSH_BAN: Duration = Duration::from_secs(600);
const DEFAULT_PINGS: u32 = 100;
const DEFAULT_SYNS: u32 = 200;

/// The port of SSH (IANA), which is open where no other is named.
const SSH: u16 = 22;

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
    let section = "firewall";
    found.unknown(section, &raw.unknown);
    let ssh_ports = match found.field(section, "ssh_ports", raw.ssh_ports) {
        None | Some(PortsOrAuto::Auto) => None,
        Some(PortsOrAuto::Ports(numbers)) => Some(ssh_ports(numbers, found)),
    };
    let nobody = "an empty list would lock you out; name who may connect, or leave the key away";
    let ssh_from = found.list(section, "ssh_from", raw.ssh_from, Some(nobody), values::net).map(ranges);
    let port = match found.field(section, "wireguard_port", raw.wireguard_port) {
        None | Some(PortAutoOrClosed::Auto) => OpenPort::Auto,
        Some(PortAutoOrClosed::Closed) => OpenPort::Closed,
        Some(PortAutoOrClosed::Port(number)) => {
            found.port("firewall.wireguard_port", number).map_or(OpenPort::Auto, OpenPort::Port)
        }
    };
    let ssh_from = ssh_from.unwrap_or_else(|| vec![everywhere_v4().into(), everywhere_v6().into()]);
    let blocklist = found.list(section, "blocklist", raw.blocklist, None, blocked).unwrap_or_default();
    spare_the_operator(&blocklist, &ssh_from, found);
    let services = found.value("firewall.service", raw.service).map(|blocks| blocks.0).unwrap_or_default();
    let mut limit = |name, entry, default| found.read(section, name, entry, values::limit).unwrap_or(Some(default));
    let firewall = Firewall {
        ssh_attempts: limit("ssh_attempts", raw.ssh_attempts, DEFAULT_SSH_ATTEMPTS),
        pings_per_second: limit("pings_per_second", raw.pings_per_second, DEFAULT_PINGS),
        syns_per_second: limit("syns_per_second", raw.syns_per_second, DEFAULT_SYNS),
        ssh_only_by_tunnel: found.field(section, "ssh_only_by_tunnel", raw.ssh_only_by_tunnel).unwrap_or(false),
        ssh_ban: found.read(section, "ssh_ban", raw.ssh_ban, values::span).unwrap_or(DEFAULT_SSH_BAN),
        wireguard_port: None,
        services: services::blocks(services, found),
        blocklist: ranges(blocklist),
        log_drops: found.read(section, "log_drops", raw.log_drops, log_drops).unwrap_or(LogDrops::Journal),
        ssh_ports,
        ssh_from,
    };
    services::spare_ssh(&firewall, found);
    (firewall, port)
}

fn ranges(list: Vec<(usize, IpNet)>) -> Vec<IpNet> {
    list.into_iter().map(|(_, range)| range).collect()
}

fn ssh_ports(numbers: Vec<Entry<i64>>, found: &mut Findings) -> BTreeSet<u16> {
    if numbers.is_empty() {
        // Closing SSH for good is the tunnel's business, when there is one: here it would only lock the operator out.
        found.report("firewall.ssh_ports", "an empty list would lock you out; name a port or write \"auto\"");
    }
    let numbers = found.elements("firewall.ssh_ports", numbers);
    numbers.into_iter().filter_map(|(key, number)| found.port(&key, number)).collect()
}

fn blocked(text: &str) -> Result<IpNet, String> {
    let range = values::net(text)?;
    if range.prefix_len() == 0 { Err(format!("{range} is everybody: nobody would be heard at all")) } else { Ok(range) }
}

/// Reports what would keep away somebody who may log in. Everybody cannot be kept away by a range.
fn spare_the_operator(blocklist: &[(usize, IpNet)], ssh_from: &[IpNet], found: &mut Findings) {
    let blocked: HashMap<IpNet, usize> = blocklist.iter().map(|&(index, range)| (range, index)).collect();
    for source in ssh_from.iter().filter(|_| !blocked.is_empty()) {
        for range in std::iter::successors(Some(*source), IpNet::supernet) {
            if let Some(index) = blocked.get(&range) {
                let reason =
                    format!("{range} holds {source} of firewall.ssh_from: who logs in from there is locked out");
                found.report(format!("firewall.blocklist[{index}]"), reason);
            }
        }
    }
}

fn log_drops(written: &JournalGroupOrOff) -> Result<LogDrops, String> {
    match *written {
        JournalGroupOrOff::Journal => Ok(LogDrops::Journal),
        JournalGroupOrOff::Off => Ok(LogDrops::Off),
        JournalGroupOrOff::Group(0) => {
            Err("0 is the group that other programs' rules use if they name none; choose one from 1 to 65535"
                .to_owned())
        }
        JournalGroupOrOff::Group(number) => match u16::try_from(number) {
            Ok(group) => Ok(LogDrops::Group(group)),
            Err(_) => Err(format!("{number} is no nflog group (1 to 65535)")),
        },
    }
}

/// The lowest of the server's SSH ports among `ports`, as far as the file names them.
pub(super) fn ssh_port_in(ports: Ports, firewall: &Firewall) -> Option<u16> {
    match &firewall.ssh_ports {
        Some(of_ssh) => of_ssh.range(ports.first..=ports.last).next().copied(),
        None => ports.overlaps(Ports::single(SSH)).then_some(SSH),
    }
}

/// Reports a way in that is the only one and leads nowhere. `tunnel` is what is known of it; where that is wrong, it is told
/// already.
pub(super) fn ssh_by_tunnel(firewall: &Firewall, tunnel: Option<&Wireguard>, found: &mut Findings) {
    if !firewall.ssh_only_by_tunnel {
        return;
    }
    let is_told = |problem: &Problem| problem.key.starts_with("wireguard") || problem.key.starts_with("peers.d");
    let reason = match tunnel {
        None => "there is no [wireguard], or it is not enabled",
        Some(_) if found.problems.iter().any(is_told) => return,
        Some(tunnel) if tunnel.addresses.is_empty() => "this server has no wireguard.addresses to be reached by",
        Some(tunnel) if tunnel.peers.is_empty() => "there is no [[wireguard.peer]]",
        // Peers that are called by us answer to a port that is known.
        Some(tunnel)
            if firewall.wireguard_port.is_none() && tunnel.peers.iter().all(|peer| peer.endpoint.is_none()) =>
        {
            "firewall.wireguard_port is closed, and no peer has an endpoint"
        }
        Some(_) => return,
    };
    found.report("firewall.ssh_only_by_tunnel", format!("would lock you out: {reason}"));
}
