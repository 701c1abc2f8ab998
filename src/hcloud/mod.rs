//! The routes of Hetzner Networks that send the networks' traffic to this server.
//!
//! The component owns the routes that it added, or found and reported as its own: for the destinations of the
//! configuration and for the tunnel's ranges, in the networks that this server is attached to. They stay its own when
//! the server gets another address, and are deleted when they are no longer wanted. It changes no other route. A route
//! for a wanted destination to another server is replaced only with `hcloud.take_over = true`.

pub(crate) mod api;
mod apply;
mod connection;
mod describe;
mod error;
mod model;
mod observe;
mod owned_routes;
mod plan;
mod poll;
mod seen;
mod token;

pub use seen::SeenRoutes;
pub(crate) use token::read_ahead as read_token_ahead;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use api::Api;
use apply::apply;
use connection::{Connection, Target};
pub(crate) use error::Error;
use model::{CloudRoute, Desired, NetworkTable, desired};
use observe::{Observed, ObservedLink, ObservedNetwork, RouteTables};
use owned_routes::OwnedRoutes;
use plan::{LinkPlan, Plan, RoutePlan, plan_link, plan_withdrawal};
use poll::PollOutcome;

use crate::backoff::Backoff;
use crate::component::{Component, Steps};
use crate::config;
use crate::error::chain;
use crate::inputs::{Inputs, WantedReturnRoutes, wanted_return_routes};
use crate::net::{NetworkId, ServerId};
use crate::outcome::{ComponentError, ComponentName, Outcome, Problem, State};
use crate::site::PrivateLink;

/// How long `down` tries to withdraw routes from an API that is busy or fails.
const DOWN_TIMEOUT: Duration = Duration::from_secs(45);
/// The delays between these attempts.
const DOWN_RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
/// The advice when `down` could not delete routes.
const WITHDRAW_BY_HAND: &str = "delete the routes to this server by hand: hcloud network remove-route";

/// What the component keeps between passes.
#[derive(Debug)]
pub struct Hcloud {
    connection: Connection,
    /// Routes that existed as wanted after a pass. If one of them is missing later, another program deleted it.
    stood: BTreeMap<NetworkId, BTreeSet<CloudRoute>>,
    /// Routes that are this daemon's. Those that are no longer wanted are deleted.
    owned: OwnedRoutes,
    /// The routes that each link's network has. They are kept while the API does not answer.
    seen: SeenRoutes,
    retry: Backoff,
}

impl Default for Hcloud {
    fn default() -> Self {
        Self {
            connection: Connection::default(),
            stood: BTreeMap::new(),
            owned: OwnedRoutes::default(),
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
        self.owned.of_server(site.server_id);
        let return_routes = wanted_return_routes(inputs.config, site);
        let (api, links) = match self.connection.open(config, site, &return_routes)? {
            Target::Nothing(outcome) => return Ok(Observed::NotAsked(outcome)),
            Target::Networks { api, links, is_new_project } => {
                if is_new_project {
                    self.stood.clear();
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
                true => self.observe_link(&api, inputs, link).await,
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
                    let owned = self.owned.in_network(table.id);
                    let desired = desired(config, &return_routes, link);
                    let of_link = plan_link(desired, &owned, table, link, takes_over(inputs));
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

    /// Deletes this daemon's routes. Transient errors are retried for up to [`DOWN_TIMEOUT`].
    async fn down(&mut self, inputs: &Inputs<'_>) -> Steps {
        let (config, site) = (&inputs.config.hcloud, inputs.site);
        self.owned.of_server(site.server_id);
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

/// Whether routes that lead to another server are replaced. Not those of the server that this one is a copy of: a
/// person decides first which of the two goes on.
fn takes_over(inputs: &Inputs<'_>) -> bool {
    inputs.config.hcloud.take_over && inputs.site.state_of.is_none()
}

impl Hcloud {
    /// A component that remembers the routes of the last daemon.
    pub(crate) fn load(state_directory: &Path) -> Self {
        Self { owned: OwnedRoutes::load(state_directory), ..Self::default() }
    }

    /// The routes that each link's network was last seen to have.
    pub fn seen_routes(&self) -> &SeenRoutes {
        &self.seen
    }

    async fn observe_link(&mut self, api: &Api, inputs: &Inputs<'_>, link: &PrivateLink) -> ObservedNetwork {
        let read = async {
            let network = self.connection.network_of(api, &inputs.config.hcloud, link).await?;
            let table = self.read_table(api, network, link).await?;
            self.disown_moved(api, &table, link, inputs.site.server_id).await?;
            Ok(table)
        };
        read.await.map_or_else(ObservedNetwork::Failed, ObservedNetwork::Table)
    }

    /// Gives up routes to an address that this server had and another one has now: that one may have added them.
    async fn disown_moved(
        &mut self,
        api: &Api,
        table: &NetworkTable,
        link: &PrivateLink,
        own: Option<ServerId>,
    ) -> Result<(), api::Error> {
        let mut owned = self.owned.in_network(table.id);
        let is_moved = |route: &CloudRoute| table.routes.contains(route) && !link.holds(route.gateway);
        let moved: BTreeSet<Ipv4Addr> =
            owned.iter().filter(|route| is_moved(route)).map(|route| route.gateway).collect();
        for address in moved {
            let holder = api.server_with(table.id, address).await?;
            if holder.is_some() && holder != own {
                owned.retain(|route| route.gateway != address);
            }
        }
        self.owned.set(table.id, owned);
        Ok(())
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
            self.remember(desired, &table);
            return Ok((describe(plan, &[], &table), false));
        }
        let errors = apply(api, network, plan).await;
        let repaired = self.stood.get(&network) == Some(&wanted);
        // The network's routes count, whatever the API answered.
        let table = self.read_table(api, network, link).await?;
        let owned = self.owned.in_network(network);
        let take_over = takes_over(inputs);
        let LinkPlan::Routes { routes: rest, .. } = plan_link(desired.clone(), &owned, &table, link, take_over) else {
            return Ok((describe::no_subnet(&table), false));
        };
        if rest.is_settled() {
            self.stood.insert(network, wanted);
        }
        self.remember(desired, &table);
        let may_pass = errors.is_empty() || errors.iter().any(api::Error::is_transient);
        let changes = describe::changes(plan, &table);
        Ok((Outcome { changes, repaired, ..describe(&rest, &errors, &table) }, !rest.is_empty() && may_pass))
    }

    /// Wanted routes that are there are this daemon's, and so are those that it could not delete yet.
    fn remember(&mut self, desired: &Desired, table: &NetworkTable) {
        let mut owned = self.owned.in_network(table.id);
        owned.extend(desired.routes());
        owned.retain(|route| table.routes.contains(route));
        self.owned.set(table.id, owned);
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
            let mut ours = desired(config, return_routes, link).routes();
            ours.extend(self.owned.in_network(network));
            let plan = plan_withdrawal(&ours, &api.table(network).await?);
            let error = apply(api, network, &plan).await.into_iter().next();
            self.stood.remove(&network);
            let table = api.table(network).await?;
            let is_left = !plan_withdrawal(&ours, &table).is_empty();
            self.owned.set(network, ours.intersection(&table.routes).copied().collect());
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
