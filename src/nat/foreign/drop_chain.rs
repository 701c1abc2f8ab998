//! Base chains of other programs that drop what no rule of theirs decides.

use std::fmt;

use super::super::model::TABLE;
use super::super::nft::Error;
use super::rule::Rule;
use super::{Value, objects};

/// How many chains beside the base chain are read at most: firewalld has many.
const MAX_CHAINS_READ: usize = 16;

/// A base chain that drops, and the rules that accept before it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DropChain {
    pub(super) rule_system: RuleSystem,
    /// `ip` or `inet`.
    pub(super) family: String,
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) hook: Hook,
    pub(super) owner: Owner,
    /// The chains of its table, this one among them, that are yet to be read: rules like those that we would advise
    /// may be there.
    pub(super) unread: Vec<String>,
    /// The rules of these chains that accept something.
    pub(super) rules: Vec<Rule>,
}

/// Netfilter's two rule systems. A packet passes the chains of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RuleSystem {
    /// nftables, which today's iptables uses too.
    Nftables,
    /// The old iptables (`iptables-legacy`).
    LegacyIptables,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// For forwarded packets.
    Forward,
    /// For packets to the bastion itself.
    Input,
}

/// Which program made a chain, as far as its table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// ufw, alone or with others in the same table: only its rules come back after a boot.
    Ufw,
    /// Docker with its iptables backend.
    Docker,
    /// Docker with its nftables backend.
    DockerBridges,
    /// firewalld.
    Firewalld,
    /// libvirt.
    Libvirt,
    /// fail2ban. It only bans, so its chain drops only if its policy was changed.
    Fail2ban,
    /// Rules of iptables by an unknown program or a person.
    Iptables,
    /// The distribution's `/etc/nftables.conf`.
    NftablesConf,
    /// No program that we know.
    Unknown,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ufw => "ufw",
            Self::Docker | Self::DockerBridges => "Docker",
            Self::Firewalld => "firewalld",
            Self::Libvirt => "libvirt",
            Self::Fail2ban => "fail2ban",
            Self::Iptables => "rules of iptables",
            Self::NftablesConf => "probably /etc/nftables.conf",
            Self::Unknown => "of an owner that is not known",
        })
    }
}

impl Owner {
    /// Guesses it from a table and the names of its chains.
    pub(super) fn from_chains<'a>(family: &str, table: &str, chains: &(impl Iterator<Item = &'a str> + Clone)) -> Self {
        let any = |wanted: fn(&str) -> bool| chains.clone().any(wanted);
        match (family, table) {
            ("inet", "firewalld") => Self::Firewalld,
            (_, "docker-bridges") => Self::DockerBridges,
            (_, "f2b-table") => Self::Fail2ban,
            _ if any(|chain| chain.starts_with("ufw-")) => Self::Ufw,
            _ if any(|chain| chain == "DOCKER-USER") => Self::Docker,
            ("ip", "nat" | "raw") if any(|chain| chain == "DOCKER") => Self::Docker,
            _ if table.starts_with("libvirt") || any(|chain| chain.starts_with("LIBVIRT_")) => Self::Libvirt,
            ("ip", "filter") if any(|chain| matches!(chain, "FORWARD" | "INPUT")) => Self::Iptables,
            ("ip", "nat" | "raw" | "mangle")
                if any(|chain| matches!(chain, "PREROUTING" | "POSTROUTING" | "OUTPUT")) =>
            {
                Self::Iptables
            }
            ("inet", "filter") => Self::NftablesConf,
            _ => Self::Unknown,
        }
    }
}

/// The chains of programs that an operator fills, by `ufw route`, in `/etc/ufw/before.rules` and the like.
const FILLED_BY_OPERATORS: [&str; 4] = ["DOCKER-USER", "ufw-user-forward", "ufw-before-forward", "ufw-after-forward"];

/// Whether a program keeps this chain for itself, and knows what it does there.
pub(super) fn is_kept_by_a_program(chain: &str) -> bool {
    let kept = ["DOCKER", "LIBVIRT_", "ufw-", "ufw6-", "f2b-", "KUBE-", "CNI-", "cali-", "CILIUM_", "ts-"];
    match chain.strip_prefix("filter_FWD_") {
        // Of a zone or a policy of firewalld: what its rich rules deny is an operator's, and so is what they accept.
        Some(rest) => ["_pre", "_log", "_post"].iter().any(|part| rest.ends_with(part)),
        None => !FILLED_BY_OPERATORS.contains(&chain) && kept.iter().any(|beginning| chain.starts_with(beginning)),
    }
}

/// Whether rules like those that we would advise may be in a chain, beside the base chain itself.
fn may_hold_advised(hook: Hook, chain: &str) -> bool {
    match hook {
        Hook::Forward => match chain.strip_prefix("filter_FWD_") {
            // What a policy or a zone of firewalld accepts. Which zones it connects is not checked.
            Some(rest) => {
                rest.ends_with("_allow")
                    || rest.starts_with("policy_")
                        && !["_pre", "_log", "_deny", "_post"].iter().any(|part| rest.ends_with(part))
            }
            None => matches!(chain, "DOCKER-USER" | "ufw-before-forward" | "ufw-user-forward"),
        },
        Hook::Input => {
            matches!(chain, "ufw-before-input" | "ufw-user-input")
                || chain.starts_with("filter_IN_") && chain.ends_with("_allow")
        }
    }
}

/// The chains that drop in a listing of all chains (`nft -j list chains`). Their rules are yet to be read.
pub(super) fn read_chains(listing: &str) -> Result<Vec<DropChain>, Error> {
    // `objects` takes anything else for an empty listing.
    serde_json::from_str::<serde::de::IgnoredAny>(listing).map_err(|source| Error::Unreadable { source })?;
    let chains = objects(listing, "chain");
    Ok(chains.iter().filter_map(|chain| read_chain(chain, &chains)).collect())
}

/// `None` if the chain drops nothing that is our business.
fn read_chain(chain: &Value, all: &[Value]) -> Option<DropChain> {
    let text = |key| chain.get(key).and_then(Value::as_str);
    let (family, table, name) = (text("family")?, text("table")?, text("name")?);
    let hook = match text("hook")? {
        "forward" => Hook::Forward,
        "input" => Hook::Input,
        _ => return None,
    };
    if !matches!(family, "ip" | "inet") || (family, table) == ("inet", TABLE) {
        return None;
    }
    let siblings = all.iter().filter(|other| other["family"] == family && other["table"] == table);
    let siblings = siblings.filter_map(|other| other["name"].as_str());
    let owner = Owner::from_chains(family, table, &siblings);
    // firewalld rejects by its last rule, under a policy that accepts.
    let drops = text("policy") == Some("drop") || owner == Owner::Firewalld;
    drops.then(|| DropChain {
        rule_system: RuleSystem::Nftables,
        family: family.to_owned(),
        table: table.to_owned(),
        chain: name.to_owned(),
        hook,
        owner,
        unread: chains_to_read(hook, name, siblings),
        rules: Vec::new(),
    })
}

/// The base chain, and those of its table in which rules like those that we would advise may be.
pub(super) fn chains_to_read<'a>(hook: Hook, base: &'a str, siblings: impl Iterator<Item = &'a str>) -> Vec<String> {
    let more = siblings.filter(|chain| *chain != base && may_hold_advised(hook, chain));
    [base].into_iter().chain(more.take(MAX_CHAINS_READ)).map(str::to_owned).collect()
}
