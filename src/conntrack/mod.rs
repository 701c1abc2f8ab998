//! Live flows: those that lose their permission end, and how many there are is told.
//!
//! Rules decide about the first packet of a flow; whatever belongs to a flow that the kernel knows passes by the first
//! rule. So a forward, a line of an access list or a peer that goes away would go on serving those who use it. This
//! room remembers what was allowed, and when something else is, it looks through the kernel's flows and has it forget
//! those that were allowed and are no more: their next packets are judged as first ones.
//!
//! It never ends a flow that the former policy did not allow, SSH to the bastion, or the tunnel's own packets.

mod apply;
mod forwards;
mod judge;
mod lookup;
mod model;
mod observe;
mod plan;
mod policy;
mod port_use;
mod socket;
mod status;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

pub use apply::Ender;
pub use judge::Judge;
pub use model::{Block, Ends, Flow, Status, Tuple, Way};
pub use observe::{Counters, Fill, counters, fill, flows};
pub use plan::{Reason, end};
pub use policy::Policy;
pub use port_use::{Count, PortReport, PortUse, Share};
pub use socket::Error;
pub use status::FlowsReport;

use crate::config::Config;
use crate::error::chain;
use crate::inputs::Tunnel;
use crate::outcome::{Outcome, Problem, State};
use crate::site::Site;
use crate::state;

/// What the room keeps between passes: what was allowed when it last looked through the flows. It is kept in the
/// runtime directory too, so that a daemon that starts with another configuration ends what that takes back.
#[derive(Debug)]
pub struct Conntrack {
    memory: Option<Policy>,
    path: PathBuf,
    settings: PathBuf,
    account: Option<FlowsReport>,
    count: Option<JoinHandle<Result<PortReport, Error>>>,
    count_began: Option<Instant>,
}

/// How many flows ended, and why.
type Ended = BTreeMap<Reason, u64>;

/// What is done with flows that have lost their permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    End,
    Count,
}

impl Conntrack {
    /// Remembers what a daemon before this one left in `runtime_directory`.
    pub fn remembered_in(runtime_directory: &Path) -> Self {
        let path = runtime_directory.join("flows.json");
        Self {
            memory: state::read_json(&path),
            path,
            settings: PathBuf::from("/proc/sys"),
            account: None,
            count: None,
            count_began: None,
        }
    }

    /// Ends the flows that have lost their permission since the last time. To be called when the rules stand: a flow
    /// that ends before would begin anew by the old ones.
    pub async fn follow(&mut self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Outcome {
        let Some(policy) = Policy::of(config, site, tunnel, self.memory.as_ref()) else {
            return Outcome::unchanged(State::HeldBack, "flows are looked through once the public link has an address");
        };
        let problems = self.account.iter().flat_map(FlowsReport::problems).collect();
        let standing = Outcome { problems, ..Outcome::unchanged(State::Ok, "live flows follow the rules") };
        if self.memory.as_ref() == Some(&policy) {
            return standing;
        }
        let (ended, result) = self.look_through(policy, Mode::End).await;
        let changes = told(&ended).map(|ended| format!("live flows ended: {ended}")).into_iter().collect();
        match result {
            Ok(policy) => {
                if let Err(error) = state::write_json(&self.path, &policy) {
                    // Only a daemon that starts with another configuration will miss it.
                    tracing::warn!(component = "flows", error = %chain(&error), "go on without");
                }
                self.memory = Some(policy);
                Outcome { changes, ..standing }
            }
            Err(error) => {
                let mut failed = Outcome::failed(&error, error.advice());
                failed.problems.extend(standing.problems);
                Outcome { changes, ..failed }
            }
        }
    }

    /// What [`Conntrack::follow`] would do.
    pub async fn preview(
        &self,
        config: &Config,
        site: &Site,
        tunnel: Option<&Tunnel>,
    ) -> Result<Option<String>, Error> {
        let policy = Policy::of(config, site, tunnel, self.memory.as_ref());
        let Some(policy) = policy.filter(|policy| self.memory.as_ref() != Some(policy)) else { return Ok(None) };
        let (ended, result) = self.look_through(policy, Mode::Count).await;
        result.map(|_| told(&ended).map(|ended| format!("end live flows: {ended}")))
    }

    /// Looks through the flows, on a thread of its own; what ended, and the new policy back if all of it could be done.
    async fn look_through(&self, new: Policy, mode: Mode) -> (Ended, Result<Policy, Error>) {
        if self.memory.is_none() && new.redirects_nothing() {
            // Nothing was allowed by us, and nothing is in the way of what is now.
            return (Ended::new(), Ok(new));
        }
        let old = self.memory.clone().unwrap_or_default();
        let work = spawn_blocking(move || {
            let mut ended = Ended::new();
            let result = look_through(&old, &new, mode, &mut ended);
            (ended, result.map(|()| new))
        });
        work.await.unwrap_or_else(|error| (Ended::new(), Err(Error::BrokenOff(error))))
    }

    /// Brings the account of the flows up to the moment, and begins to count ports when that is due; the count is told
    /// by the first call after it is over.
    pub async fn look(&mut self, now: Instant) {
        let Some(fill) = fill(&self.settings) else {
            self.account = None;
            return;
        };
        // What fails here fails for `follow` too, which tells it.
        let counters = spawn_blocking(counters).await.ok().and_then(Result::ok);
        let mut ports = self.account.take().and_then(|account| account.ports);
        if self.count.as_ref().is_some_and(JoinHandle::is_finished) {
            if let Some(count) = self.count.take() {
                ports = count.await.ok().and_then(Result::ok);
            }
        }
        if self.count.is_none() && port_use::is_due(fill.entries, self.count_began, now) {
            self.count_began = Some(now);
            self.count = Some(spawn_blocking(count_ports));
        }
        let ports = ports.filter(|_| port_use::is_worthwhile(fill.entries));
        self.account = Some(FlowsReport { fill, counters, ports });
    }

    /// The account as of the last look; `None` while the kernel tracks no flows.
    pub fn account(&self) -> Option<&FlowsReport> {
        self.account.as_ref()
    }

    /// Forgets what was allowed. Flows live on until they end by themselves: without rules there is nothing to follow.
    pub fn remove(&mut self) -> (Vec<String>, Vec<Problem>) {
        self.memory = None;
        match state::remove(&self.path) {
            Ok(()) => (Vec::new(), Vec::new()),
            Err(error) => (Vec::new(), vec![Problem::new(chain(&error), "remove the file by hand")]),
        }
    }
}

/// Looks through the flows of the calling thread's network namespace, and notes in `account` what was done. Blocks.
fn look_through(old: &Policy, new: &Policy, mode: Mode, account: &mut Ended) -> Result<(), Error> {
    let (old, new) = (Judge::of(old), Judge::of(new));
    let mut ender = Ender::open()?;
    flows(|flow| {
        if let Some(reason) = end(&old, &new, flow) {
            if mode == Mode::Count || ender.end(flow)? {
                *account.entry(reason).or_default() += 1;
            }
        }
        Ok(())
    })?;
    ender.finish()
}

fn count_ports() -> Result<PortReport, Error> {
    let mut count = Count::default();
    flows(|flow| {
        count.see(flow);
        Ok(())
    })?;
    Ok(count.finish(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())))
}

fn told(ended: &Ended) -> Option<String> {
    let parts: Vec<String> = ended.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests;
