//! What the report says about a chain that drops our packets: what it does, and the commands of its owner that change
//! that.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::drop_chain::{DropChain, Hook, Owner, RuleSystem};
use super::paths::{ForwardPath, OpenPort, Packets};
use crate::outcome::Problem;

/// Added to commands whose effect ends with a reboot.
const KEEP: &str = "and have them set at every boot (netfilter-persistent, or a unit of your own)";

/// The problem of a chain that drops packets of these paths; `None` if there are none.
pub(super) fn for_paths(drop_chain: &DropChain, dropped: &[&ForwardPath]) -> Option<Problem> {
    if dropped.is_empty() {
        return None;
    }
    let pairs: BTreeSet<String> = dropped.iter().map(|path| format!("{} to {}", path.from, path.to)).collect();
    let pairs: Vec<String> = pairs.into_iter().collect();
    let what = format!(
        "{} drops what its rules do not accept, including what our rules let pass: forwarding from {} stops there \
         unless \
         other rules of it accept it",
        name_of(drop_chain),
        pairs.join(", from ")
    );
    Some(Problem::new("foreign-chain-drops", what, forwarding_commands(drop_chain, dropped)))
}

/// The hint for a chain that may close these ports; `None` if there are none.
pub(super) fn for_ports(drop_chain: &DropChain, closed: &[&OpenPort]) -> Option<Problem> {
    if closed.is_empty() {
        return None;
    }
    let ports: Vec<String> =
        closed.iter().map(|port| format!("{} ({} {})", port.service, port.transport, port.port)).collect();
    let what = format!(
        "{} drops what its rules do not accept, including what our rules let in: {} may be closed by it unless other \
         rules \
         of it accept it",
        name_of(drop_chain),
        ports.join(" and ")
    );
    Some(Problem::new("foreign-chain-closes-port", what, opening_commands(drop_chain, closed)))
}

/// `chain FORWARD of table ip filter (Docker)`
pub(super) fn name_of(drop_chain: &DropChain) -> String {
    let DropChain { rule_system, family, table, chain, owner, .. } = drop_chain;
    chain_name(*rule_system, family, table, chain, *owner)
}

/// The same for any chain.
pub(super) fn chain_name(system: RuleSystem, family: &str, table: &str, chain: &str, owner: Owner) -> String {
    match system {
        RuleSystem::Nftables => format!("chain {chain} of table {family} {table} ({owner})"),
        RuleSystem::LegacyIptables if table == "filter" => format!("chain {chain} of the old iptables ({owner})"),
        RuleSystem::LegacyIptables => format!("chain {chain} of table {table} of the old iptables ({owner})"),
    }
}

/// The commands that make a chain accept these paths.
fn forwarding_commands(drop_chain: &DropChain, dropped: &[&ForwardPath]) -> String {
    match drop_chain.owner {
        Owner::Ufw => joined(dropped.iter().map(|path| {
            match path.packets {
                Packets::New(_) | Packets::Published => {
                    format!("ufw route allow in on {} out on {}", path.from, path.to)
                }
                Packets::Answers => {
                    "let ufw-before-forward in /etc/ufw/before.rules accept RELATED,ESTABLISHED, as it does by itself"
                        .to_owned()
                }
            }
        })),
        Owner::Firewalld => firewalld_commands(dropped),
        Owner::DockerBridges => "Docker closes the chain when it is Docker that switches forwarding on: write \
             \"ip-forward-no-drop\": true into /etc/docker/daemon.json, then systemctl restart docker"
            .to_owned(),
        Owner::Docker => iptables_commands(drop_chain, "DOCKER-USER", dropped),
        _ if is_builtin_of_iptables(drop_chain) => iptables_commands(drop_chain, &drop_chain.chain, dropped),
        _ => nftables_commands(drop_chain, dropped.iter().map(|path| nft_rule(path))),
    }
}

