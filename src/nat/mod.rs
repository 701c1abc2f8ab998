//! `table inet bastiond`: address translation and packet filter.
//!
//! Owns that table and nothing else. Of other tables it reads only the chains that drop what ours lets pass, to name
//! them in the report; it never changes them. Rules change in place and all at once: one transaction flushes and
//! refills them, so that no packet ever meets half a rule set.

mod apply;
mod boot_rules;
mod command;
mod counters;
mod declarations;
mod desired;
mod disjoint;
mod drift;
mod element;
mod flowtable;
mod foreign;
mod listed_set;
mod model;
mod netlink;
mod nft;
mod observe;
mod plan;
mod portless;
mod site_conflicts;
mod sources;
mod statement;
mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;

pub use boot_rules::{LoadedRules, boot_commands, load_boot_rules};
#[cfg(test)]
pub(crate) use counters::Count;
pub use counters::counters_in;
pub(crate) use counters::{PortCount, tunnel_port_count};
pub(crate) use desired::{ProbedHosts, ProbedPath, is_probe_interface, probed_paths};
pub use foreign::{ForwardPath, Packets, forward_paths, judge_listings};
pub(crate) use netlink::table_filters;
pub use netlink::{changes_rules, concerns_our_table};
pub(crate) use nft::Error;
pub(crate) use plan::Plan;
pub(crate) use portless::portless_senders;
pub(crate) use sources::{firewall_report, unban};
pub(crate) use status::Ban;
#[cfg(test)]
pub(crate) use status::{Bans, Source};
pub use status::{FirewallReport, Sources};

use tokio::time::Instant;

use crate::component::{Component, Steps};
use crate::config::{Config, Fastpath};
use crate::error::chain;
use crate::inputs::{Inputs, Tunnel};
use crate::net::InterfaceName;
use crate::outcome::{ComponentName, Outcome, Problem, State};
use crate::site::{PrivateLink, Site};
use crate::state;
use command::Command;
use desired::Machine;
use flowtable::Flowtable;
use foreign::{DropChains, EveryPacket, ObservedDropChains};
use model::{Ruleset, TABLE};
use nft::Nft;
use observe::Listing;
use plan::{Change, LastApplied};

/// The file of [`LastApplied`] in the runtime directory.
const LAST_APPLIED_FILE: &str = "nat.json";

/// Within this duration our nat chains are registered again at most [`CONTEST_ROUNDS`] times. A table that is repaired
/// as often is contested.
const CONTEST: Duration = Duration::from_secs(60);
const CONTEST_ROUNDS: usize = 5;

/// The component, with what it remembers from pass to pass.
#[derive(Debug)]
pub struct Nat {
    /// nft words rules its own way, so drift is found by comparing a listing with the one after the last change. It is
    /// written to the runtime directory too: a daemon that is killed and started again then finds that nothing has
    /// changed.
    last_applied: Option<LastApplied>,
    last_applied_file: PathBuf,
    /// Whether the state directory holds the rules that stand, for the next boot. False at first: the daemon before
    /// this one may not have been able to write them.
    has_boot_rules: bool,
    state_directory: PathBuf,
    machine: Machine,
    /// What kind of flowtable the kernel has. It is asked once, since the kernel does not change.
    flowtable: Option<Flowtable>,
    /// What other programs drop. It is read again when the kernel says that some rule has changed.
    drop_chains: DropChains,
    /// Which chains of others see every packet, while the fast path has to know.
    every_packet: EveryPacket,
    needs_every_packet: Vec<String>,
    /// When our nat chains were registered anew, within [`CONTEST`].
    overtaken: Vec<Instant>,
    /// When the table was repaired, within [`CONTEST`].
    repaired: Vec<Instant>,
}

/// What a pass finds.
#[derive(Debug)]
pub struct Observed {
    /// The kernel's generation of all rules, read before the table; `None` if the kernel does not answer.
    generation: Option<u32>,
    table: ObservedTable,
    /// `None` if the configuration does not want a fast path, so that nothing is asked.
    flowtable: Option<Flowtable>,
    drop_chains: Arc<ObservedDropChains>,
}

#[derive(Debug)]
enum ObservedTable {
    /// The generation is the same as after the last change, so the listing is the same too.
    AsApplied,
    Listed(Listing),
    Absent,
}

