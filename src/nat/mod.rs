//! `table inet bastiond`: address translation and packet filter.
//!
//! Ours is that table and nothing else; other tables are neither read nor named. Rules change in place and whole: one
//! transaction flushes and refills them, so that no packet ever meets half a rule set.

mod apply;
mod boxes;
mod desired;
mod element;
mod model;
mod netlink;
mod nft;
mod observe;
mod plan;
mod skeleton;

use std::path::{Path, PathBuf};

pub use apply::{Error, Nft};
pub use desired::{JOURNAL_GROUP, desired};
pub use element::{Atom, Element};
pub use model::{Base, Chain, Kind, Meter, Ruleset, Set, TABLE};
pub use netlink::{concerns_our_table, table_exists};
pub use observe::Listing;
pub use plan::{Memory, Plan, commands, fingerprint, plan};

use crate::config::Config;
use crate::report::{Outcome, Problem, State, chain};
use crate::site::Site;
use crate::state;
use crate::wireguard::model::Tunnel;

/// What the room keeps between passes: what it applied last and how that was listed. It is kept in the runtime directory
/// too, so that a daemon that was killed and started again finds that nothing has changed.
#[derive(Debug)]
pub struct Nat {
    memory: Option<Memory>,
    path: PathBuf,
}

impl Nat {
    /// Remembers what a daemon before this one left in `runtime_directory`.
    pub fn remembered_in(runtime_directory: &Path) -> Self {
        let path = runtime_directory.join("nat.json");
        Self { memory: state::read_json(&path), path }
    }

    /// Makes the table as the configuration wants it.
    pub async fn reconcile(&mut self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Outcome {
        match self.look_and_converge(&desired(config, site, tunnel, false)).await {
            Ok((changes, repaired)) => Outcome { changes, repaired, ..standing(site, tunnel) },
            Err(error) => Outcome::failed(&error, error.advice()),
        }
    }

    /// Loads the rules if no table stands, and lets one that stands be: for the time before the site is known.
    pub async fn close_if_absent(&mut self, config: &Config, site: &Site) -> Result<(), Error> {
        let nft = Nft::find()?;
        if observe::observe(&nft).await?.is_none() {
            self.converge(&nft, &desired(config, site, None, false), None).await?;
        }
        Ok(())
    }

    async fn look_and_converge(&mut self, desired: &Ruleset) -> Result<(Vec<String>, bool), Error> {
        // Asked before the look: what is changed after it has another generation.
        let generation = netlink::generation().ok();
        let same = |memory: &Memory| memory.generation == generation && memory.ruleset.as_ref() == Some(desired);
        if generation.is_some() && self.memory.as_ref().is_some_and(same) {
            return Ok((Vec::new(), false));
        }
        let nft = Nft::find()?;
        let observed = observe::observe(&nft).await?;
        let done = self.converge(&nft, desired, observed).await?;
        if let Some(memory) = self.memory.as_mut().filter(|_| done.0.is_empty()) {
            memory.generation = generation;
            memory.ruleset = Some(desired.clone());
        }
        Ok(done)
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
            Err(Error::Refused { complaint, .. }) if observed.is_some() => {
                tracing::warn!(room = "nat", complaint, "the table cannot be changed in place; it is made anew");
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
            tracing::warn!(room = "nat", error = %chain(&error), "go on without");
        }
        Ok((reasons, drifted))
    }

    /// What the next pass would do.
    pub async fn preview(&self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Result<Vec<String>, Error> {
        let observed = observe::observe(&Nft::find()?).await?;
        Ok(match plan(&desired(config, site, tunnel, false), observed.as_ref(), self.memory.as_ref()) {
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
            nft.apply(&[serde_json::json!({"delete": {"table": {"family": "inet", "name": TABLE}}})]).await?;
            Ok(vec![format!("table inet {TABLE} removed")])
        };
        let (changes, mut problems) = match removed.await {
            Ok(changes) => (changes, Vec::new()),
            Err(error) => {
                let error: Error = error;
                (Vec::new(), vec![Problem::new(chain(&error), error.advice())])
            }
        };
        if let Err(error) = state::remove(&self.path) {
            problems.push(Problem::new(chain(&error), "remove the file by hand"));
        }
        (changes, problems)
    }
}

/// The table stands.
fn standing(site: &Site, tunnel: Option<&Tunnel>) -> Outcome {
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
            Outcome::unchanged(State::Ok, format!("{detail}{}", tunnel.map_or_else(String::new, desired::told)))
        }
    }
}

#[cfg(test)]
mod tests;
