//! The old iptables (`iptables-legacy`), whose tables nft does not show.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use super::TIMEOUT;
use super::drop_chain::{DropChain, Hook, Owner, RuleSystem};
use super::iptables_words::words_of;
use super::rule::{Destination, Rule, UFW_LIMIT};
use super::translation::{Translation, read_iptables};
use crate::config::{Ports, Transport};
use crate::outcome::Problem;

/// The existing tables, a line each. Listing one that is not among them with iptables would make it.
const TABLES: &str = "/proc/thread-self/net/ip_tables_names";

/// The program of the old iptables.
pub(super) const LEGACY: &str = "iptables-legacy";

/// The program of today's iptables, whose rules are in nftables.
pub(super) const NFT_VARIANT: &str = "iptables-nft";

/// The loaded modules, a line each.
const MODULES: &str = "/proc/modules";

/// Whether there is a filter table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Present,
    Absent,
    /// The kernel shows its tables to root only, and the module of the filter table is loaded.
    Hidden,
}

/// The chains of the old filter table that drop; none if there is no such table, or it cannot be listed. With a hint if
/// there is one and the daemon is not allowed to list it.
pub(super) async fn list_chains() -> (Vec<DropChain>, Option<Problem>) {
    let modules = || std::fs::read_to_string(MODULES).unwrap_or_default();
    match filter_table(std::fs::read_to_string(TABLES), modules) {
        Table::Absent => (Vec::new(), None),
        Table::Present => (run_iptables().await, None),
        Table::Hidden => (Vec::new(), Some(hidden_table())),
    }
}

fn filter_table(tables: io::Result<String>, modules: impl FnOnce() -> String) -> Table {
    match tables {
        Ok(tables) if tables.lines().any(|table| table == "filter") => Table::Present,
        // The kernel loads its module when a program first uses the table.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let loaded = modules().lines().any(|line| line.split(' ').next() == Some("iptable_filter"));
            if loaded { Table::Hidden } else { Table::Absent }
        }
        // Err: the kernel does not have the old iptables.
        Ok(_) | Err(_) => Table::Absent,
    }
}

fn hidden_table() -> Problem {
    Problem::new(
        "iptables-legacy-hidden",
        "the old iptables (iptables-legacy) is in use on this server, and only root can list its rules: this report \
         does \
         not say what they drop",
        "run `iptables-legacy -S` as root: if -P FORWARD or -P INPUT is DROP, its rules have to accept what bastiond \
         accepts",
    )
}

/// The old tables whose rules see every packet.
const EVERY_PACKET: [&str; 4] = ["filter", "mangle", "raw", "security"];

/// The old tables with rules that forwarded packets pass, in an operator's words.
pub(super) async fn needs_every_packet() -> Vec<String> {
    let tables = match std::fs::read_to_string(TABLES) {
        Ok(tables) => tables,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let modules = std::fs::read_to_string(MODULES).unwrap_or_default();
            let is_loaded = |table: &&str| {
                let module = format!("iptable_{table}");
                modules.lines().any(|line| line.split(' ').next() == Some(module.as_str()))
            };
            let loaded = EVERY_PACKET.into_iter().filter(is_loaded);
            return loaded.map(|table| format!("only root can list table {table} of the old iptables")).collect();
        }
        // The kernel does not have the old iptables.
        Err(_) => return Vec::new(),
    };
    let mut found = Vec::new();
    for table in EVERY_PACKET.into_iter().filter(|table| tables.lines().any(|there| there == *table)) {
        // A table that cannot be listed counts as one with rules.
        let has_rules = run(LEGACY, &["-t", table, "-S"]).await.is_none_or(|listing| sees_forwarded(&listing));
        if has_rules {
            found.push(format!("rules of the old iptables in table {table} see every packet"));
        }
    }
    found
}

/// Whether rules or policies in the output of `iptables-legacy -S` concern packets that this server does not receive or
/// send itself.
fn sees_forwarded(listing: &str) -> bool {
    listing.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["-P", chain, policy] => !matches!(chain, "INPUT" | "OUTPUT") && policy != "ACCEPT",
            ["-A", chain, ..] => matches!(chain, "PREROUTING" | "FORWARD" | "POSTROUTING"),
            _ => false,
        }
    })
}

/// The rules of the old tables that translate, or keep packets out of connection tracking.
pub(super) async fn list_translations() -> Vec<Translation> {
    let tables = std::fs::read_to_string(TABLES).unwrap_or_default();
    let mut found = Vec::new();
    for table in ["nat", "raw"] {
        if tables.lines().any(|there| there == table) {
            found.extend(run_iptables_on(LEGACY, RuleSystem::LegacyIptables, table).await);
        }
    }
    found
}

/// The rules of a table of iptables that translate.
pub(super) async fn run_iptables_on(program: &str, system: RuleSystem, table: &str) -> Vec<Translation> {
    let listing = run(program, &["-t", table, "-S"]).await;
    read_iptables(&listing.unwrap_or_default(), system, table)
}

