//! The addresses of the tunnel's interface, the kernel's routes into it, those to ranges behind private networks, and
//! those of the probes of private links.
//!
//! Ours are the routes of the main table that carry our own protocol number ([`model::PROTOCOL`]), wherever they lead,
//! and the addresses of the tunnel's interface that carry the same number (kernels since 5.18 keep it). Every other
//! route and address stays: a conflicting route and an unknown address on the tunnel's interface are reported. The
//! wireguard component makes the interface, sets it up and sets its MTU.

mod apply;
mod describe;
mod model;
mod observe;
mod plan;

use std::collections::BTreeSet;

use crate::component::{self, Component, Steps};
use crate::error::chain;
use crate::inputs::Inputs;
use crate::outcome::{ComponentError, ComponentName, Outcome, Problem, State};
use crate::site::Site;
use model::{Desired, Observed, RangeBehind, desired, probe_routes, ranges_behind};
use observe::{Error, Netlink};
use plan::{Plan, Tense, plan_changes};

/// The code of the problem when netlink fails.
const FAILED: &str = "routes-failed";
/// What helps when netlink fails.
const ADVICE: &str = "the daemon needs a route netlink socket and CAP_NET_ADMIN; it tries again by itself";

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        FAILED
    }

    fn advice(&self) -> String {
        ADVICE.to_owned()
    }
}

impl component::Plan for Plan {
    fn steps(&self) -> Vec<String> {
        self.in_order().map(|step| self.describe(step, Tense::Future).to_string()).collect()
    }

    fn problems(&self) -> Vec<Problem> {
        describe::conflicts(self).into_iter().chain(describe::unknown_addresses(self)).collect()
    }
}

/// What the component keeps between passes: what stood after the last one, and the index of the interface it stood on.
/// If it differs later, another program changed it.
#[derive(Debug, Default)]
pub struct Routes {
    stood: Option<Standing>,
}

/// The addresses and routes of the tunnel with the index of its interface, and the routes to ranges behind networks.
type Standing = (Option<(Desired, u32)>, BTreeSet<RangeBehind>);

impl Component for Routes {
    const NAME: ComponentName = ComponentName::Routes;
    type Observed = Observed;
    type Plan = Plan;
    type Error = Error;

    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Error> {
        Netlink::open()?.observe(inputs.tunnel.map(|tunnel| &tunnel.interface)).await
    }

    fn plan(&self, inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        let desired = inputs.tunnel.map(desired);
        let behind = ranges_behind(inputs.site);
        let probes = probe_routes(inputs.config, inputs.site);
        let beyond_gateways = behind.union(&probes).cloned().collect();
        let mut changes = plan_changes(desired.as_ref(), &beyond_gateways, observed);
        // Where another program routes a probe elsewhere, its path tells.
        changes.conflicts.retain(|conflict| probes.iter().all(|probe| probe.destination != conflict.destination));
        Plan {
            desired,
            behind,
            probes,
            changes,
            interface_names: observed.names.clone(),
            tunnel_index: observed.link.map(|it| it.index),
        }
    }

    async fn apply(&mut self, inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        let applied = match apply::apply(&plan).await {
            Ok(applied) => applied,
            Err(error) => return self.failed(inputs, &error),
        };
        let (changes, mut problems) = applied;
        let failed = !problems.is_empty();
        problems.extend(describe::conflicts(&plan));
        let hints = describe::unknown_addresses(&plan);
        let beyond_gateways: BTreeSet<RangeBehind> = plan.behind.union(&plan.probes).cloned().collect();
        let has_routes = !beyond_gateways.is_empty();
        let standing = Some((plan.desired.clone().zip(plan.tunnel_index), beyond_gateways));
        let is_something = plan.tunnel_index.is_some_and(|_| plan.desired.is_some()) || has_routes;
        let repaired = !changes.is_empty() && is_something && self.stood == standing;
        self.stood = standing.filter(|_| !failed);
        let is_in_the_way = !plan.changes.conflicts.is_empty() || !plan.changes.without_route.is_empty();
        let unchanged = match (&plan.desired, observed.link) {
            (None, _) if !has_routes && !failed => Outcome::unchanged(State::Off, "no tunnel"),
            (Some(desired), None) => not_there_yet(desired),
            (desired, _) => {
                let state = match (failed, is_in_the_way) {
                    (true, _) => State::Failed,
                    (false, true) => State::Waiting,
                    (false, false) => State::Ok,
                };
                Outcome::unchanged(state, describe::all_standing(desired.as_ref(), &plan.behind, &plan.probes))
            }
        };
        Outcome { changes, repaired, problems, hints, ..unchanged }
    }

    async fn preview_held_back(&mut self, inputs: &Inputs<'_>) -> Result<Steps, Problem> {
        component::preview(self, &Inputs { tunnel: None, ..*inputs }).await
    }

    /// An interface that is not ours gets no address and no route of ours; those that we left elsewhere are removed.
    async fn hold_back(&mut self, inputs: &Inputs<'_>, _waits_for: ComponentName) -> Outcome {
        let outcome = component::reconcile(self, &Inputs { tunnel: None, ..*inputs }).await;
        match inputs.tunnel.map(desired) {
            Some(desired) if matches!(outcome.state, State::Off | State::Ok) => {
                let held_back = not_there_yet(&desired);
                Outcome { state: held_back.state, detail: held_back.detail, ..outcome }
            }
            _ => outcome,
        }
    }

    /// Removes our routes; the addresses go with the interface.
    async fn down(&mut self, inputs: &Inputs<'_>) -> Steps {
        let nothing = Site::default();
        let inputs = Inputs { tunnel: None, site: &nothing, ..*inputs };
        let removed = async {
            let observed = self.observe(&inputs).await?;
            apply::apply(&self.plan(&inputs, &observed)).await
        };
        removed.await.unwrap_or_else(|error| {
            (Vec::new(), vec![Problem::new(error.code(), chain(&error), "delete them: ip route flush proto 98")])
        })
    }
}

fn not_there_yet(desired: &Desired) -> Outcome {
    Outcome::unchanged(State::HeldBack, format!("{} is not there yet", desired.interface))
}

#[cfg(test)]
mod tests;