impl Component for Nat {
    const NAME: ComponentName = ComponentName::Nat;
    type Observed = Observed;
    type Plan = Plan;
    type Error = Error;

    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Error> {
        let flowtable = match inputs.config.nat.fastpath {
            Fastpath::Off | Fastpath::Bpf => None,
            Fastpath::Auto | Fastpath::Flowtable => Some(self.probe_flowtable().await?),
        };
        // Asked before the table is listed: a change after that has another generation.
        let generation = netlink::generation().ok();
        let table = self.observe_table(generation).await?;
        // A table that has to be repaired does not wait for other tables: its change leads to another pass.
        let drop_chains = if self.is_intact(&table) {
            Box::pin(self.drop_chains.observe(generation)).await
        } else {
            self.drop_chains.last()
        };
        self.needs_every_packet = match inputs.config.nat.fastpath {
            Fastpath::Bpf => Box::pin(self.every_packet.observe(generation)).await,
            Fastpath::Auto | Fastpath::Flowtable | Fastpath::Off => Vec::new(),
        };
        Ok(Observed { generation, table, flowtable, drop_chains })
    }

    fn plan(&self, inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        let Inputs { config, site, tunnel, .. } = *inputs;
        let fastpath = observed.flowtable.is_some_and(|flowtable| flowtable.is_wanted(config.nat.fastpath));
        let foreign_rewrites = observed.drop_chains.rewrites_addresses();
        let machine = Machine { fastpath, foreign_rewrites, ..self.machine };
        let desired = Arc::new(desired::desired(config, site, tunnel, machine));
        let mut change = plan::change(&desired, self.listing(&observed.table), self.last_applied.as_ref());
        let foreign = observed.drop_chains.report(config, site, tunnel);
        let mut problems = site_conflicts::site_conflicts(config, site);
        problems.extend(foreign.problems);
        let mut hints = foreign.hints;
        hints.extend(site_conflicts::unreachable_sources(config, site, tunnel));
        if change.is_none() {
            let overtaking = plan::overtake(&desired, observed.drop_chains.rivals(), self.last_applied.as_ref());
            match overtaking {
                Some(overtaking) if is_contest(&self.overtaken, inputs.now) => problems.push(contest(&overtaking)),
                overtaking => change = overtaking,
            }
        }
        if is_contest(&self.repaired, inputs.now) {
            problems.push(contested_table());
        }
        Plan { desired, change, problems, hints }
    }

    async fn apply(&mut self, inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        let Inputs { config, site, tunnel, .. } = *inputs;
        let counts = plan.counts();
        let Plan { desired, change, problems, hints } = plan;
        let (mut changes, mut repaired) = (Vec::new(), false);
        if let Some(change) = change {
            tracing::debug!(component = "nat", ?counts, "the table changes");
            if let Err(error) = self.apply_change(&desired, &change, &observed.table).await {
                return Outcome::failed(&error);
            }
            self.has_boot_rules = false;
            let overtook = !change.outranks.is_empty();
            for (times, happened) in
                [(&mut self.overtaken, overtook), (&mut self.repaired, change.is_repair && !overtook)]
            {
                times.extend(happened.then_some(inputs.now));
                times.retain(|at| inputs.now.saturating_duration_since(*at) < CONTEST);
            }
            (changes, repaired) = (change.reasons, change.is_repair);
        } else if let Some(last) = &mut self.last_applied {
            last.generation = observed.generation;
            last.ruleset = Some(Arc::clone(&desired));
        }
        // The rules of a gateway that waits for its links are of no use after a boot: earlier ones are better.
        if !self.has_boot_rules && site.public.is_some() {
            self.has_boot_rules = self.write_boot_rules(inputs);
        }
        let flowtable = observed.flowtable.filter(|_| config.nat.fastpath != Fastpath::Off);
        Outcome { changes, repaired, problems, hints, ..status_of(site, tunnel, flowtable) }
    }

    async fn down(&mut self, _inputs: &Inputs<'_>) -> Steps {
        self.last_applied = None;
        let (changes, mut problems) = match delete_table().await {
            Ok(changes) => (changes, Vec::new()),
            Err(error) => (Vec::new(), vec![Problem::from_error(&error)]),
        };
        for removed in [state::remove(&self.last_applied_file), boot_rules::remove(&self.state_directory)] {
            problems.extend(
                removed.err().map(|error| Problem::new("state-file-stays", chain(&error), "remove the file by hand")),
            );
        }
        (changes, problems)
    }
}

