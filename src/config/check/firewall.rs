//! `[firewall]`

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;

use super::diagnostics::Diagnostics;
use super::values::{EVERYWHERE_V4, EVERYWHERE_V6};
use super::{lockout, services, values};
use crate::config::policy::{Firewall, LogDrops};
use crate::config::raw::{Entry, JournalGroupOrOff, NumbersOrOff, PortAutoOrClosed, PortsOrAuto, RawFirewall};

/// New connections a minute. Tools that open one connection per host stay below it; password guessers do not.
const DEFAULT_SSH_ATTEMPTS: u32 = 60;
const DEFAULT_SSH_BAN: Duration = Duration::from_secs(600);
/// Echo requests a second.
const DEFAULT_PINGS: u32 = 100;
/// New TCP connections a second from one source.
const DEFAULT_SYNS: u32 = 200;
/// New flows a second from one source, whatever their protocol: a resolver that asks a busy name server.
const DEFAULT_NEW_FLOWS: u32 = 2000;
/// Flows of one source: Hetzner's largest load balancer keeps 40 000 connections, all from one address.
const DEFAULT_MAX_FLOWS: u32 = 50_000;

/// `firewall.wireguard_port`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenPort {
    /// The port that the tunnel listens on.
    Auto,
    Closed,
    Port(u16),
}

/// The section without the tunnel's port, which also depends on `[wireguard]`.
pub(super) fn check_firewall(raw: RawFirewall, diagnostics: &mut Diagnostics) -> (Firewall, OpenPort) {
    let section = "firewall";
    diagnostics.reject_unknown_keys(section, &raw.unknown);
    let ssh_ports = match diagnostics.field(section, "ssh_ports", raw.ssh_ports) {
        None | Some(PortsOrAuto::Auto) => None,
        Some(PortsOrAuto::Ports(numbers)) => Some(check_ssh_ports(numbers, diagnostics)),
    };
    let empty = "an empty list would lock you out; list who may connect, or remove the key";
    let ssh_from = diagnostics.parse_list(section, "ssh_from", raw.ssh_from, Some(empty), values::parse_net);
    let ssh_from = ssh_from.map_or_else(|| vec![EVERYWHERE_V4.into(), EVERYWHERE_V6.into()], ranges);
    let port = match diagnostics.field(section, "wireguard_port", raw.wireguard_port) {
        None | Some(PortAutoOrClosed::Auto) => OpenPort::Auto,
        Some(PortAutoOrClosed::Closed) => OpenPort::Closed,
        Some(PortAutoOrClosed::Port(number)) => {
            diagnostics.parse_port("firewall.wireguard_port", number).map_or(OpenPort::Auto, OpenPort::Port)
        }
    };
    let blocklist = diagnostics.parse_list(section, "blocklist", raw.blocklist, None, parse_blocked);
    let blocklist = blocklist.unwrap_or_default();
    lockout::check_blocklist(&blocklist, &ssh_from, diagnostics);
    let blocks = diagnostics.value("firewall.service", raw.service).map(|blocks| blocks.0).unwrap_or_default();
    let mut limit = |name, entry, default| {
        diagnostics.parse_field(section, name, entry, values::parse_limit).unwrap_or(Some(default))
    };
    let firewall = Firewall {
        ssh_attempts: limit("ssh_attempts", raw.ssh_attempts, DEFAULT_SSH_ATTEMPTS),
        pings_per_second: limit("pings_per_second", raw.pings_per_second, DEFAULT_PINGS),
        syns_per_second: limit("syns_per_second", raw.syns_per_second, DEFAULT_SYNS),
        new_flows_per_second: limit("new_flows_per_second", raw.new_flows_per_second, DEFAULT_NEW_FLOWS),
        max_flows: limit("max_flows", raw.max_flows, DEFAULT_MAX_FLOWS),
        fair_share: diagnostics.field(section, "fair_share", raw.fair_share).unwrap_or(true),
        ssh_only_by_tunnel: diagnostics.field(section, "ssh_only_by_tunnel", raw.ssh_only_by_tunnel).unwrap_or(false),
        ssh_ban: diagnostics
            .parse_field(section, "ssh_ban", raw.ssh_ban, values::parse_duration)
            .unwrap_or(DEFAULT_SSH_BAN),
        wireguard_port: None,
        services: services::check_services(blocks, diagnostics),
        blocklist: ranges(blocklist),
        log_drops: diagnostics
            .parse_field(section, "log_drops", raw.log_drops, parse_log_drops)
            .unwrap_or(LogDrops::Journal),
        metadata_users: match diagnostics.field(section, "metadata_users", raw.metadata_users) {
            None => Some(BTreeSet::new()),
            Some(NumbersOrOff::Numbers(numbers)) => Some(check_users(numbers, diagnostics)),
            Some(NumbersOrOff::Off) => None,
        },
        ssh_ports,
        ssh_from,
    };
    services::warn_about_ssh_ports(&firewall, diagnostics);
    (firewall, port)
}

fn ranges(list: Vec<(usize, IpNet)>) -> Vec<IpNet> {
    list.into_iter().map(|(_, range)| range).collect()
}

fn check_ssh_ports(numbers: Vec<Entry<i64>>, diagnostics: &mut Diagnostics) -> BTreeSet<u16> {
    if numbers.is_empty() {
        // To close SSH to the outside there is ssh_only_by_tunnel, which makes sure that the tunnel leads in.
        diagnostics.error("firewall.ssh_ports", "an empty list would lock you out; list a port, or write \"auto\"");
    }
    let numbers = diagnostics.elements("firewall.ssh_ports", numbers);
    numbers.into_iter().filter_map(|(key, number)| diagnostics.parse_port(&key, number)).collect()
}

/// User ids. The largest number of 32 bits means "no user" (chown(2)).
fn check_users(numbers: Vec<Entry<i64>>, diagnostics: &mut Diagnostics) -> BTreeSet<u32> {
    let mut users = BTreeSet::new();
    for (key, number) in diagnostics.elements("firewall.metadata_users", numbers) {
        match u32::try_from(number).ok().filter(|id| *id != u32::MAX) {
            Some(id) => {
                users.insert(id);
            }
            None => diagnostics.error(&key, format!("{number} is not a user id; `id -u NAME` prints a user's")),
        }
    }
    users
}

fn parse_blocked(text: &str) -> Result<IpNet, String> {
    let range = values::parse_net(text)?;
    if range.prefix_len() == 0 {
        return Err(format!("{range} covers every address and would block everyone; block a smaller range"));
    }
    Ok(range)
}

fn parse_log_drops(written: &JournalGroupOrOff) -> Result<LogDrops, String> {
    match *written {
        JournalGroupOrOff::Journal => Ok(LogDrops::Journal),
        JournalGroupOrOff::Off => Ok(LogDrops::Off),
        JournalGroupOrOff::Group(0) => {
            Err("0 is the default group of other programs' rules; choose a group from 1 to \
                                            65535"
                .to_owned())
        }
        JournalGroupOrOff::Group(number) => match u16::try_from(number) {
            Ok(group) => Ok(LogDrops::Group(group)),
            Err(_) => Err(format!("{number} is not an nflog group (1 to 65535)")),
        },
    }
}
