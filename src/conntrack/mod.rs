//! Live flows: those that lose their permission end, and the status shows how many there are.
//!
//! The nftables rules decide about the first packet of a flow; the first rule lets all packets of known flows pass. So
//! the flows of a forward, an access list's line or a peer would go on after it is removed from the configuration. This
//! component remembers what was allowed. When something else is allowed, it lists the kernel's flows and deletes those
//! that were allowed and no longer are, so that the rules decide about their next packets.
//!
//! It never ends a flow that the former policy did not allow, SSH to the bastion, or the tunnel's own packets.
//!
//! What it remembers is the policy that the live flows follow, which the kernel cannot tell: an entry of its table does
//! not say which rule let it in.

mod access;
mod answers;
mod apply;
mod collisions;
mod counting;
mod evaluator;
mod forwards;
mod lookup;
mod model;
mod observe;
mod plan;
mod policy;
mod port_use;
mod socket;
mod status;
mod wire;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

pub(crate) use answers::UnansweredForward;
pub use apply::FlowDeleter;
pub use counting::count_events;
pub(crate) use counting::{BusySource, FlowCount, LimitReason};
pub use evaluator::PolicyEvaluator;
pub use model::{BlockReason, Flow, Layer4, Permission, Status, Tuple};
pub(crate) use observe::{ConntrackUsage, FlowCounters};
pub use observe::{find_flow, for_each_flow, observe_counters};
pub use plan::EndReason;
pub(crate) use plan::{Plan, end_reason};
pub use policy::Policy;
#[cfg(test)]
pub(crate) use port_use::PortPool;
pub(crate) use port_use::{PortReport, PortUse};
pub use socket::Error;
pub(crate) use status::FlowsReport;
pub use wire::{encode_flow, parse_flow, read_answer};

use crate::component::{Component, Steps};
use crate::config::Config;
use crate::error::chain;
use crate::inputs::{FlowLimits, Inputs, PortlessSender, Tunnel};
use crate::outcome::{ComponentName, Outcome, Problem, State};
use crate::site::Site;
use crate::state;
use answers::Answers;
use collisions::Collision;
use counting::{FlowCounter, SourceNames};
use plan::{Action, FlowCounts, PolicyChange};
use port_use::PortCounter;

/// The component: what it remembers, and the newest report.
#[derive(Debug)]
pub struct Conntrack {
    /// The policy that the live flows follow; `None`: none is known. It is kept in the runtime directory too, so that
    /// a daemon that starts with another configuration ends the flows which that no longer allows.
    followed: Option<Policy>,
    /// The file of `followed`.
    path: PathBuf,
    /// `/proc/sys`.
    sysctls: PathBuf,
    report: Option<FlowsReport>,
    port_count: Option<JoinHandle<Result<PortReport, Error>>>,
    port_count_began: Option<Instant>,
    answers: Answers,
    /// The counters, and the moment for which they were read.
    counters: Option<(Instant, FlowCounters)>,
    /// How many flows had found no place when that was looked at last.
    failed_before: u64,
    collisions: Vec<Collision>,
    /// Counts flows by source, while something limits them.
    counter: Option<FlowCounter>,
    names: SourceNames,
}

/// What [`Conntrack`] observes: the policy of the moment, and the live flows that it ends.
#[derive(Debug)]
pub struct Observed {
    /// `None` while the public link has no address.
    policy: Option<Policy>,
    /// The live flows that lose their permission when `policy` takes the place of the one that they follow.
    losing: FlowCounts,
}

impl Conntrack {
    /// Loads the policy that an earlier daemon left in `runtime_directory`.
    pub fn load(runtime_directory: &Path) -> Self {
        let path = runtime_directory.join("flows.json");
        Self {
            followed: state::read_json(&path),
            path,
            sysctls: PathBuf::from("/proc/sys"),
            report: None,
            port_count: None,
            port_count_began: None,
            answers: Answers::default(),
            counters: None,
            failed_before: 0,
            collisions: Vec::new(),
            counter: None,
            names: SourceNames::default(),
        }
    }

    /// Counts flows by source as far as something limits them. Called before rules are loaded, so that no flow of
    /// theirs is missed.
    pub(crate) fn count_flows(&mut self, config: &Config, site: &Site, tunnel: Option<&Tunnel>) {
        self.names = SourceNames::new(config, site, tunnel);
        let Some(limits) = FlowLimits::new(config, site, tunnel) else {
            self.counter = None;
            return;
        };
        match &self.counter {
            Some(counter) => counter.follow(limits),
            None => match FlowCounter::start(limits, &self.sysctls) {
                Ok(counter) => self.counter = Some(counter),
                Err(error) => tracing::warn!(component = "flows", %error, "flows are not counted"),
            },
        }
    }