impl Nat {
    /// Loads what an earlier daemon left in `runtime_directory`. Good rules are kept in `state_directory` for the next
    /// boot.
    pub fn load(runtime_directory: &Path, state_directory: &Path) -> Self {
        let last_applied_file = runtime_directory.join(LAST_APPLIED_FILE);
        Self {
            last_applied: state::read_json(&last_applied_file),
            last_applied_file,
            has_boot_rules: false,
            state_directory: state_directory.to_owned(),
            machine: Machine::of_this_process(),
            flowtable: None,
            drop_chains: DropChains::default(),
            every_packet: EveryPacket::default(),
            needs_every_packet: Vec::new(),
            overtaken: Vec::new(),
            repaired: Vec::new(),
        }
    }

    /// Loads the rules for `site` if no table filters yet, and leaves a table that does as it is. For the time before
    /// the site is known.
    pub async fn load_rules_if_absent(&mut self, config: &Config, site: &Site) -> Result<(), Error> {
        let nft = Nft::find()?;
        if boot_rules::is_filtering(&nft).await? {
            return Ok(());
        }
        let table = observe::list_table(&nft).await?.map_or(ObservedTable::Absent, ObservedTable::Listed);
        let desired = Arc::new(desired::desired(config, site, None, self.machine));
        match plan::change(&desired, self.listing(&table), self.last_applied.as_ref()) {
            Some(change) => self.apply_change(&desired, &change, &table).await,
            None => Ok(()),
        }
    }

    /// What of other programs' rules needs every packet, in an operator's words, as of the last observation. Known only
    /// while the configuration chooses the fast path that would bypass it.
    pub(crate) fn needs_every_packet(&self) -> Vec<String> {
        self.needs_every_packet.clone()
    }

    /// By private network: a chain of another program that knows the private link by its name, and so drops the packets
    /// of probes although it lets those of hosts pass.
    pub(crate) fn obstacles_to_probes(&self, config: &Config, site: &Site) -> BTreeMap<Ipv4Net, String> {
        let chains = self.drop_chains.last();
        let Some(public) = &site.public else { return BTreeMap::new() };
        let obstacle = |probe: &ProbedPath| {
            let link = site.private.iter().find(|link| link.network == probe.network)?;
            let directions = |inside: &InterfaceName| {
                let path = |from: &InterfaceName, to: &InterfaceName, packets| ForwardPath {
                    from: from.clone(),
                    to: to.clone(),
                    packets,
                };
                let out = path(inside, &public.interface, Packets::New(vec![link.network]));
                [out, path(&public.interface, inside, Packets::Answers)]
            };
            let pairs = directions(&link.interface).into_iter().zip(directions(&probe.interface));
            let chain = pairs.into_iter().find_map(|(known, probe)| chains.chain_that_tells_apart(&known, &probe))?;
            let (link, probe) = (&link.interface, &probe.interface);
            Some(format!("{chain} lets packets of {link} pass and not those of {probe}: let those pass as well"))
        };
        let mut paths = probed_paths(config, site);
        // All paths of a network have the same interface.
        paths.retain(|path| path.hosts == ProbedHosts::Network);
        paths.dedup_by_key(|path| path.network);
        paths.iter().filter_map(|path| Some((path.network, obstacle(path)?))).collect()
    }

    async fn probe_flowtable(&mut self) -> Result<Flowtable, Error> {
        match self.flowtable {
            Some(known) => Ok(known),
            None => Ok(*self.flowtable.insert(Flowtable::probe(&Nft::find()?).await?)),
        }
    }

    async fn observe_table(&self, generation: Option<u32>) -> Result<ObservedTable, Error> {
        let is_unchanged = |last: &LastApplied| generation.is_some() && last.generation == generation;
        if self.last_applied.as_ref().is_some_and(is_unchanged) {
            return Ok(ObservedTable::AsApplied);
        }
        Ok(observe::list_table(&Nft::find()?).await?.map_or(ObservedTable::Absent, ObservedTable::Listed))
    }

