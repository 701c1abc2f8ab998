//! The rules that were good last, kept over a reboot: loaded before the network is up, so that there is no moment in which
//! packets are forwarded without them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::apply::{Error, Nft};
use super::model::Ruleset;
use super::observe::Listing;
use super::plan::Command;
use super::{observe, plan, skeleton};
use crate::error::chain;
use crate::state;

/// In the state directory.
const FILE: &str = "rules.json";
/// Raised when what the file holds can no longer be loaded by a newer version.
const FORMAT: u32 = 1;

/// What makes the table from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    format: u32,
    /// nft's text; see `super::skeleton`.
    skeleton: String,
    /// nft's JSON, one transaction.
    commands: Vec<Command>,
}

/// How a boot was made safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// The table stood already.
    Stood,
    /// The rules that were good last.
    LastGood,
    /// Rules that let nothing through but what is for the bastion itself.
    Closed,
}

impl Kept {
    /// Of a table without a fast path: its interfaces need not be there yet.
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let skeleton = skeleton::missing(super::TABLE, |_, _| false).unwrap_or_default();
        Self { format: FORMAT, skeleton, commands: plan::commands(ruleset, None, None, None) }
    }

    /// Keeps it for the next boot.
    pub(super) fn write(&self, state_directory: &Path) -> Result<(), state::Error> {
        state::write_json(&state_directory.join(FILE), self)
    }

    fn read(state_directory: &Path) -> Option<Self> {
        state::read_json(&state_directory.join(FILE)).filter(|kept: &Self| kept.format == FORMAT)
    }
}

/// Forgets the rules that were good last.
pub(super) fn forget(state_directory: &Path) -> Result<(), state::Error> {
    state::remove(&state_directory.join(FILE))
}

/// Whether there is a table that filters what is forwarded: not one whose making was broken off before it had chains.
pub(super) async fn stands(nft: &Nft) -> Result<bool, Error> {
    let filters = |listing: Listing| listing.of_kind("chain").any(|chain| chain["name"] == "forward");
    Ok(observe::observe(nft).await?.is_some_and(filters))
}

/// Loads the rules that were good last, or else `closed`. A table that filters is left alone: a daemon made it. `alone`: no daemon
/// will come after this, so that nobody gets in by the tunnel.
pub async fn boot(state_directory: &Path, closed: &Ruleset, alone: bool) -> Result<Loaded, Error> {
    let nft = Nft::find()?;
    if stands(&nft).await? {
        return Ok(Loaded::Stood);
    }
    if let Some(Kept { skeleton, commands, .. }) = Kept::read(state_directory) {
        match nft.load(Some(skeleton), &commands).await {
            Ok(()) if stands(&nft).await? => {
                open_ssh(&nft, closed).await;
                if alone {
                    open_ssh_without_tunnel(&nft).await;
                }
                return Ok(Loaded::LastGood);
            }
            Ok(()) => {
                tracing::warn!(
                    component = "nat",
                    "the rules that were good last are not whole; the gate is shut instead"
                );
            }
            Err(error) => {
                tracing::warn!(component = "nat", %error, "the rules that were good last cannot be loaded; the gate is shut instead");
            }
        }
    }
    let (text, commands) = plan::anew(closed);
    nft.load(Some(text), &commands).await?;
    Ok(Loaded::Closed)
}

/// Opens the ports that sshd has been moved to since the rules were kept: the daemon might not start, and somebody has to get in to
/// see why.
async fn open_ssh(nft: &Nft, closed: &Ruleset) {
    if let Err(error) = nft.apply(&plan::additions(closed, "ssh_ports")).await {
        tracing::warn!(component = "nat", error = %chain(&error), "SSH is open on the ports of before only");
    }
}

/// Opens SSH as the rules would have it if they did not leave it to the tunnel, which nobody carries: somebody has to get in to see
/// why. For new connections, since those that stand are not to be counted as tries.
async fn open_ssh_without_tunnel(nft: &Nft) {
    let is_way = |rule: &serde_json::Value| rule["chain"] == "input" && rule.to_string().contains("\"ssh_logins\"");
    let has_way = |listing: &Listing| listing.of_kind("rule").any(is_way);
    let rule = |source: &str, ending: u8| {
        format!(
            "insert rule inet {} input ct state new {source} saddr @ssh_from{ending} tcp dport @ssh_ports goto ssh_logins\n",
            super::TABLE
        )
    };
    let opened = match observe::observe(nft).await {
        Ok(observed) if observed.as_ref().is_some_and(has_way) => return,
        Ok(_) => nft.run(&["-f", "-"], Some(rule("ip", 4) + &rule("ip6", 6))).await.map(drop),
        Err(error) => Err(error),
    };
    match opened {
        Ok(()) => tracing::warn!(component = "nat", "no daemon will carry the tunnel, so that SSH is open without it"),
        Err(error) => {
            tracing::error!(component = "nat", error = %chain(&error), "SSH stays shut: the rules leave it to the tunnel, which no daemon will carry");
        }
    }
}