    /// Updates the report, and begins to count ports when that is due. A count runs beside the passes; the first update
    /// after its end contains it.
    pub async fn update_report(&mut self, now: Instant) {
        let Some(usage) = observe::observe_usage(&self.sysctls) else {
            self.report = None;
            return;
        };
        let counters = self.counters(now).await;
        let (mut ports, unanswered) =
            self.report.take().map_or_else(Default::default, |report| (report.ports, report.unanswered));
        if self.port_count.as_ref().is_some_and(JoinHandle::is_finished) {
            if let Some(count) = self.port_count.take() {
                ports = count.await.ok().and_then(Result::ok);
            }
        }
        if self.port_count.is_none() && port_use::is_due(usage.entries, self.port_count_began, now) {
            self.port_count_began = Some(now);
            let tunnel_port = self.followed.as_ref().and_then(Policy::untracked_port);
            self.port_count = Some(spawn_blocking(move || count_ports(tunnel_port)));
        }
        let ports = ports.filter(|_| port_use::is_worth_counting(usage.entries));
        let by_source = self.counter.as_ref().map(|counter| counter.report(&self.names));
        self.report = Some(FlowsReport { usage, counters, ports, unanswered, by_source });
    }

    /// The kernel's counters, which are read once for each moment: a pass needs them twice. An error here is one of
    /// `observe` too, which reports it.
    async fn counters(&mut self, now: Instant) -> Option<FlowCounters> {
        if let Some((_, counters)) = self.counters.filter(|(read, _)| *read == now) {
            return Some(counters);
        }
        let counters = spawn_blocking(observe_counters).await.ok().and_then(Result::ok)?;
        self.counters = Some((now, counters));
        Some(counters)
    }

    /// Whether flows have found no place since the last question, so that it matters who sends protocols without ports.
    /// `now`: the beginning of the pass.
    pub(crate) async fn wants_senders(&mut self, now: Instant) -> bool {
        let Some(counters) = self.counters(now).await else { return false };
        let before = std::mem::replace(&mut self.failed_before, counters.insert_failed);
        before != counters.insert_failed || !self.collisions.is_empty()
    }

    /// Takes over who sends protocols without ports, and looks for those who have no flow.
    pub(crate) async fn learn_senders(&mut self, senders: Vec<PortlessSender>, config: &Config, site: &Site) {
        let addresses = collisions::egress_addresses(config, site);
        match spawn_blocking(move || collisions::find(&senders, &addresses)).await {
            Ok(Ok(found)) => self.collisions = found,
            Ok(Err(error)) => tracing::debug!(component = "flows", error = %chain(&error), "collisions are not known"),
            Err(error) => tracing::debug!(component = "flows", %error, "collisions are not known"),
        }
    }

    /// The report as of the last update; `None` while the kernel tracks no flows.
    pub fn report(&self) -> Option<&FlowsReport> {
        self.report.as_ref()
    }

    /// What is nearly used up, who does not answer, and whose packets find no place.
    fn problems(&self, config: &Config) -> Vec<Problem> {
        let used_up = self.report.iter().flat_map(FlowsReport::problems);
        let collisions = self.collisions.iter().map(Collision::problem);
        used_up.chain(self.answers.problems(config)).chain(collisions).collect()
    }

    /// Counts the live flows that `new` ends.
    async fn count_losing(&self, new: Policy) -> Result<FlowCounts, Error> {
        if self.followed.is_none() && !new.has_redirects() {
            // No policy of ours allowed anything, and no flow can bypass a redirection of the new one.
            return Ok(FlowCounts::default());
        }
        let old = self.followed.clone().unwrap_or_default();
        let count = move || {
            let mut losing = FlowCounts::default();
            for_each_losing_flow(&old, &new, |_, reason| {
                losing.add(reason);
                Ok(())
            })?;
            Ok(losing)
        };
        spawn_blocking(count).await.unwrap_or_else(|error| Err(Error::Interrupted(error)))
    }

    /// Remembers the policy that the live flows follow from now on.
    fn remember(&mut self, policy: Policy) {
        if let Err(error) = state::write_json(&self.path, &policy) {
            // Only a daemon that starts with another configuration misses it.
            tracing::warn!(component = "flows", error = %chain(&error), "the daemon continues without the file");
        }
        self.followed = Some(policy);
    }
}

impl Component for Conntrack {
    const NAME: ComponentName = ComponentName::Conntrack;
    type Observed = Observed;
    type Plan = Plan;
    type Error = Error;

    /// Lists the flows only if another policy is to be followed, and keeps none of them: a hundred thousand take 0.1 s.
    ///
    /// To be called when the rules stand and removed peers are gone: a flow that ends earlier would begin again by the
    /// old rules.
    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Error> {
        // Its problems are part of the plan.
        self.update_report(inputs.now).await;
        let policy = Policy::new(inputs.config, inputs.site, inputs.tunnel, self.followed.as_ref());
        if let Some(policy) = &policy {
            self.answers.update(policy, inputs.config, inputs.now).await;
        }
        if let Some(report) = &mut self.report {
            report.unanswered = self.answers.listed(inputs.config);
        }
        let losing = match policy.as_ref().filter(|policy| self.followed.as_ref() != Some(*policy)) {
            Some(new) => self.count_losing(new.clone()).await?,
            None => FlowCounts::default(),
        };
        Ok(Observed { policy, losing })
    }