/// The rules of an old table as commands; `None` if there is no such table, or it cannot be listed.
pub(super) async fn list_table(table: &str) -> Option<String> {
    let tables = std::fs::read_to_string(TABLES).unwrap_or_default();
    if !tables.lines().any(|there| there == table) {
        return None;
    }
    run(LEGACY, &["-t", table, "-S"]).await
}

/// The rules of a table of today's iptables as commands: nft does not show all that they match. `None` if iptables is
/// not installed, or another program has put rules of its own into the table.
pub(super) async fn list_nft_table(table: &str) -> Option<String> {
    run(NFT_VARIANT, &["-t", table, "-S"]).await
}

async fn run_iptables() -> Vec<DropChain> {
    run(LEGACY, &["-S"]).await.map(|listing| read_chains(&listing)).unwrap_or_default()
}

/// The output of a variant of iptables; `None` if it is not installed, or fails.
async fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let program = find_program(program)?;
    let listing = Command::new(&program)
        .args(["-w", "1"])
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(TIMEOUT, listing).await {
        Ok(Ok(output)) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let complaint = String::from_utf8_lossy(&output.stderr);
            tracing::debug!(
                component = "nat",
                complaint = complaint.trim(),
                program = %program.display(),
                "the rules of iptables cannot be listed"
            );
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(component = "nat", %error, program = %program.display(), "cannot be run");
            None
        }
        Err(_) => None,
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let programs = directories.filter(|directory| directory.is_absolute()).map(|d| d.join(name));
    programs.into_iter().find(|program| program.is_file())
}

/// The chains that drop in the output of `iptables-legacy -S`, with their rules.
pub(super) fn read_chains(listing: &str) -> Vec<DropChain> {
    let lines: Vec<Vec<&str>> = listing.lines().map(words_of).collect();
    let policies = lines.iter().filter_map(|line| match line[..] {
        ["-P", "FORWARD", "DROP"] => Some(("FORWARD", Hook::Forward)),
        ["-P", "INPUT", "DROP"] => Some(("INPUT", Hook::Input)),
        _ => None,
    });
    policies.map(|(chain, hook)| read_chain(chain, hook, &lines)).collect()
}

fn read_chain(chain: &str, hook: Hook, lines: &[Vec<&str>]) -> DropChain {
    let chains = lines.iter().filter_map(|line| match line[..] {
        ["-N" | "-P", chain, ..] => Some(chain),
        _ => None,
    });
    let owner = Owner::from_chains("ip", "filter", &chains);
    let chains_read = super::drop_chain::chains_to_read(hook, chain, chains);
    DropChain {
        rule_system: RuleSystem::LegacyIptables,
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        chain: chain.to_owned(),
        hook,
        owner,
        rules: accepting_rules(lines, &chains_read),
        unread: Vec::new(),
    }
}

/// The rules of these chains that accept something, in the output of `iptables -S`.
pub(super) fn read_accepting_rules(listing: &str, chains: &[String]) -> Vec<Rule> {
    let lines: Vec<Vec<&str>> = listing.lines().map(words_of).collect();
    accepting_rules(&lines, chains)
}

fn accepting_rules(lines: &[Vec<&str>], chains: &[String]) -> Vec<Rule> {
    let rules = lines.iter().filter_map(|line| match line[..] {
        ["-A", chain, ref rest @ ..] if chains.iter().any(|read| read == chain) => accepting_rule(rest),
        _ => None,
    });
    rules.collect()
}

/// Reads a rule; `None` if it does not accept.
pub(super) fn accepting_rule(mut rest: &[&str]) -> Option<Rule> {
    let mut rule = Rule::default();
    let (mut transport, mut accepts) = (None, false);
    while let [option, value, more @ ..] = rest {
        rest = more;
        match (*option, *value) {
            ("-j", "ACCEPT" | UFW_LIMIT) => accepts = true,
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

/// iptables writes `eth+` where nft writes `eth*`.
fn wildcard(name: &str) -> String {
    name.strip_suffix('+').map_or_else(|| name.to_owned(), |beginning| format!("{beginning}*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_only_root_can_list_is_reported_when_its_module_is_loaded() {
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        let loaded = || "iptable_nat 1 0 - Live 0x0\niptable_filter 16384 1 - Live 0x0000000000000000\n".to_owned();
        let cases = [
            (Ok("nat\nfilter\n".to_owned()), Table::Present),
            (Ok("nat\n".to_owned()), Table::Absent),
            (Err(io::ErrorKind::NotFound.into()), Table::Absent),
            (denied(), Table::Hidden),
        ];
        for (tables, expected) in cases {
            assert_eq!(filter_table(tables, loaded), expected);
        }
        assert_eq!(
            filter_table(denied(), || "iptable_filters 1 0\nx_tables 1 1 iptable_filter\n".to_owned()),
            Table::Absent
        );
    }
}
