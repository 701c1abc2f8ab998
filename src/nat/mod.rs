//! `table inet bastiond`: address translation and packet filter.
//!
//! Ours is that table and nothing else. Of other tables only those chains are read that drop what we let pass, to name them in
//! the report; nothing of theirs is ever changed. Rules change in place and whole: one transaction flushes and refills them, so
//! that no packet ever meets half a rule set.

mod apply;
mod boot;
mod boxes;
mod counters;
mod desired;
mod element;
mod findings;
mod flowtable;
mod foreign;
mod model;
mod netlink;
mod nft;
mod observe;
mod plan;
mod skeleton;
mod sources;
mod status;

use std::path::{Path, PathBuf};

pub use apply::{Error, Nft};
pub use boot::{Loaded, boot};
pub use counters::{Count, counters};
pub use desired::desired;
pub use element::{Atom, Element};
pub use model::{Base, Chain, Kind, Meter, Ruleset, Set, TABLE};
pub use netlink::{concerns_our_table, table_exists};
pub use observe::Listing;
pub use plan::{Command, Memory, Plan, commands, fingerprint, plan};
pub use sources::{account, unban};
pub use status::{Ban, Bans, FirewallReport, Source, Sources};

use crate::config::{Config, Fastpath};
use crate::error::chain;
use crate::inputs::Tunnel;
use crate::outcome::{Outcome, Problem, State};
use crate::site::Site;
use crate::state;
use flowtable::Flowtable;
use foreign::Foreign;

/// What the room keeps between passes: what it applied last and how that was listed. It is kept in the runtime directory
/// too, so that a daemon that was killed and started again finds that nothing has changed.
#[derive(Debug)]
pub struct Nat {
    memory: Option<Memory>,
    path: PathBuf,
    /// Whether the next boot has the rules that stand.
    kept: bool,
    /// Where the rules that were good last are kept over a reboot.
    state_directory: PathBuf,
    /// What the kernel has of a flowtable; asked once.
    flowtable: Option<Flowtable>,
    foreign: Foreign,
}

impl Nat {
    /// Remembers what a daemon before this one left in `runtime_directory`, and keeps good rules in `state_directory`.
    pub fn remembered_in(runtime_directory: &Path, state_directory: &Path) -> Self {
        let path = runtime_directory.join("nat.json");
        Self {
            memory: state::read_json(&path),
            path,
            // A daemon before this one may have found no room on the disk.
            kept: false,
            state_directory: state_directory.to_owned(),
            flowtable: None,
            foreign: Foreign::default(),
        }
    }

