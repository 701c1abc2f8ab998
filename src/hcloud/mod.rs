//! The routes of Hetzner Networks that send the networks' traffic to this server.
//!
//! The component owns the routes for the destinations of the configuration and for the tunnel's ranges, in the networks
//! that this server is attached to. It changes no other route. A route for such a destination to another server is
//! replaced only with `hcloud.take_over = true`.

pub(crate) mod api;
mod apply;
mod connection;
mod describe;
mod model;
mod observe;
mod plan;
mod poll;
mod seen;
mod token;

pub use seen::SeenRoutes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use api::Api;
use apply::apply;
use connection::{Connection, Target};
use model::{CloudRoute, Desired, NetworkTable, desired};
use observe::{Observed, ObservedLink, ObservedNetwork, RouteTables};
use plan::{LinkPlan, Plan, RoutePlan, plan_link, plan_withdrawal};
use poll::PollOutcome;

use crate::backoff::Backoff;
use crate::component::{Component, Steps};
use crate::config;
use crate::error::chain;
use crate::inputs::{Inputs, WantedReturnRoutes, wanted_return_routes};
use crate::net::NetworkId;
use crate::outcome::{ComponentError, ComponentName, Outcome, Problem, State};
use crate::site::PrivateLink;

/// How long `down` tries to withdraw routes from an API that is busy or fails.
const DOWN_TIMEOUT: Duration = Duration::from_secs(45);
/// The delays between these attempts.
const DOWN_RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
/// The advice when `down` could not delete routes.
const WITHDRAW_BY_HAND: &str = "delete the routes to this server by hand: hcloud network remove-route";

/// Why the routes of a network cannot be observed or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// A call failed.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// `HCLOUD_NETWORK` is one name for several links.
    #[error("HCLOUD_NETWORK names one network, but {links} private links have no network id")]
    OneNameForMany {
        /// The number of links without an id.
        links: usize,
    },
    /// `HCLOUD_NETWORK` names no network of the project.
    #[error("the project has no network called `{name}` (HCLOUD_NETWORK)")]
    NoSuchNetwork {
        /// The name that was looked up.
        name: String,
    },
}

impl Error {
    /// Whether the same call may succeed soon without a person's help.
    fn is_transient(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_transient())
    }
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Token(_) => "token-unreadable",
            Self::Api(error) => error.problem_code(),
            Self::OneNameForMany { .. } => "network-name-ambiguous",
            Self::NoSuchNetwork { .. } => "network-unknown",
        }
    }

    fn advice(&self) -> String {
        let advice = match self {
            Self::Token(error) => error.advice(),
            Self::Api(error) => error.advice(),
            Self::OneNameForMany { .. } => "write network_id into each [[site.private]]",
            Self::NoSuchNetwork { .. } => "name a network of the token's project",
        };
        advice.to_owned()
    }
}

/// What the component keeps between passes.
#[derive(Debug)]
pub struct Hcloud {
    connection: Connection,
    /// Routes that existed as wanted after a pass. If one of them is missing later, another program deleted it.
    stood: BTreeMap<NetworkId, BTreeSet<CloudRoute>>,
    /// Routes that the daemon added for the tunnel. Those that the tunnel no longer wants are deleted.
    claimed_for_tunnel: BTreeMap<NetworkId, BTreeSet<CloudRoute>>,
    /// The routes that each link's network has. They are kept while the API does not answer.
    seen: SeenRoutes,
    retry: Backoff,
}

impl Default for Hcloud {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            stood: BTreeMap::new(),
            claimed_for_tunnel: BTreeMap::new(),
            seen: SeenRoutes::default(),
            retry: poll::RETRY,
        }
    }
}

impl Component for Hcloud {
    const NAME: ComponentName = ComponentName::Hcloud;
    type Observed = Observed;
    type Plan = Plan;
    type Error = Error;

    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Error> {
        let (config, site) = (&inputs.config.hcloud, inputs.site);
        self.seen.retain(|interface| config.enabled && site.private.iter().any(|link| link.interface == *interface));
        let return_routes = wanted_return_routes(inputs.config, site);
        let (api, links) = match self.connection.open(config, site, &return_routes)? {
            Target::Nothing(outcome) => return Ok(Observed::NotAsked(outcome)),
            Target::Networks { api, links, is_new_project } => {
                if is_new_project {
                    self.stood.clear();
                    self.claimed_for_tunnel.clear();
                }
                (api, links)
            }
        };
        let mut observed = Vec::new();
        for link in links {
            let is_misrouted = site.misrouted.contains(&link.interface);
            let network = match link.address_present {
                false => ObservedNetwork::NoAddress,
                true if is_misrouted => ObservedNetwork::Misrouted,
                true => self.observe_link(&api, config, link).await,
            };
            observed.push(ObservedLink { link: link.clone(), network });
        }
        Ok(Observed::Networks { api, links: observed })
    }

