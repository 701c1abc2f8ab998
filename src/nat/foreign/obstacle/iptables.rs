//! The obstacles in the rules of iptables as iptables lists them: nft does not show those of the old iptables, nor all
//! that today's match.

use std::collections::BTreeMap;

use super::super::drop_chain::{Owner, RuleSystem, is_kept_by_a_program};
use super::super::iptables_words::words_of;
use super::super::legacy;
use super::super::translation::Place;
use super::conditions::Conditions;
use super::{Base, Effect, End, FEW_HOPS, Obstacle, ReadRule, Stage, Verdict, obstacles};

/// The base chains that see forwarded packets, by table.
const BASES: [(&str, &str, Stage); 5] = [
    ("raw", "PREROUTING", Stage::Arriving),
    ("mangle", "PREROUTING", Stage::Arriving),
    ("mangle", "FORWARD", Stage::Forwarding),
    ("filter", "FORWARD", Stage::Forwarding),
    ("mangle", "POSTROUTING", Stage::Leaving),
];

/// The obstacles in the tables of the old iptables.
pub(in super::super) async fn list_legacy() -> Vec<Obstacle> {
    let mut found = Vec::new();
    for table in ["raw", "mangle", "filter"] {
        if let Some(listing) = legacy::list_table(table).await {
            found.extend(read(RuleSystem::LegacyIptables, table, &listing));
        }
    }
    found
}

/// The obstacles in the output of `iptables-legacy -t TABLE -S`, or of `iptables-nft`.
pub(super) fn read(system: RuleSystem, table: &str, listing: &str) -> Vec<Obstacle> {
    let program = match system {
        RuleSystem::Nftables => legacy::NFT_VARIANT,
        RuleSystem::LegacyIptables => legacy::LEGACY,
    };
    let lines: Vec<Vec<&str>> = listing.lines().map(words_of).collect();
    let names = lines.iter().filter_map(|line| match line[..] {
        ["-N" | "-P", chain, ..] => Some(chain),
        _ => None,
    });
    let owner = Owner::from_chains("ip", table, &names);
    let mut chains: BTreeMap<String, Vec<ReadRule>> = BTreeMap::new();
    for (line, text) in lines.iter().zip(listing.lines()) {
        if let ["-A", chain, rest @ ..] = &line[..]
            && !is_kept_by_a_program(chain)
        {
            let removal = format!("{program} -t {table} {}", text.trim().replacen("-A ", "-D ", 1));
            chains.entry((*chain).to_owned()).or_default().push(read_rule(rest, removal));
        }
    }
    let dropping = |chain: &str| lines.iter().any(|line| line[..] == ["-P", chain, "DROP"]);
    let of_table = BASES.into_iter().filter(|(of, ..)| *of == table);
    let bases = of_table.map(|(_, chain, stage)| Base {
        place: Place { system, family: "ip".to_owned(), table: table.to_owned(), chain: chain.to_owned(), owner },
        stage,
        devices: Vec::new(),
        end: match dropping(chain) {
            false => End::Accepted,
            // The filter table's policy is reported with what its rules accept.
            true if table == "filter" => End::DroppedAsReported,
            true => End::Dropped,
        },
    });
    bases.flat_map(|base| obstacles(&base, &chains)).collect()
}

fn read_rule(options: &[&str], removal: String) -> ReadRule {
    let mut conditions = Conditions::default();
    let mut verdict = Verdict::Other;
    let mut rest = options;
    let mut negated = false;
    while let [option, more @ ..] = rest {
        if *option == "!" {
            (negated, rest) = (true, more);
            continue;
        }
        let value = more.first().copied().unwrap_or_default();
        let mut values = 1;
        match *option {
            "-s" | "--src-range" => conditions.add_addresses(true, value, negated),
            "-d" | "--dst-range" => conditions.add_addresses(false, value, negated),
            // What iptables makes of `--syn`.
            "--tcp-flags" if !negated && value.contains("SYN") && more.get(1) == Some(&"SYN") => {
                conditions.add_states("NEW", false);
                values = 2;
            }
            "-i" => conditions.add_from(value.replace('+', "*"), negated),
            "-o" => conditions.add_to(value.replace('+', "*"), negated),
            "-p" if !negated && conditions.add_protocols(Some(vec![value.to_owned()])) => {}
            "--dport" | "--sport" | "--dports" | "--sports" | "--icmp-type" => conditions.add_ports(value),
            "--ctstate" | "--state" => conditions.add_states(value, negated),
            "-m" if matches!(
                value,
                "tcp" | "udp" | "icmp" | "multiport" | "conntrack" | "state" | "comment" | "iprange"
            ) => {}
            "--reject-with" | "--comment" | "--queue-num" | "--queue-balance" | "--ttl-set" | "--zone"
            | "--zone-orig" | "--zone-reply" => {}
            "-j" => verdict = read_target(value, options),
            "-g" => verdict = Verdict::To { chain: value.to_owned(), comes_back: false },
            _ => {
                conditions.add_unknown();
                values = usize::from(*option == "-p");
            }
        }
        negated = false;
        rest = more.get(values..).unwrap_or_default();
    }
    ReadRule { conditions, verdict, is_hidden: false, removal }
}

/// The number that follows an option.
fn number_after(rule: &[&str], option: &str) -> Option<u64> {
    let position = rule.iter().position(|word| *word == option)?;
    rule.get(position + 1)?.parse().ok()
}

fn read_target(target: &str, rule: &[&str]) -> Verdict {
    match target {
        "DROP" | "REJECT" => Verdict::Effect(Effect::Drop),
        "TPROXY" => Verdict::Effect(Effect::Intercept),
        "TTL" if number_after(rule, "--ttl-set").is_some_and(|hops| hops <= FEW_HOPS) => Verdict::Effect(Effect::Spoil),
        "CT" if ["--zone", "--zone-orig", "--zone-reply"].iter().any(|option| rule.contains(option)) => {
            Verdict::Effect(Effect::Spoil)
        }
        "NFQUEUE" if rule.contains(&"--queue-bypass") => Verdict::Other,
        "NFQUEUE" => Verdict::Effect(Effect::Queue),
        "ACCEPT" => legacy::accepting_rule(rule).map_or(Verdict::Other, Verdict::Accept),
        chain => Verdict::To { chain: chain.to_owned(), comes_back: true },
    }
}
