//! What the operator is told of a wall: what it does, and the commands of its owner that open it for us.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

use super::wall::{Hook, Kind, Owner, Wall};
use super::ways::{Door, Way, What};
use crate::outcome::Problem;

/// Rules that are typed in are gone after a boot.
const KEEP: &str = "and have them set at every boot (netfilter-persistent, or a unit of your own)";

/// What a wall that these ways do not pass comes to; nothing if there are none.
pub(super) fn of_ways(wall: &Wall, shut: &[&Way]) -> Option<Problem> {
    if shut.is_empty() {
        return None;
    }
    let pairs: BTreeSet<String> = shut.iter().map(|way| format!("{} to {}", way.from, way.to)).collect();
    let pairs: Vec<String> = pairs.into_iter().collect();
    let what = format!(
        "{} drops what it does not know, also what our rules let pass: forwarding from {} stops there unless other rules of it \
         accept it",
        named(wall),
        pairs.join(", from ")
    );
    Some(Problem::new(what, forwarding(wall, shut)))
}

/// What a wall that hides these ports may come to.
pub(super) fn of_doors(wall: &Wall, shut: &[&Door]) -> Option<Problem> {
    if shut.is_empty() {
        return None;
    }
    let ports: Vec<String> =
        shut.iter().map(|door| format!("{} ({} {})", door.of, door.transport, door.port)).collect();
    let what = format!(
        "{} drops what it does not know, also what our rules let in: {} may be closed by it unless other rules of it accept it",
        named(wall),
        ports.join(" and ")
    );
    Some(Problem::new(what, opening(wall, shut)))
}

/// `chain FORWARD of table ip filter (Docker)`
fn named(wall: &Wall) -> String {
    let Wall { family, table, chain, owner, .. } = wall;
    match wall.kind {
        Kind::Nftables => format!("chain {chain} of table {family} {table} ({owner})"),
        Kind::Legacy => format!("chain {chain} of the old iptables ({owner})"),
    }
}

fn forwarding(wall: &Wall, shut: &[&Way]) -> String {
    match wall.owner {
        Owner::Ufw => joined(shut.iter().map(|way| {
            match way.what {
                What::New(_) | What::Published => format!("ufw route allow in on {} out on {}", way.from, way.to),
                What::Answers => {
                    "let ufw-before-forward in /etc/ufw/before.rules accept RELATED,ESTABLISHED, as it does by itself"
                        .to_owned()
                }
            }
        })),
        Owner::Firewalld => firewalld(shut),
        Owner::DockerBridges => "Docker shuts the chain when it is Docker that switches forwarding on: write \
             \"ip-forward-no-drop\": true into /etc/docker/daemon.json, then systemctl restart docker"
            .to_owned(),
        Owner::Docker => iptables(wall, "DOCKER-USER", shut),
        _ if is_of_iptables(wall) => iptables(wall, &wall.chain, shut),
        _ => nftables(wall, shut.iter().map(|way| phrase(way))),
    }
}

fn opening(wall: &Wall, shut: &[&Door]) -> String {
    match wall.owner {
        Owner::Ufw => joined(shut.iter().map(|door| format!("ufw allow {}/{}", door.port, door.transport))),
        Owner::Firewalld => {
            let ports =
                shut.iter().map(|door| format!("firewall-cmd --permanent --add-port={}/{}", door.port, door.transport));
            joined(ports.chain(["firewall-cmd --reload".to_owned()]))
        }
        _ if is_of_iptables(wall) => {
            let program = program(wall);
            let rule =
                |door: &&Door| format!("{program} -I INPUT -p {} --dport {} -j ACCEPT", door.transport, door.port);
            format!("{}, {KEEP}", joined(shut.iter().map(rule)))
        }
        _ => nftables(wall, shut.iter().map(|door| format!("{} dport {} accept", door.transport, door.port))),
    }
}

/// Whether the chain is one of the filter table's own that iptables knows by these names.
fn is_of_iptables(wall: &Wall) -> bool {
    let name = match wall.hook {
        Hook::Forward => "FORWARD",
        Hook::Input => "INPUT",
    };
    wall.family == "ip" && wall.table == "filter" && wall.chain == name
}

fn program(wall: &Wall) -> &'static str {
    match wall.kind {
        Kind::Nftables => "iptables",
        Kind::Legacy => "iptables-legacy",
    }
}

fn iptables(wall: &Wall, chain: &str, shut: &[&Way]) -> String {
    let program = program(wall);
    let answered = |way: &Way| {
        shut.iter().any(|other| other.what == What::Answers && (&other.from, &other.to) == (&way.from, &way.to))
    };
    let rules = shut.iter().filter_map(|way| {
        let state = match way.what {
            What::New(_) => "",
            // With what was translated, forwards or none: nft does not show the states, so the rule has to be the same always.
            What::Answers => "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT ",
            What::Published if answered(way) => return None,
            What::Published => "-m conntrack --ctstate DNAT ",
        };
        Some(format!("{program} -I {chain} -i {} -o {} {state}-j ACCEPT", way.from, way.to))
    });
    format!("{}, {KEEP}", joined(rules))
}

fn phrase(way: &Way) -> String {
    match way.what {
        What::New(_) => format!("iifname \"{}\" oifname \"{}\" accept", way.from, way.to),
        // One rule for all of them, and the first one in most files.
        What::Answers => "ct state established,related accept".to_owned(),
        What::Published => "ct status dnat accept".to_owned(),
    }
}

/// At once by nft, and for good by the file that loads the table.
fn nftables(wall: &Wall, phrases: impl Iterator<Item = String>) -> String {
    let Wall { family, table, chain, .. } = wall;
    let rules = joined(phrases.map(|phrase| format!("nft insert rule {family} {table} {chain} {phrase}")));
    let file = match wall.owner {
        Owner::NftablesConf => "of /etc/nftables.conf",
        _ => "of whatever loads the table",
    };
    format!("{rules}, and the same rules at the top of chain {chain} {file}")
}

/// A policy of ours for everybody's zones that accepts our sources alone: firewalld itself lets answers and translated packets
/// pass.
fn firewalld(shut: &[&Way]) -> String {
    let mut sources: BTreeSet<&Ipv4Net> = BTreeSet::new();
    for way in shut {
        if let What::New(of_way) = &way.what {
            sources.extend(of_way);
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

/// Each once, in the order of a script.
fn joined(commands: impl Iterator<Item = String>) -> String {
    let mut once: Vec<String> = Vec::new();
    for command in commands {
        if !once.contains(&command) {
            once.push(command);
        }
    }
    once.join("; ")
}
