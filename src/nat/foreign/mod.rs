//! What other programs on this server would drop or translate of our traffic. It is named in the report and never
//! changed.
//!
//! A packet passes only if the base chains of all tables let it, so an `accept` of ours does not help against another
//! table's `drop`. This module finds base chains that drop whatever no rule of theirs decides, in nftables and in the
//! old iptables. It does not evaluate their rules as a whole: a chain with rules like those that we would advise counts
//! as open, and the report says "unless other rules accept it".
//!
//! Other tables' sets are never listed: nft crashes on sets that a newer nft wrote, and they may be large.

mod advice;
mod drop_chain;
mod every_packet;
mod iptables_words;
mod legacy;
mod obstacle;
mod paths;
mod rule;
mod translation;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::desired::BEFORE_OTHER_NAT;
use super::nft::{Error, Nft};
use crate::config::Config;
use crate::error::chain;
use crate::inputs::Tunnel;
use crate::outcome::Problem;
use crate::site::Site;
use drop_chain::{DropChain, Hook, RuleSystem};
pub(super) use every_packet::EveryPacket;
use obstacle::Obstacle;
use paths::OpenPort;
pub use paths::{ForwardPath, Packets, forward_paths};
use translation::{Place, Translation};

/// How long `iptables-legacy` may run.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Lists the chains that drop, and remembers them.
#[derive(Debug, Default)]
pub(super) struct DropChains {
    /// The kernel's generation of all rules when the chains of nftables were listed.
    generation: Option<u32>,
    nftables: ListedChains,
    last: Arc<ObservedDropChains>,
}

/// What matters of the chains of nftables.
#[derive(Debug, Default, Clone)]
struct ListedChains {
    drop: Vec<DropChain>,
    translations: Vec<Translation>,
    rivals: Vec<String>,
    obstacles: Vec<Obstacle>,
    /// Chains with rules that nobody shows as a whole.
    hidden: Vec<String>,
}

/// The chains that drop and those that translate, of nftables and of the old iptables.
#[derive(Debug, Default)]
pub(super) struct ObservedDropChains {
    chains: Vec<DropChain>,
    translations: Vec<Translation>,
    /// The nat chains of nftables that the kernel may ask before ours.
    rivals: Vec<String>,
    /// Single rules that drop or spoil packets.
    obstacles: Vec<Obstacle>,
    /// Say that rules of iptables cannot be read.
    hidden: Vec<Problem>,
}

/// What is in the way of our packets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ForeignReport {
    /// Chains that drop what we forward.
    pub(super) problems: Vec<Problem>,
    /// Chains that may close the bastion's own ports.
    pub(super) hints: Vec<Problem>,
}

impl DropChains {
    /// Lists the chains of nftables again if a rule has changed since the last time, and those of the old iptables
    /// always: the generation does not count its rules. What cannot be listed is not reported: it may well drop
    /// nothing.
    pub(super) async fn observe(&mut self, generation: Option<u32>) -> Arc<ObservedDropChains> {
        if generation.is_none() || generation != self.generation {
            match list_chains().await {
                Ok(chains) => (self.generation, self.nftables) = (generation, chains),
                Err(error) => {
                    tracing::debug!(component = "nat", error = %chain(&error), "other tables cannot be listed");
                }
            }
        }
        let (legacy, hidden) = legacy::list_chains().await;
        let ListedChains { drop, mut translations, rivals, mut obstacles, hidden: unseen } = self.nftables.clone();
        let hidden = unseen.iter().map(|chain| obstacle::hidden_states(chain)).chain(hidden).collect();
        translations.extend(legacy::list_translations().await);
        obstacles.extend(obstacle::list_legacy().await);
        let chains = drop.into_iter().chain(legacy).collect();
        self.last = Arc::new(ObservedDropChains { chains, translations, rivals, obstacles, hidden });
        self.last()
    }

    /// Those of the last observation.
    pub(super) fn last(&self) -> Arc<ObservedDropChains> {
        Arc::clone(&self.last)
    }
}

