//! Base chains of others that drop what no rule of theirs decides.

use std::fmt;

use super::super::apply::Error;
use super::super::model::TABLE;
use super::rule::Rule;
use super::{Value, objects};

/// More of firewalld's chains than this are not looked into.
const LOOKED_INTO: usize = 16;

/// A chain that drops, and its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wall {
    /// Which of netfilter's two interfaces has it.
    pub(super) kind: Kind,
    /// `ip` or `inet`.
    pub(super) family: String,
    /// Its table.
    pub(super) table: String,
    /// Its name.
    pub(super) chain: String,
    /// Where in the packet's way.
    pub(super) hook: Hook,
    /// Whose it is.
    pub(super) owner: Owner,
    /// The chains of its table in which rules of the advised kind may be, this one among them: they are yet to be read.
    pub(super) looked_into: Vec<String>,
    /// Those rules there that let something pass.
    pub(super) rules: Vec<Rule>,
}

/// Which of netfilter's two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// nftables, which today's iptables writes too.
    Nftables,
    /// The iptables of old (`iptables-legacy`).
    Legacy,
}

/// Where in the packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// Through the bastion.
    Forward,
    /// To the bastion.
    Input,
}

/// Whose chain it is, by what its table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// ufw, alone or with others in the same table: it is the one whose rules come back after a boot.
    Ufw,
    /// Docker by iptables.
    Docker,
    /// Docker by nftables.
    DockerBridges,
    /// firewalld.
    Firewalld,
    /// libvirt.
    Libvirt,
    /// fail2ban. It only bans: its chain has another policy unless somebody changed that.
    Fail2ban,
    /// Rules of iptables, of whomever.
    Iptables,
    /// The distribution's `/etc/nftables.conf`.
    NftablesConf,
    /// Nobody we know.
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
    /// By a table and the names of its chains.
    pub(super) fn of<'a>(family: &str, table: &str, chains: &(impl Iterator<Item = &'a str> + Clone)) -> Self {
        let any = |wanted: fn(&str) -> bool| chains.clone().any(wanted);
        match (family, table) {
            ("inet", "firewalld") => Self::Firewalld,
            (_, "docker-bridges") => Self::DockerBridges,
            (_, "f2b-table") => Self::Fail2ban,
            _ if any(|chain| chain.starts_with("ufw-")) => Self::Ufw,
            _ if any(|chain| chain == "DOCKER-USER") => Self::Docker,
            _ if table.starts_with("libvirt") || any(|chain| chain.starts_with("LIBVIRT_")) => Self::Libvirt,
            ("ip", "filter") if any(|chain| matches!(chain, "FORWARD" | "INPUT")) => Self::Iptables,
            ("inet", "filter") => Self::NftablesConf,
            _ => Self::Unknown,
        }
    }
}

/// Whether the advised rules may stand in a chain, beside the base chain itself.
fn may_hold_advised(hook: Hook, chain: &str) -> bool {
    match hook {
        Hook::Forward => match chain.strip_prefix("filter_FWD_") {
            // What a policy or a zone of firewalld's accepts. It is taken at its word: which zones meet there is not looked at.
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

/// The walls in a listing of all chains (`nft -j list chains`), their rules yet unread.
pub(super) fn walls(listing: &str) -> Result<Vec<Wall>, Error> {
    // Whether it is a listing at all.
    serde_json::from_str::<serde::de::IgnoredAny>(listing).map_err(|source| Error::Unreadable { source })?;
    let chains = objects(listing, "chain");
    Ok(chains.iter().filter_map(|chain| wall(chain, &chains)).collect())
}

fn wall(chain: &Value, all: &[Value]) -> Option<Wall> {
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
    let owner = Owner::of(family, table, &siblings);
    // firewalld rejects by the last rule, under a policy that accepts.
    let drops = text("policy") == Some("drop") || owner == Owner::Firewalld;
    drops.then(|| Wall {
        kind: Kind::Nftables,
        family: family.to_owned(),
        table: table.to_owned(),
        chain: name.to_owned(),
        hook,
        owner,
        looked_into: looked_into(hook, name, siblings),
        rules: Vec::new(),
    })
}

pub(super) fn looked_into<'a>(hook: Hook, base: &'a str, siblings: impl Iterator<Item = &'a str>) -> Vec<String> {
    let more = siblings.filter(|chain| *chain != base && may_hold_advised(hook, chain));
    [base].into_iter().chain(more.take(LOOKED_INTO)).map(str::to_owned).collect()
}
