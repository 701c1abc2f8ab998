//! The last good rules, kept over a reboot. They are loaded before the network is up, so that no packet is forwarded
//! without rules.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::command::Command;
use super::model::{Ruleset, TABLE};
use super::nft::{Error, Nft};
use super::observe::{self, Listing};
use super::{apply, declarations, desired, plan};
use crate::config::Config;
use crate::error::chain;
use crate::site::Site;
use crate::state;

/// In the state directory.
const FILE: &str = "rules.json";
/// Raised when a newer version can no longer load what the file holds.
const FORMAT: u32 = 1;

/// The file's content: what makes the table from nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BootRules {
    format: u32,
    /// The declarations in nft's text syntax; see `super::declarations`.
    #[serde(rename = "skeleton")]
    declarations: String,
    /// The commands of one transaction in nft's JSON.
    commands: Vec<String>,
}

/// Which rules stand after [`load_boot_rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadedRules {
    /// Those of the table that was already there.
    Existing,
    /// The last good ones.
    LastGood,
    /// Rules that forward nothing and let in only what is for the bastion itself.
    Closed,
}

/// Keeps rules for the next boot. They have no fast path: its interfaces may not be there that early.
pub(super) fn write(ruleset: &Ruleset, state_directory: &Path) -> Result<(), state::Error> {
    let text = |command: &Command| {
        let mut text = String::new();
        command.write(TABLE, &mut text);
        text
    };
    let rules = BootRules {
        format: FORMAT,
        declarations: declarations::text(&declarations::all(), TABLE).unwrap_or_default(),
        commands: plan::commands(ruleset, None, None, None).iter().map(text).collect(),
    };
    state::write_json(&state_directory.join(FILE), &rules)
}

/// `None` if there are none, or of a format that this version does not know.
fn read(state_directory: &Path) -> Option<BootRules> {
    state::read_json(&state_directory.join(FILE)).filter(|rules: &BootRules| rules.format == FORMAT)
}

/// Removes the rules that were kept.
pub(super) fn remove(state_directory: &Path) -> Result<(), state::Error> {
    state::remove(&state_directory.join(FILE))
}

/// Whether there is a table that filters what is forwarded. One whose making was interrupted has no chain yet, and does
/// not.
pub(super) async fn is_filtering(nft: &Nft) -> Result<bool, Error> {
    let filters = |listing: Listing| listing.of_kind("chain").any(|chain| chain["name"] == "forward");
    Ok(observe::list_table(nft).await?.is_some_and(filters))
}

/// Loads the last good rules, or else the rules of `config` on a server whose links are not known, `closed_site`: they
/// forward nothing. A table that filters stays as it is: a daemon made it. With `without_daemon` no daemon will start
/// after this, so SSH is opened even where it is meant for the tunnel only.
pub async fn load_boot_rules(
    state_directory: &Path,
    config: &Config,
    closed_site: &Site,
    without_daemon: bool,
) -> Result<LoadedRules, Error> {
    let nft = Nft::find()?;
    if is_filtering(&nft).await? {
        return Ok(LoadedRules::Existing);
    }
    let closed = desired::desired(config, closed_site, None, false);
    if let Some(rules) = read(state_directory) {
        match load(&nft, rules).await {
            Ok(()) if is_filtering(&nft).await? => {
                open_ssh_ports(&nft, &closed).await;
                if without_daemon {
                    open_ssh_without_tunnel(&nft).await;
                }
                return Ok(LoadedRules::LastGood);
            }
            Ok(()) => {
                tracing::warn!(component = "nat", "the last good rules are incomplete; nothing is forwarded");
            }
            Err(error) => {
                tracing::warn!(component = "nat", %error, "the last good rules cannot be loaded; nothing is forwarded");
            }
        }
    }
    apply::recreate(&nft, &closed).await?;
    Ok(LoadedRules::Closed)
}

async fn load(nft: &Nft, rules: BootRules) -> Result<(), Error> {
    nft.run_text(rules.declarations).await?;
    nft.apply_document(format!("{{\"nftables\":[{}]}}", rules.commands.join(","))).await
}

/// Opens the ports that sshd has been moved to since the rules were kept: if the daemon does not start, the operator
/// has to log in to see why.
async fn open_ssh_ports(nft: &Nft, closed: &Ruleset) {
    if let Err(error) = nft.apply(&plan::additions(closed, "ssh_ports")).await {
        tracing::warn!(component = "nat", error = %chain(&error), "SSH is open on its earlier ports only");
    }
}

/// Opens SSH as the rules would do if they did not leave it to the tunnel, which does not run without a daemon: the
/// operator has to log in to see why. Only new connections meet this rule, since packets of existing ones must not
/// count as log-in attempts.
async fn open_ssh_without_tunnel(nft: &Nft) {
    let is_ssh = |rule: &serde_json::Value| rule["chain"] == "input" && rule.to_string().contains("\"ssh_logins\"");
    let has_ssh = |listing: &Listing| listing.of_kind("rule").any(is_ssh);
    let rule = |source: &str, ending: u8| {
        format!(
            "insert rule inet {TABLE} input ct state new {source} saddr @ssh_from{ending} tcp dport @ssh_ports goto \
             ssh_logins\n"
        )
    };
    let opened = match observe::list_table(nft).await {
        Ok(observed) if observed.as_ref().is_some_and(has_ssh) => return,
        Ok(_) => nft.run_text(rule("ip", 4) + &rule("ip6", 6)).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(()) => tracing::warn!(component = "nat", "no daemon will run the tunnel, so SSH is open without it"),
        Err(error) => {
            tracing::error!(
                component = "nat",
                error = %chain(&error),
                "SSH stays closed: the rules leave it to the tunnel, and no daemon will run that"
            );
        }
    }
}