    fn plan(&self, inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        let config = &inputs.config.hcloud;
        let return_routes = wanted_return_routes(inputs.config, inputs.site);
        let links = match observed {
            Observed::NotAsked(outcome) => return Plan { links: Vec::new(), problems: outcome.problems.clone() },
            Observed::Networks { links, .. } => links,
        };
        let mut plan = Plan::default();
        for ObservedLink { link, network } in links {
            plan.links.push(match network {
                ObservedNetwork::NoAddress => {
                    plan.problems.extend(describe::no_address(link).problems);
                    LinkPlan::NoAddress
                }
                ObservedNetwork::Misrouted => {
                    plan.problems.extend(describe::misrouted(link).problems);
                    LinkPlan::Misrouted
                }
                ObservedNetwork::Table(table) => {
                    let claimed = self.claimed_for_tunnel.get(&table.id);
                    let desired = desired(config, &return_routes, link);
                    let of_link =
                        plan_link(desired, claimed.unwrap_or(&BTreeSet::new()), table, link, takes_over(inputs));
                    plan.problems.extend(describe::planned_problems(&of_link, table, link, &return_routes));
                    of_link
                }
                ObservedNetwork::Failed(error) => {
                    plan.problems.push(Problem::from_error(error));
                    LinkPlan::Unknown
                }
            });
        }
        plan
    }

    async fn apply(&mut self, inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        let (api, links) = match observed {
            Observed::NotAsked(outcome) => return self.with_next_poll(inputs, outcome, false),
            Observed::Networks { api, links } => (api, links),
        };
        let (mut outcomes, mut is_transient) = (Vec::new(), false);
        for (link, plan) in links.into_iter().zip(plan.links) {
            let (outcome, may_pass) = self.apply_link(&api, inputs, link, plan).await;
            outcomes.push(outcome);
            is_transient |= may_pass;
        }
        self.with_next_poll(inputs, describe::merged(outcomes), is_transient)
    }

    fn failed(&mut self, inputs: &Inputs<'_>, error: &Error) -> Outcome {
        let is_transient = error.is_transient();
        self.with_next_poll(inputs, Outcome::failed(error), is_transient)
    }

    /// Deletes this server's routes. Transient errors are retried for up to [`DOWN_TIMEOUT`].
    async fn down(&mut self, inputs: &Inputs<'_>) -> Steps {
        let (config, site) = (&inputs.config.hcloud, inputs.site);
        let return_routes = wanted_return_routes(inputs.config, site);
        let (api, links) = match self.connection.open(config, site, &return_routes) {
            Ok(Target::Networks { api, links, .. }) => (api, links),
            Ok(Target::Nothing(outcome)) if outcome.state == State::Off => return (Vec::new(), Vec::new()),
            Ok(Target::Nothing(outcome)) => {
                let what = format!("{}, so the routes in the cloud were not deleted", outcome.detail);
                return (Vec::new(), vec![Problem::new("metadata-silent", what, WITHDRAW_BY_HAND)]);
            }
            Err(error) => return (Vec::new(), vec![Problem::new(error.code(), chain(&error), WITHDRAW_BY_HAND)]),
        };
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        let deadline = Instant::now() + DOWN_TIMEOUT;
        for link in links {
            let mut retry = DOWN_RETRY;
            loop {
                let (done, error) = self.withdraw_all(&api, config, &return_routes, link).await;
                changes.extend(done);
                let Some(error) = error else { break };
                let pause = retry.failed();
                if !error.is_transient() || Instant::now() + pause >= deadline {
                    problems.push(Problem::new(error.code(), chain(&error), WITHDRAW_BY_HAND));
                    break;
                }
                sleep(pause).await;
            }
        }
        (changes, problems)
    }
}

/// Whether routes that lead to another server are replaced. Not those of the server that this one is a copy of: a person
/// decides first which of the two goes on.
fn takes_over(inputs: &Inputs<'_>) -> bool {
    inputs.config.hcloud.take_over && inputs.site.state_of.is_none()
}

impl Hcloud {
    /// The routes that each link's network was last seen to have.
    pub fn seen_routes(&self) -> &SeenRoutes {
        &self.seen
    }

    async fn observe_link(&mut self, api: &Api, config: &config::Hcloud, link: &PrivateLink) -> ObservedNetwork {
        let table = match self.connection.network_of(api, config, link).await {
            Ok(network) => self.read_table(api, network, link).await.map_err(Error::Api),
            Err(error) => Err(error),
        };
        table.map_or_else(ObservedNetwork::Failed, ObservedNetwork::Table)
    }

    async fn read_table(
        &mut self,
        api: &Api,
        network: NetworkId,
        link: &PrivateLink,
    ) -> Result<NetworkTable, api::Error> {
        let table = api.table(network).await?;
        self.seen.insert(&table, link);
        Ok(table)
    }