impl ObservedDropChains {
    /// What they drop of the traffic that the configuration allows.
    pub(super) fn report(&self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> ForeignReport {
        let (paths, ports) = (forward_paths(config, site, tunnel), paths::open_ports(config, site));
        let mut report = report(&self.chains, &paths, &ports);
        let (problems, hints) = translation::report(&self.translations, config, site, tunnel);
        report.problems.extend(problems);
        report.hints.extend(hints);
        let (problems, hints) = obstacle::report(&self.obstacles, config, site, tunnel);
        report.problems.extend(problems);
        report.hints.extend(hints);
        report.hints.extend(self.hidden.clone());
        report
    }

    /// A chain that lets packets of `known` pass and not those of `unknown`, which differs from it in its interfaces.
    pub(super) fn chain_that_tells_apart(&self, known: &ForwardPath, unknown: &ForwardPath) -> Option<String> {
        let accepts = |chain: &DropChain, path| chain.rules.iter().any(|rule| rule.accepts_path(path));
        let mut forwarding = self.chains.iter().filter(|chain| matches!(chain.hook, Hook::Forward));
        forwarding.find(|chain| accepts(chain, known) && !accepts(chain, unknown)).map(advice::name_of)
    }

    /// Whether another program writes addresses into packets, past connection tracking.
    pub(super) fn rewrites_addresses(&self) -> bool {
        obstacle::rewrites_addresses(&self.obstacles)
    }

    /// The nat chains of others that the kernel may ask before ours.
    pub(super) fn rivals(&self) -> &[String] {
        &self.rivals
    }
}

async fn list_chains() -> Result<ListedChains, Error> {
    let nft = Nft::find()?;
    let listing = nft.run(&["-j", "list", "chains"], None).await?;
    let mut drop_chains = drop_chain::read_chains(&listing)?;
    for drop_chain in &mut drop_chains {
        let names = std::mem::take(&mut drop_chain.unread);
        for name in &names {
            let listed = nft.run(&["-j", "list", "chain", &drop_chain.family, &drop_chain.table, name], None).await;
            // A chain that cannot be listed counts as one without rules.
            let rules = listed.as_deref().map(accepting_rules).unwrap_or_default();
            drop_chain.rules.extend(rules);
        }
        if drop_chain.family == "ip" && drop_chain.rules.iter().any(|rule| rule.hidden_states) {
            // Only iptables itself shows which states its rules match.
            if let Some(listing) = legacy::list_nft_table(&drop_chain.table).await {
                drop_chain.rules = legacy::read_accepting_rules(&listing, &names);
            }
        }
    }
    let mut translations = Vec::new();
    for table in translation::nat_tables(&listing) {
        translations.extend(list_translations(&nft, table).await);
    }
    let mut rivals = translation::rivals(&listing, "", BEFORE_OTHER_NAT);
    if !rivals.is_empty() {
        let tables = nft.run(&["-j", "list", "tables"], None).await?;
        rivals = translation::rivals(&listing, &tables, BEFORE_OTHER_NAT);
    }
    let obstacle::Found { obstacles, hidden } = obstacle::list(&nft, &listing).await;
    Ok(ListedChains { drop: drop_chains, translations, rivals, obstacles, hidden })
}

/// The rules of a table that translate.
async fn list_translations(nft: &Nft, table: translation::NatTable) -> Vec<Translation> {
    let translation::NatTable { family, name: table, owner, chains } = table;
    let mut found = Vec::new();
    for chain in chains {
        let listed = nft.run(&["-j", "list", "chain", &family, &table, &chain], None).await.unwrap_or_default();
        let (family, table) = (family.clone(), table.clone());
        let place = Place { system: RuleSystem::Nftables, family, table, chain, owner };
        match translation::read_rules(&place, &listed) {
            Some(rules) => found.extend(rules),
            // Only iptables itself shows what its rules do.
            None => return legacy::run_iptables_on(legacy::NFT_VARIANT, RuleSystem::Nftables, &place.table).await,
        }
    }
    found
}

/// What is in the way of our packets if `text` is all that nft lists, or all that iptables lists; problems and hints, a
/// line each. Runs no program.
pub fn judge_listings(text: &str, config: &Config, site: &Site) -> Vec<String> {
    let mut chains = drop_chain::read_chains(text).unwrap_or_default();
    for chain in &mut chains {
        chain.rules = accepting_rules(text);
    }
    chains.extend(legacy::read_chains(text));
    let mut translations = translation::read_iptables(text, RuleSystem::LegacyIptables, "nat");
    for translation::NatTable { family, name: table, owner, chains } in translation::nat_tables(text) {
        let places = chains.into_iter().map(|chain| Place {
            system: RuleSystem::Nftables,
            family: family.clone(),
            table: table.clone(),
            chain,
            owner,
        });
        translations.extend(places.filter_map(|place| translation::read_rules(&place, text)).flatten());
    }
    let rivals = translation::rivals(text, text, BEFORE_OTHER_NAT);
    let observed =
        ObservedDropChains { chains, translations, rivals, obstacles: obstacle::read(text), hidden: Vec::new() };
    let ForeignReport { problems, hints } = observed.report(config, site, None);
    problems.iter().chain(&hints).map(ToString::to_string).chain(observed.rivals).collect()
}

/// The rules of a listing that accept something.
fn accepting_rules(listing: &str) -> Vec<rule::Rule> {
    objects(listing, "rule").iter().filter_map(rule::Rule::from_json).collect()
}

/// The objects of one kind in nft's listing; none if the text is no listing.
fn objects(listing: &str, kind: &str) -> Vec<Value> {
    let mut document: Value = serde_json::from_str(listing).unwrap_or_default();
    let objects = document.get_mut("nftables").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    objects.into_iter().filter_map(|mut object| object.get_mut(kind).map(Value::take)).collect()
}

/// What these chains drop of these paths, and which of these ports they may close.
fn report(drop_chains: &[DropChain], paths: &[ForwardPath], ports: &[OpenPort]) -> ForeignReport {
    let mut report = ForeignReport::default();
    for drop_chain in drop_chains {
        match drop_chain.hook {
            Hook::Forward => {
                let accepts = |path: &ForwardPath| drop_chain.rules.iter().any(|rule| rule.accepts_path(path));
                let dropped: Vec<&ForwardPath> = paths.iter().filter(|path| !accepts(path)).collect();
                report.problems.extend(advice::for_paths(drop_chain, &dropped));
            }
            Hook::Input => {
                let accepts = |port: &OpenPort| drop_chain.rules.iter().any(|rule| rule.accepts_port(port));
                let closed: Vec<&OpenPort> = ports.iter().filter(|port| !accepts(port)).collect();
                report.hints.extend(advice::for_ports(drop_chain, &closed));
            }
        }
    }
    report
}

#[cfg(test)]
mod tests;