    /// Whether the table is as it was after the last change.
    fn is_intact(&self, table: &ObservedTable) -> bool {
        self.last_applied.as_ref().is_some_and(|last| self.listing(table) == Some(&last.listing))
    }

    fn listing<'a>(&'a self, table: &'a ObservedTable) -> Option<&'a Listing> {
        match table {
            ObservedTable::AsApplied => self.last_applied.as_ref().map(|last| &last.listing),
            ObservedTable::Listed(listing) => Some(listing),
            ObservedTable::Absent => None,
        }
    }

    async fn apply_change(
        &mut self,
        desired: &Arc<Ruleset>,
        change: &Change,
        table: &ObservedTable,
    ) -> Result<(), Error> {
        let nft = Nft::find()?;
        apply::apply(&nft, desired, change, !matches!(table, ObservedTable::Absent)).await?;
        // Whatever fails from here on, the listing of before is no longer true.
        let last = self.last_applied.take();
        let outranked = match change.outranks.as_slice() {
            [] => last.map(|last| last.outranked).unwrap_or_default(),
            outranks => outranks.to_vec(),
        };
        self.last_applied = Some(apply::read_back(&nft, desired, outranked).await?);
        if let Err(error) = state::write_json(&self.last_applied_file, &self.last_applied) {
            tracing::warn!(
                component = "nat",
                error = %chain(&error),
                "the next start of the daemon will replace the rules by the same rules"
            );
        }
        Ok(())
    }

    /// Whether they could be written.
    fn write_boot_rules(&self, inputs: &Inputs<'_>) -> bool {
        let written = boot_rules::write(inputs, &self.state_directory);
        if let Err(error) = &written {
            tracing::warn!(component = "nat", error = %chain(error), "the next boot will load older rules, or none");
        }
        written.is_ok()
    }
}

/// Whether another program undoes again and again what was done at these times.
fn is_contest(times: &[Instant], now: Instant) -> bool {
    times.iter().filter(|at| now.saturating_duration_since(**at) < CONTEST).count() >= CONTEST_ROUNDS
}

/// The problem of a table that another program changes again and again. It is repaired all the same.
fn contested_table() -> Problem {
    Problem::new(
        "table-contested",
        format!(
            "another program changes table inet {TABLE} again and again, and it is repaired each time: in between its \
             rules apply"
        ),
        "find it by `nft monitor` and stop it; a second bastiond on this server, with other directories, does this too \
         (pgrep -a bastiond)",
    )
}

/// The problem of a program that contests the first place.
fn contest(change: &Change) -> Problem {
    Problem::new(
        "nat-contested",
        format!(
            "{}, again and again: its program registers it anew whenever ours come first, so flows may be translated \
             by it",
            change.reasons.join(", ")
        ),
        "give that chain a priority above -199, or stop the program that registers it",
    )
}

/// Returns what was done, a line each.
async fn delete_table() -> Result<Vec<String>, Error> {
    let nft = Nft::find()?;
    if observe::list_table(&nft).await?.is_none() {
        return Ok(Vec::new());
    }
    nft.apply(&[Command::DeleteTable]).await?;
    Ok(vec![format!("table inet {TABLE} removed")])
}

/// The status of a gateway whose table is as desired.
fn status_of(site: &Site, tunnel: Option<&Tunnel>, flowtable: Option<Flowtable>) -> Outcome {
    let networks: Vec<String> =
        site.private.iter().flat_map(PrivateLink::ranges).map(|range| range.to_string()).collect();
    match (&site.public, networks.as_slice()) {
        (None, _) => {
            let detail = format!("table inet {TABLE} stands, closed: the public interface is not known yet");
            Outcome::unchanged(State::Waiting, detail)
        }
        (Some(_), []) => {
            Outcome::unchanged(State::Ok, format!("table inet {TABLE} stands, closed: no private network yet"))
        }
        (Some(public), networks) => {
            let detail = format!("table inet {TABLE} stands: {} out by {}", networks.join(", "), public.interface);
            let tunnel = tunnel.map_or_else(String::new, desired::describe_tunnel);
            let fastpath = flowtable.map_or_else(String::new, |flowtable| format!("; fast path: {flowtable}"));
            Outcome::unchanged(State::Ok, format!("{detail}{tunnel}{fastpath}"))
        }
    }
}

#[cfg(test)]
mod tests;