/// The commands that make a chain accept packets to these ports.
fn opening_commands(drop_chain: &DropChain, closed: &[&OpenPort]) -> String {
    match drop_chain.owner {
        Owner::Ufw => joined(closed.iter().map(|port| format!("ufw allow {}/{}", port.port, port.transport))),
        Owner::Firewalld => {
            let ports = closed
                .iter()
                .map(|port| format!("firewall-cmd --permanent --add-port={}/{}", port.port, port.transport));
            joined(ports.chain(["firewall-cmd --reload".to_owned()]))
        }
        _ if is_builtin_of_iptables(drop_chain) => {
            let program = iptables_program(drop_chain);
            let rule =
                |port: &&OpenPort| format!("{program} -I INPUT -p {} --dport {} -j ACCEPT", port.transport, port.port);
            format!("{}, {KEEP}", joined(closed.iter().map(rule)))
        }
        _ => nftables_commands(
            drop_chain,
            closed.iter().map(|port| format!("{} dport {} accept", port.transport, port.port)),
        ),
    }
}

/// Whether the chain is one of the filter table's built-in chains of iptables.
fn is_builtin_of_iptables(drop_chain: &DropChain) -> bool {
    let name = match drop_chain.hook {
        Hook::Forward => "FORWARD",
        Hook::Input => "INPUT",
    };
    drop_chain.family == "ip" && drop_chain.table == "filter" && drop_chain.chain == name
}

fn iptables_program(drop_chain: &DropChain) -> &'static str {
    match drop_chain.rule_system {
        RuleSystem::Nftables => "iptables",
        RuleSystem::LegacyIptables => "iptables-legacy",
    }
}

fn iptables_commands(drop_chain: &DropChain, chain: &str, dropped: &[&ForwardPath]) -> String {
    let program = iptables_program(drop_chain);
    let is_answered = |path: &ForwardPath| {
        dropped
            .iter()
            .any(|other| other.packets == Packets::Answers && (&other.from, &other.to) == (&path.from, &path.to))
    };
    let rules = dropped.iter().filter_map(|path| {
        let state = match path.packets {
            Packets::New(_) => "",
            // DNAT is there even without forwards: nft does not show the states of the rule, so it must always be the
            // same.
            Packets::Answers => "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT ",
            Packets::Published if is_answered(path) => return None,
            Packets::Published => "-m conntrack --ctstate DNAT ",
        };
        Some(format!("{program} -I {chain} -i {} -o {} {state}-j ACCEPT", path.from, path.to))
    });
    format!("{}, {KEEP}", joined(rules))
}

/// The statements of the rule that accepts a path, in nft's text syntax.
fn nft_rule(path: &ForwardPath) -> String {
    match path.packets {
        Packets::New(_) => format!("iifname \"{}\" oifname \"{}\" accept", path.from, path.to),
        // One rule for all paths; most files begin with it.
        Packets::Answers => "ct state established,related accept".to_owned(),
        Packets::Published => "ct status dnat accept".to_owned(),
    }
}

/// nft commands take effect at once; the file that loads the table makes them permanent.
fn nftables_commands(drop_chain: &DropChain, rules: impl Iterator<Item = String>) -> String {
    let DropChain { family, table, chain, .. } = drop_chain;
    let rules = joined(rules.map(|rule| format!("nft insert rule {family} {table} {chain} {rule}")));
    let file = match drop_chain.owner {
        Owner::NftablesConf => "of /etc/nftables.conf",
        _ => "of whatever loads the table",
    };
    format!("{rules}, and the same rules at the top of chain {chain} {file}")
}

/// A policy between all zones that accepts our sources only: firewalld itself accepts answers and translated packets.
fn firewalld_commands(dropped: &[&ForwardPath]) -> String {
    let mut sources: BTreeSet<&Ipv4Net> = BTreeSet::new();
    for path in dropped {
        if let Packets::New(new_sources) = &path.packets {
            sources.extend(new_sources);
        }
    }
    let policy = "firewall-cmd --permanent --policy bastiond";
    let commands = ["firewall-cmd --permanent --new-policy bastiond".to_owned()]
        .into_iter()
        .chain(["ingress", "egress"].map(|side| format!("{policy} --add-{side}-zone ANY")))
        .chain(
            sources
                .iter()
                .map(|source| format!("{policy} --add-rich-rule 'rule family=ipv4 source address={source} accept'")),
        )
        .chain(["firewall-cmd --reload".to_owned()]);
    joined(commands)
}

/// Each command once, in the order of a script.
fn joined(commands: impl Iterator<Item = String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for command in commands {
        if !once.contains(&command) {
            once.push(command);
        }
    }
    once.join("; ")
}