    fn plan(&self, inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        let action = match &observed.policy {
            None => Action::Wait,
            Some(policy) if self.followed.as_ref() == Some(policy) => Action::Keep,
            Some(policy) => Action::Follow(Box::new(PolicyChange {
                from: self.followed.clone().unwrap_or_default(),
                to: policy.clone(),
                ends: observed.losing.clone(),
            })),
        };
        Plan { action, problems: self.problems(inputs.config), hints: self.answers.hints(inputs.config) }
    }

    fn failed(&mut self, inputs: &Inputs<'_>, error: &Error) -> Outcome {
        let problems = self.problems(inputs.config);
        failed(error, Outcome { problems, ..Outcome::unchanged(State::Ok, "") }, Vec::new())
    }

    async fn apply(&mut self, inputs: &Inputs<'_>, _: Observed, plan: Plan) -> Outcome {
        // The rules stand, and may be new.
        if let Some(counter) = &self.counter {
            counter.write_sets_again();
        }
        let following = Outcome {
            problems: plan.problems,
            hints: plan.hints,
            next: self.answers.next(),
            ..Outcome::unchanged(State::Ok, "live flows follow the rules")
        };
        let change = match plan.action {
            Action::Wait => {
                let waits = "flows are looked through once the public link has an address";
                // A server without a public address that needs none waits for nothing.
                let state = if inputs.site.needs_no_nat { State::Off } else { State::HeldBack };
                return Outcome::unchanged(state, waits);
            }
            Action::Keep => return following,
            Action::Follow(change) => *change,
        };
        if change.ends.is_empty() {
            // The new rules stand since before the flows were observed: no flow has begun by the old ones meanwhile.
            self.remember(change.to);
            return following;
        }
        let (change, ended, result) = match spawn_blocking(move || end_losing_flows(change)).await {
            Ok(done) => done,
            Err(error) => return failed(&Error::Interrupted(error), following, Vec::new()),
        };
        let changes = if ended.is_empty() { Vec::new() } else { vec![format!("live flows ended: {ended}")] };
        match result {
            Ok(()) => {
                self.remember(change.to);
                Outcome { changes, ..following }
            }
            Err(error) => failed(&error, following, changes),
        }
    }

    /// Forgets what was allowed. Flows continue until they end by themselves: without rules they follow no policy.
    async fn down(&mut self, _: &Inputs<'_>) -> Steps {
        (self.followed, self.counter) = (None, None);
        match state::remove(&self.path) {
            Ok(()) => (Vec::new(), Vec::new()),
            Err(error) => {
                (Vec::new(), vec![Problem::new("state-file-stays", chain(&error), "remove the file by hand")])
            }
        }
    }

    async fn hold_back(&mut self, _: &Inputs<'_>, _: ComponentName) -> Outcome {
        Outcome::unchanged(State::HeldBack, "live flows follow the rules once they stand")
    }
}

fn failed(error: &Error, following: Outcome, changes: Vec<String>) -> Outcome {
    let mut failed = Outcome::failed(error);
    failed.problems.extend(following.problems);
    Outcome { changes, hints: following.hints, ..failed }
}

/// Calls `visit` for each flow of the calling thread's network namespace that `new` ends. Blocks.
fn for_each_losing_flow(
    old: &Policy,
    new: &Policy,
    mut visit: impl FnMut(&Flow, EndReason) -> Result<(), Error>,
) -> Result<(), Error> {
    let (old, new) = (PolicyEvaluator::new(old), PolicyEvaluator::new(new));
    for_each_flow(|flow| end_reason(&old, &new, flow).map_or(Ok(()), |reason| visit(flow, reason)))?;
    Ok(())
}

/// Deletes the flows of the calling thread's network namespace that the change ends, and counts them. Blocks.
fn end_losing_flows(change: PolicyChange) -> (PolicyChange, FlowCounts, Result<(), Error>) {
    let mut ended = FlowCounts::default();
    let result = FlowDeleter::open().and_then(|mut deleter| {
        for_each_losing_flow(&change.from, &change.to, |flow, reason| {
            if deleter.delete(flow)? {
                ended.add(reason);
            }
            Ok(())
        })?;
        deleter.finish()
    });
    (change, ended, result)
}

fn count_ports(tunnel_port: Option<u16>) -> Result<PortReport, Error> {
    let mut counter = PortCounter::default();
    for_each_flow(|flow| {
        counter.add(flow);
        Ok(())
    })?;
    let counted_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(counter.into_report(counted_unix, tunnel_port))
}

#[cfg(test)]
mod tests;