    /// Carries out one link's plan; the outcome, and whether another attempt soon may help.
    async fn apply_link(
        &mut self,
        api: &Api,
        inputs: &Inputs<'_>,
        observed: ObservedLink,
        plan: LinkPlan,
    ) -> (Outcome, bool) {
        let ObservedLink { link, network } = observed;
        match (network, plan) {
            (ObservedNetwork::Table(table), LinkPlan::Routes { desired, routes, .. }) => {
                match self.apply_routes(api, inputs, &link, table, &desired, &routes).await {
                    Ok(done) => done,
                    Err(error) => self.failed_link(&link, &error),
                }
            }
            (ObservedNetwork::Table(table), _) => (describe::no_subnet(&table), false),
            (ObservedNetwork::NoAddress, _) => (describe::no_address(&link), false),
            (ObservedNetwork::Misrouted, _) => (describe::misrouted(&link), false),
            (ObservedNetwork::Failed(error), _) => self.failed_link(&link, &error),
        }
    }

    fn failed_link(&mut self, link: &PrivateLink, error: &Error) -> (Outcome, bool) {
        self.connection.forget_names();
        (describe::failed_link(link, error), error.is_transient())
    }

    async fn apply_routes(
        &mut self,
        api: &Api,
        inputs: &Inputs<'_>,
        link: &PrivateLink,
        table: NetworkTable,
        desired: &Desired,
        plan: &RoutePlan,
    ) -> Result<(Outcome, bool), Error> {
        let (network, wanted) = (table.id, desired.routes());
        let return_routes = wanted_return_routes(inputs.config, inputs.site);
        let describe = |plan: &RoutePlan, errors: &[api::Error], table: &NetworkTable| {
            describe::NetworkOutcome { table, link, desired, return_routes: &return_routes, plan }.outcome(errors)
        };
        if plan.is_empty() {
            if plan.is_settled() {
                self.stood.insert(network, wanted);
            }
            self.remember_claims(network, desired, &table);
            return Ok((describe(plan, &[], &table), false));
        }
        let errors = apply(api, network, plan).await;
        let repaired = self.stood.get(&network) == Some(&wanted);
        // The network's routes count, whatever the API answered.
        let table = self.read_table(api, network, link).await?;
        let nothing = BTreeSet::new();
        let claimed = self.claimed_for_tunnel.get(&network).unwrap_or(&nothing);
        let take_over = takes_over(inputs);
        let LinkPlan::Routes { routes: rest, .. } = plan_link(desired.clone(), claimed, &table, link, take_over) else {
            return Ok((describe::no_subnet(&table), false));
        };
        if rest.is_settled() {
            self.stood.insert(network, wanted);
        }
        self.remember_claims(network, desired, &table);
        let may_pass = errors.is_empty() || errors.iter().any(api::Error::is_transient);
        let changes = describe::changes(plan, &table);
        Ok((Outcome { changes, repaired, ..describe(&rest, &errors, &table) }, !rest.is_empty() && may_pass))
    }

    fn remember_claims(&mut self, network: NetworkId, desired: &Desired, table: &NetworkTable) {
        let claimed = self.claimed_for_tunnel.entry(network).or_default();
        claimed.retain(|route| table.routes.contains(route));
        claimed.extend(desired.return_routes.intersection(&table.routes).copied());
    }

    /// One attempt of `down`: the routes that a fresh look finds gone, and why others are still there.
    async fn withdraw_all(
        &mut self,
        api: &Api,
        config: &config::Hcloud,
        return_routes: &WantedReturnRoutes,
        link: &PrivateLink,
    ) -> (Vec<String>, Option<Error>) {
        let attempt = async {
            let network = self.connection.network_of(api, config, link).await?;
            let wanted = desired(config, return_routes, link).routes();
            let plan = plan_withdrawal(&wanted, &api.table(network).await?, link);
            let error = apply(api, network, &plan).await.into_iter().next();
            self.stood.remove(&network);
            let table = api.table(network).await?;
            let is_left = !plan_withdrawal(&wanted, &table, link).is_empty();
            Ok((describe::changes(&plan, &table), error.filter(|_| is_left).map(Error::Api)))
        };
        attempt.await.unwrap_or_else(|error| (Vec::new(), Some(error)))
    }

    fn with_next_poll(&mut self, inputs: &Inputs<'_>, outcome: Outcome, is_transient: bool) -> Outcome {
        let poll = match (is_transient, outcome.state) {
            (true, _) => PollOutcome::Transient,
            (false, State::Failed) => PollOutcome::Stuck,
            (false, _) => PollOutcome::Settled,
        };
        let (networks, interval) = (inputs.site.private.len(), inputs.config.hcloud.poll_interval);
        let rate_limit = self.connection.rate_limit();
        let next = poll::next_poll(poll, &mut self.retry, networks, interval, rate_limit, fastrand::f64());
        Outcome { next: Some(next), ..outcome }
    }
}

#[cfg(test)]
mod tests;
