//! The iptables of old, where the kernel has its filter table: no nft shows that.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use super::TIMEOUT;
use super::rule::{Destination, Rule};
use super::wall::{Hook, Kind, Owner, Wall};
use crate::config::{Ports, Transport};
use crate::outcome::Problem;

/// The tables that were made so far, a line each. Asking iptables for one that is not among them would make it.
const TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// The modules that are loaded, a line each.
const MODULES: &str = "/proc/modules";

/// Whether there is a filter table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    There,
    Absent,
    /// The kernel shows its tables to root only.
    Hidden,
}

/// What of the old filter table drops; nothing if there is none, or it cannot be looked at. With a hint if it may well be there,
/// and the daemon is not allowed to look.
pub(super) async fn walls() -> (Vec<Wall>, Option<Problem>) {
    let modules = || std::fs::read_to_string(MODULES).unwrap_or_default();
    match table(std::fs::read_to_string(TABLES), modules) {
        Table::Absent => (Vec::new(), None),
        Table::There => (listed().await, None),
        Table::Hidden => (Vec::new(), Some(unseen())),
    }
}

fn table(tables: io::Result<String>, modules: impl FnOnce() -> String) -> Table {
    match tables {
        Ok(tables) if tables.lines().any(|table| table == "filter") => Table::There,
        // Its module is loaded when somebody first uses the table.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let loaded = modules().lines().any(|line| line.split(' ').next() == Some("iptable_filter"));
            if loaded { Table::Hidden } else { Table::Absent }
        }
        // Err: a kernel without the old iptables.
        Ok(_) | Err(_) => Table::Absent,
    }
}

fn unseen() -> Problem {
    Problem::new(
        "the old iptables (iptables-legacy) is in use on this server, and only root sees its rules: what they drop is not told here",
        "`iptables-legacy -S` shows them: if -P FORWARD or -P INPUT is DROP, they have to let pass what bastiond does",
    )
}

async fn listed() -> Vec<Wall> {
    let Some(program) = find() else { return Vec::new() };
    let listing = Command::new(&program)
        .args(["-w", "1", "-S"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(TIMEOUT, listing).await {
        Ok(Ok(output)) if output.status.success() => read(&String::from_utf8_lossy(&output.stdout)),
        Ok(Ok(output)) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            tracing::debug!(component = "nat", complaint = complaint.trim(), "the old iptables cannot be looked at");
            Vec::new()
        }
        Ok(Err(error)) => {
            tracing::debug!(component = "nat", %error, program = %program.display(), "cannot be run");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let programs = directories.filter(|directory| directory.is_absolute()).map(|d| d.join("iptables-legacy"));
    programs.into_iter().find(|program| program.is_file())
}

/// Reads `iptables-legacy -S`.
pub(super) fn read(listing: &str) -> Vec<Wall> {
    let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    let policies = lines.iter().filter_map(|line| match line[..] {
        ["-P", "FORWARD", "DROP"] => Some(("FORWARD", Hook::Forward)),
        ["-P", "INPUT", "DROP"] => Some(("INPUT", Hook::Input)),
        _ => None,
    });
    policies.map(|(chain, hook)| wall(chain, hook, &lines)).collect()
}

fn wall(chain: &str, hook: Hook, lines: &[Vec<&str>]) -> Wall {
    let chains = lines.iter().filter_map(|line| match line[..] {
        ["-N" | "-P", chain, ..] => Some(chain),
        _ => None,
    });
    let owner = Owner::of("ip", "filter", &chains);
    let looked_into = super::wall::looked_into(hook, chain, chains);
    let rules = lines.iter().filter_map(|line| match line[..] {
        ["-A", chain, ref rest @ ..] if looked_into.iter().any(|looked| looked == chain) => rule(rest),
        _ => None,
    });
    Wall {
        kind: Kind::Legacy,
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        chain: chain.to_owned(),
        hook,
        owner,
        rules: rules.collect(),
        looked_into: Vec::new(),
    }
}

/// A rule that accepts.
fn rule(mut rest: &[&str]) -> Option<Rule> {
    let mut rule = Rule::default();
    let (mut transport, mut accepts) = (None, false);
    while let [option, value, more @ ..] = rest {
        rest = more;
        match (*option, *value) {
            ("-j", "ACCEPT") => accepts = true,
            ("--comment", _) | ("-m", "conntrack" | "state" | "comment" | "tcp" | "udp") => {}
            ("-i", name) => rule.from = vec![wildcard(name)],
            ("-o", name) => rule.to = vec![wildcard(name)],
            ("-s", range) => match range.parse() {
                Ok(range) => rule.sources = vec![range],
                Err(_) => rule.narrower = true,
            },
            ("--ctstate" | "--state", states) => {
                rule.states = states.split(',').map(str::to_ascii_lowercase).collect();
                rule.translated = rule.states == ["dnat"];
            }
            ("-p", "tcp") => transport = Some(Transport::Tcp),
            ("-p", "udp") => transport = Some(Transport::Udp),
            ("--dport", port) => {
                let (first, last) = port.split_once(':').unwrap_or((port, port));
                match (first.parse(), last.parse()) {
                    (Ok(first), Ok(last)) => {
                        rule.ports = Some(Destination { transport: None, ports: vec![Ports { first, last }] });
                    }
                    _ => rule.narrower = true,
                }
            }
            _ => rule.narrower = true,
        }
    }
    rule.narrower |= !rest.is_empty() || transport.is_some() && rule.ports.is_none();
    if let Some(destination) = &mut rule.ports {
        destination.transport = transport;
    }
    accepts.then_some(rule)
}

/// iptables says `eth+` where nft says `eth*`.
fn wildcard(name: &str) -> String {
    name.strip_suffix('+').map_or_else(|| name.to_owned(), |beginning| format!("{beginning}*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_only_root_sees_is_told_when_its_module_is_loaded() {
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        let loaded = || "iptable_nat 1 0 - Live 0x0\niptable_filter 16384 1 - Live 0x0000000000000000\n".to_owned();
        let cases = [
            (Ok("nat\nfilter\n".to_owned()), Table::There),
            (Ok("nat\n".to_owned()), Table::Absent),
            (Err(io::ErrorKind::NotFound.into()), Table::Absent),
            (denied(), Table::Hidden),
        ];
        for (tables, expected) in cases {
            assert_eq!(table(tables, loaded), expected);
        }
        assert_eq!(table(denied(), || "iptable_filters 1 0\nx_tables 1 1 iptable_filter\n".to_owned()), Table::Absent);
    }
}