    /// Makes the table as the configuration wants it.
    pub async fn reconcile(&mut self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Outcome {
        match self.look_and_converge(config, site, tunnel).await {
            Ok((changes, repaired)) => {
                self.kept &= changes.is_empty();
                // The rules of a gateway that waits for its links are not worth a boot: those of before are.
                if !self.kept && site.public.is_some() {
                    self.kept = self.keep_for_boot(config, site, tunnel);
                }
                let mut problems = findings::findings(config, site);
                let foreign = Box::pin(self.foreign.look(config, site, tunnel)).await;
                problems.extend(foreign.problems);
                let fastpath = self.flowtable.filter(|_| config.nat.fastpath != Fastpath::Off);
                Outcome { changes, repaired, problems, hints: foreign.hints, ..standing(site, tunnel, fastpath) }
            }
            Err(error) => Outcome::failed(&error, error.advice()),
        }
    }

    /// Whether it could be done.
    fn keep_for_boot(&self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> bool {
        // Without a fast path it is what was just applied.
        let applied = self.memory.as_ref().and_then(|memory| memory.ruleset.as_ref());
        let kept = match applied.filter(|ruleset| ruleset.fastpath.is_empty()) {
            Some(applied) => boot::Kept::of(applied),
            None => boot::Kept::of(&desired(config, site, tunnel, false)),
        };
        let written = kept.write(&self.state_directory);
        if let Err(error) = &written {
            tracing::warn!(component = "nat", error = %chain(error), "the next boot will load older rules, or none");
        }
        written.is_ok()
    }

    /// Loads the rules if no table stands, and lets one that stands be: for the time before the site is known.
    pub async fn close_if_absent(&mut self, config: &Config, site: &Site) -> Result<(), Error> {
        let nft = Nft::find()?;
        if !boot::stands(&nft).await? {
            let observed = observe::observe(&nft).await?;
            self.converge(&nft, &desired(config, site, None, false), observed).await?;
        }
        Ok(())
    }

    async fn look_and_converge(
        &mut self,
        config: &Config,
        site: &Site,
        tunnel: Option<&Tunnel>,
    ) -> Result<(Vec<String>, bool), Error> {
        let desired = &desired(config, site, tunnel, self.fastpath(config).await?);
        // Asked before the look: what is changed after it has another generation.
        let generation = netlink::generation().ok();
        let same = |memory: &Memory| memory.generation == generation && memory.ruleset.as_ref() == Some(desired);
        if generation.is_some() && self.memory.as_ref().is_some_and(same) {
            return Ok((Vec::new(), false));
        }
        let nft = Nft::find()?;
        let untouched = |memory: &&Memory| generation.is_some() && memory.generation == generation;
        let observed = match self.memory.as_ref().filter(untouched) {
            // What is there need not be listed again to be known.
            Some(memory) => Some(memory.listing.clone()),
            None => observe::observe(&nft).await?,
        };
        let done = self.converge(&nft, desired, observed).await?;
        if let Some(memory) = self.memory.as_mut().filter(|_| done.0.is_empty()) {
            memory.generation = generation;
            memory.ruleset = Some(desired.clone());
        }
        Ok(done)
    }

    /// Whether established flows take the kernel's short way.
    async fn fastpath(&mut self, config: &Config) -> Result<bool, Error> {
        if config.nat.fastpath == Fastpath::Off {
            return Ok(false);
        }
        let flowtable = match self.flowtable {
            Some(known) => known,
            None => *self.flowtable.insert(Flowtable::of_kernel(&Nft::find()?).await?),
        };
        Ok(flowtable.is_wanted(config.nat.fastpath))
    }

    /// Makes the observed table as desired: what was changed, and whether that undid somebody else's change.
    async fn converge(
        &mut self,
        nft: &Nft,
        desired: &Ruleset,
        observed: Option<Listing>,
    ) -> Result<(Vec<String>, bool), Error> {
        let plan = plan(desired, observed.as_ref(), self.memory.as_ref());
        let Plan::Replace { reasons, drifted, skeleton, commands } = plan else {
            return Ok((Vec::new(), false));
        };
        match nft.load(skeleton, &commands).await {
            // Something in our table is in the way that we do not know of. Without it the flows go on, only the counters
            // start anew.
            // Rules that are refused there as well must not cost those that stand.
            Err(Error::Refused { complaint, .. }) if observed.is_some() => {
                nft.would_load(desired).await?;
                tracing::warn!(component = "nat", complaint, "the table cannot be changed in place; it is made anew");
                let (text, commands) = plan::anew(desired);
                nft.load(Some(text), &commands).await?;
            }
            applied => applied?,
        }
        // What is read back is believed from now on, so nobody's change may have slipped in between.
        self.memory = None;
        let generation = netlink::generation().ok();
        let listing = observe::observe(nft).await?.filter(|listing| plan::holds(desired, listing));
        self.memory = Some(Memory {
            fingerprint: plan::fingerprint(desired),
            listing: listing.ok_or(Error::Disturbed)?,
            meters: desired.meters.iter().map(|meter| (meter.name.to_owned(), meter.limit)).collect(),
            generation,
            ruleset: Some(desired.clone()),
        });
        if let Err(error) = state::write_json(&self.path, &self.memory) {
            // The next start will replace the rules by the same ones; no packet notices.
            tracing::warn!(component = "nat", error = %chain(&error), "go on without");
        }
        Ok((reasons, drifted))
    }

    /// What the next pass would do.
    pub async fn preview(&self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Result<Vec<String>, Error> {
        let observed = observe::observe(&Nft::find()?).await?;
        let fastpath = self.flowtable.is_some_and(|flowtable| flowtable.is_wanted(config.nat.fastpath));
        Ok(match plan(&desired(config, site, tunnel, fastpath), observed.as_ref(), self.memory.as_ref()) {
            Plan::Keep => Vec::new(),
            Plan::Replace { reasons, .. } => {
                reasons.into_iter().map(|reason| format!("replace the rules of table inet {TABLE}: {reason}")).collect()
            }
        })
    }

    /// Removes the table, and what is remembered of it.
    pub async fn remove(&mut self) -> (Vec<String>, Vec<Problem>) {
        self.memory = None;
        let removed = async {
            let nft = Nft::find()?;
            if observe::observe(&nft).await?.is_none() {
                return Ok(Vec::new());
            }
            nft.apply(&[plan::deletion()]).await?;
            Ok(vec![format!("table inet {TABLE} removed")])
        };
        let (changes, mut problems) = match removed.await {
            Ok(changes) => (changes, Vec::new()),
            Err(error) => {
                let error: Error = error;
                (Vec::new(), vec![Problem::new(chain(&error), error.advice())])
            }
        };
        for removed in [state::remove(&self.path), boot::forget(&self.state_directory)] {
            problems.extend(removed.err().map(|error| Problem::new(chain(&error), "remove the file by hand")));
        }
        (changes, problems)
    }
}

/// The table stands.
fn standing(site: &Site, tunnel: Option<&Tunnel>, fastpath: Option<Flowtable>) -> Outcome {
    let networks: Vec<String> = site.private.iter().map(|link| link.network.to_string()).collect();
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
            let tunnel = tunnel.map_or_else(String::new, desired::told);
            let fastpath = fastpath.map_or_else(String::new, |flowtable| format!("; fast path: {flowtable}"));
            Outcome::unchanged(State::Ok, format!("{detail}{tunnel}{fastpath}"))
        }
    }
}

#[cfg(test)]
mod tests;
