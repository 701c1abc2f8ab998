//! What the last good rules were made of, kept over a reboot. The rules are made of it again and loaded before the
//! network is up, so that no packet is forwarded without rules.
//!
//! The file holds links, addresses and ranges, and no rule: root or a later version may read it, and what it makes of
//! the file is never more than rules of this table. The configuration is the one that was applied last, or else that of
//! the configuration file.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::desired::Machine;
use super::model::{Ruleset, TABLE};
use super::nft::{Error, Nft};
use super::observe::{self, Listing};
use super::{apply, command, declarations, desired, plan};
use crate::config::Config;
use crate::error::chain;
use crate::inputs::{Inputs, Tunnel};
use crate::net::InterfaceName;
use crate::site::{PrivateLink, PublicLink, Site};
use crate::state;

/// In the state directory.
const FILE: &str = "rules.json";
/// Raised when a newer version can no longer read what the file holds. Version 0.1.0 kept nft's text, as format 1.
const FORMAT: u32 = 2;
/// The most private links. Hetzner attaches a server to three networks; bridges and dedicated servers may have more.
const MAX_LINKS: usize = 256;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct BootRules {
    format: u32,
    public: Option<PublicLink>,
    private: Vec<PrivateLink>,
    elsewhere: Vec<Ipv4Net>,
    broadcasts: BTreeSet<Ipv4Addr>,
    sshd_ports: BTreeSet<u16>,
    #[serde(default)]
    dhcp_links: BTreeSet<InterfaceName>,
    tunnel: Option<Tunnel>,
}

impl BootRules {
    /// Whether the daemon could have written it.
    fn is_plausible(&self) -> bool {
        let ranges: Vec<Ipv4Net> = self.private.iter().flat_map(PrivateLink::ranges).collect();
        let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
        let is_disjoint =
            |(index, range): (usize, &Ipv4Net)| !ranges[..index].iter().any(|other| overlap(range, other));
        self.format == FORMAT
            && self.private.len() <= MAX_LINKS
            && ranges.iter().all(|range| range.prefix_len() > 0)
            && ranges.iter().enumerate().all(is_disjoint)
    }

    fn ruleset(self, config: &Config, machine: Machine) -> Ruleset {
        let Self { format: _, public, private, elsewhere, broadcasts, sshd_ports, dhcp_links, tunnel } = self;
        let site = Site { public, private, elsewhere, dhcp_links, broadcasts, sshd_ports, ..Site::default() };
        let tunnel = tunnel.filter(|_| config.wireguard.is_some());
        desired::desired(config, &site, tunnel.as_ref(), machine)
    }
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

/// Keeps what the rules are made of for the next boot.
pub(super) fn write(inputs: &Inputs<'_>, state_directory: &Path) -> Result<(), state::Error> {
    let Site { public, private, elsewhere, broadcasts, sshd_ports, dhcp_links, .. } = inputs.site.clone();
    let tunnel = inputs.tunnel.cloned();
    let rules = BootRules { format: FORMAT, public, private, elsewhere, broadcasts, sshd_ports, dhcp_links, tunnel };
    state::write_json(&state_directory.join(FILE), &rules)
}

/// `None` if there is nothing, or nothing that this version could have written.
fn read(state_directory: &Path) -> Option<BootRules> {
    state::read_json(&state_directory.join(FILE)).filter(BootRules::is_plausible)
}

/// The commands for nft, as JSON, that load the rules which the file's content is made into; `None` if this version
/// could not have written it.
pub fn boot_commands(content: &[u8], config: &Config) -> Option<String> {
    let rules: BootRules = serde_json::from_slice(content).ok().filter(BootRules::is_plausible)?;
    let ruleset = rules.ruleset(config, Machine::of_this_process());
    Some(command::document(&plan::commands(&ruleset, None, None, None), TABLE))
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

/// Loads the last good rules, made of `applied`, the configuration that was applied last. Without them it loads the
/// rules of `config` on a server whose links are not known, `closed_site`: they forward nothing. A table that filters
/// stays as it is: a daemon made it. With `without_daemon` no daemon will start after this, so SSH is opened even where
/// it is meant for the tunnel only.
pub async fn load_boot_rules(
    state_directory: &Path,
    applied: Option<&Config>,
    config: &Config,
    closed_site: &Site,
    without_daemon: bool,
) -> Result<LoadedRules, Error> {
    let nft = Nft::find()?;
    if is_filtering(&nft).await? {
        return Ok(LoadedRules::Existing);
    }
    // The daemon runs as the same user.
    let machine = Machine::of_this_process();
    let closed = desired::desired(config, closed_site, None, machine);
    if let Some(rules) = read(state_directory) {
        let commands = plan::commands(&rules.ruleset(applied.unwrap_or(config), machine), None, None, None);
        match nft.load(&declarations::all(), &commands).await {
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
