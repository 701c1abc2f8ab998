//! The iptables of old, where the kernel has its filter table: no nft shows that.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use super::TIMEOUT;
use super::rule::{Destination, Rule};
use super::wall::{Hook, Kind, Owner, Wall};
use crate::config::{Ports, Transport};

/// The tables that were made so far, a line each. Asking iptables for one that is not among them would make it.
const TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// What of the old filter table drops; nothing if there is none, or it cannot be looked at.
pub(super) async fn walls() -> Vec<Wall> {
    // Err: a kernel without the old iptables.
    let tables = std::fs::read_to_string(TABLES).unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return Vec::new();
    }
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
            tracing::debug!(room = "nat", complaint = complaint.trim(), "the old iptables cannot be looked at");
            Vec::new()
        }
        Ok(Err(error)) => {
            tracing::debug!(room = "nat", %error, program = %program.display(), "cannot be run");
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
