//! `table inet bastiond`: address translation and packet filter.
//!
//! Ours is that table and nothing else; other tables are neither read nor named. Rules change in place and whole: one
//! transaction flushes and refills them, so that no packet ever meets half a rule set.

mod apply;
mod events;
mod model;
mod nft;
mod observe;
mod plan;

use std::path::{Path, PathBuf};

pub use apply::{Error, Nft};
pub use events::concerns_our_table;
pub use model::{Base, Chain, Ruleset, Set, TABLE, desired};
pub use observe::Listing;
pub use plan::{Memory, Plan, commands, plan};

use crate::config::Config;
use crate::report::{Outcome, Problem, State, chain};
use crate::site::Site;
use crate::state;

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
    pub async fn reconcile(&mut self, config: &Config, site: &Site) -> Outcome {
        let Some(desired) = desired(config, site) else {
            return Outcome::unchanged(State::Waiting, "the public interface is not known yet");
        };
        match self.converge(&desired).await {
            Ok((changes, repaired)) => Outcome { changes, repaired, ..standing(site) },
            Err(error) => Outcome::failed(&error, error.advice()),
        }
    }

    async fn converge(&mut self, desired: &Ruleset) -> Result<(Vec<String>, bool), Error> {
        let nft = Nft::find()?;
        let observed = observe::observe(&nft).await?;
        let Plan::Replace { reasons, drifted, commands } = plan(desired, observed.as_ref(), self.memory.as_ref())
        else {
            return Ok((Vec::new(), false));
        };
        nft.apply(&commands).await?;
        let applied = plan::commands(desired, None);
        self.memory = observe::observe(&nft).await?.map(|listing| Memory { applied, listing });
        if let Err(error) = state::write_json(&self.path, &self.memory) {
            // The next start will replace the rules by the same ones; no packet notices.
            tracing::warn!(room = "nat", error = %chain(&error), "go on without");
        }
        Ok((reasons, drifted))
    }

    /// What the next pass would do.
    pub async fn preview(&self, config: &Config, site: &Site) -> Result<Vec<String>, Error> {
        let Some(desired) = desired(config, site) else { return Ok(Vec::new()) };
        let observed = observe::observe(&Nft::find()?).await?;
        Ok(match plan(&desired, observed.as_ref(), self.memory.as_ref()) {
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
fn standing(site: &Site) -> Outcome {
    let networks: Vec<String> = site.private.iter().map(|link| link.network.to_string()).collect();
    let public = site.public.as_ref().map_or("", |link| link.interface.as_str());
    let detail = match networks.as_slice() {
        [] => format!("table inet {TABLE} stands, closed: no private network yet"),
        networks => format!("table inet {TABLE} stands: {} out by {public}", networks.join(", ")),
    };
    Outcome::unchanged(State::Ok, detail)
}

#[cfg(test)]
mod tests;
