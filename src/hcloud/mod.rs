//! The routes in the Hetzner Networks that lead the networks' traffic here.
//!
//! Ours: the destinations that the configuration names, and the tunnel's ranges, in the networks this server is attached to.
//! Every other route stays, and so does one of ours that names somebody else, unless `hcloud.take_over` says otherwise.

pub mod api;
mod apply;
mod model;
mod observe;
mod outcome;
mod pace;
mod plan;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::Api;
pub use apply::apply;
pub use model::{
    CloudRoute, Desired, NetworkTable, Unroutable, WantedReturnRoutes, desired, led_here, wanted_return_routes,
};
pub use observe::RouteTables;
use pace::Last;
pub use plan::{Contest, Obstacle, Plan, plan, withdrawal};

use crate::config;
use crate::error::chain;
use crate::inputs::SeenReturnRoutes;
use crate::net::NetworkId;
use crate::outcome::{Outcome, Problem, State};
use crate::site::{PrivateLink, Site};

/// How long `down` tries to withdraw routes from an API that is unwell or busy.
const FAREWELL: Duration = Duration::from_secs(45);

/// Why the routes of a network could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// A call failed.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// `HCLOUD_NETWORK` is one name for several links.
    #[error("HCLOUD_NETWORK names one network, but {links} private links have no number of their own")]
    OneNameForMany {
        /// How many.
        links: usize,
    },
    /// `HCLOUD_NETWORK` names nothing.
    #[error("the project has no network called `{name}` (HCLOUD_NETWORK)")]
    NoSuchNetwork {
        /// The name.
        name: String,
    },
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Token(error) => error.advice(),
            Self::Api(error) => error.advice(),
            Self::OneNameForMany { .. } => "write network_id into each [[site.private]]",
            Self::NoSuchNetwork { .. } => "name a network of the token's project",
        }
    }

    /// Whether the same pass may succeed soon, without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_transient())
    }
}

/// What the room keeps between passes: a connection, and what it has seen standing.
#[derive(Debug, Default)]
pub struct Hcloud {
    api: Option<Arc<Api>>,
    /// What `HCLOUD_NETWORK` turned out to be.
    named: BTreeMap<String, NetworkId>,
    /// Routes that stood as wanted after a pass: if one is missing later, somebody took it away.
    stood: BTreeMap<NetworkId, BTreeSet<CloudRoute>>,
    /// Routes that we keep for the tunnel: when it wants them no more, they go.
    kept_for_tunnel: BTreeMap<NetworkId, BTreeSet<CloudRoute>>,
    /// What each link's network was last seen to send here. What is known is not forgotten because the API is silent.
    seen_return_routes: SeenReturnRoutes,
    /// Passes in a row that failed and may succeed soon.
    failing: u32,
}

impl Hcloud {
    /// What each link's network was last seen to send here, besides everything.
    pub fn seen_return_routes(&self) -> &SeenReturnRoutes {
        &self.seen_return_routes
    }

    /// Makes the routes as the configuration wants them; the outcome, and when to look again.
    pub async fn reconcile(
        &mut self,
        config: &config::Hcloud,
        site: &Site,
        wanted_return_routes: &WantedReturnRoutes,
    ) -> (Outcome, Duration) {
        self.seen_return_routes
            .retain(|interface, _| config.enabled && site.private.iter().any(|link| link.interface == *interface));
        let (outcome, transient) = match self.connect(config, site, wanted_return_routes) {
            Err(error) => (Outcome::failed(&error, error.advice()), error.is_transient()),
            Ok(Connection::Idle(outcome)) => (outcome, false),
            Ok(Connection::Open(api, links)) => self.reconcile_links(&api, config, wanted_return_routes, &links).await,
        };
        self.failing = if transient { self.failing.saturating_add(1) } else { 0 };
        let last = match (transient, outcome.state) {
            (true, _) => Last::Failing { times: self.failing },
            (false, State::Failed) => Last::Stuck,
            (false, _) => Last::Settled,
        };
        let rate_limit = self.api.as_ref().and_then(|api| api.rate_limit());
        (outcome, pace::next_look(last, site.private.len(), config.poll_interval, rate_limit, fastrand::f64()))
    }

    /// What the next pass would do, a line each, and what keeps it from doing anything.
    pub async fn preview(
        &mut self,
        config: &config::Hcloud,
        site: &Site,
        wanted_return_routes: &WantedReturnRoutes,
    ) -> Result<(Vec<String>, Vec<Problem>), Error> {
        let (api, links) = match self.connect(config, site, wanted_return_routes)? {
            Connection::Open(api, links) => (api, links),
            Connection::Idle(outcome) => return Ok((Vec::new(), outcome.problems)),
        };
        let mut steps = Vec::new();
        for link in links {
            let network = self.network_of(&api, config, link).await?;
            let table = api.table(network).await?;
            let plan = plan(&desired(config, wanted_return_routes, link).routes(), &table, link, config.take_over);
            let name = outcome::network_name(&table);
            steps.extend(plan.withdraw.iter().map(|route| format!("delete route {route} of {name}")));
            steps.extend(plan.claim.iter().map(|route| format!("add route {route} to {name}")));
        }
        Ok((steps, Vec::new()))
    }

    /// Withdraws the routes that are ours, with patience for what passes: what was done, and what could not be.
    pub async fn remove(
        &mut self,
        config: &config::Hcloud,
        site: &Site,
        wanted_return_routes: &WantedReturnRoutes,
    ) -> (Vec<String>, Vec<Problem>) {
        let by_hand = "delete the routes to this server by hand: hcloud network remove-route";
        let (api, links) = match self.connect(config, site, wanted_return_routes) {
            Ok(Connection::Open(api, links)) => (api, links),
            Ok(Connection::Idle(outcome)) if outcome.state == State::Off => return (Vec::new(), Vec::new()),
            Ok(Connection::Idle(outcome)) => {
                let what = format!("{}, so the routes in the cloud were not looked for", outcome.detail);
                return (Vec::new(), vec![Problem::new(what, by_hand)]);
            }
            Err(error) => return (Vec::new(), vec![Problem::new(chain(&error), by_hand)]),
        };
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        let deadline = tokio::time::Instant::now() + FAREWELL;
        for link in links {
            let mut pause = Duration::from_secs(1);
            loop {
                let (done, error) = self.remove_link(&api, config, wanted_return_routes, link).await;
                changes.extend(done);
                match error {
                    None => break,
                    Some(error) if error.is_transient() && tokio::time::Instant::now() + pause < deadline => {
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_secs(8));
                    }
                    Some(error) => {
                        problems.push(Problem::new(chain(&error), by_hand));
                        break;
                    }
                }
            }
        }
        (changes, problems)
    }

    /// One attempt: what a fresh look finds gone, and why the rest is not.
    async fn remove_link(
        &mut self,
        api: &Api,
        config: &config::Hcloud,
        wanted_return_routes: &WantedReturnRoutes,
        link: &PrivateLink,
    ) -> (Vec<String>, Option<Error>) {
        let attempt = async {
            let network = self.network_of(api, config, link).await?;
            let desired = desired(config, wanted_return_routes, link).routes();
            let withdraw = withdrawal(&desired, &api.table(network).await?, link);
            let plan = Plan { withdraw, ..Plan::default() };
            let error = apply(api, network, &plan).await.into_iter().next();
            self.stood.remove(&network);
            let table = api.table(network).await?;
            let left = !withdrawal(&desired, &table, link).is_empty();
            Ok((outcome::changes(&plan, &table), error.filter(|_| left).map(Error::Api)))
        };
        attempt.await.unwrap_or_else(|error| (Vec::new(), Some(error)))
    }

    /// The client and the links to look after, or why there is nothing to do.
    fn connect<'a>(
        &mut self,
        config: &config::Hcloud,
        site: &'a Site,
        wanted_return_routes: &WantedReturnRoutes,
    ) -> Result<Connection<'a>, Error> {
        if !config.enabled {
            return Ok(Connection::Idle(Outcome::unchanged(State::Off, "hcloud.enabled = false")));
        }
        // One name can only mean one network.
        let nameless = site.private.iter().filter(|link| link.network_id.is_none()).count();
        let named = config.network.is_some() && nameless == 1;
        let links: Vec<&PrivateLink> = site.private.iter().filter(|link| link.network_id.is_some() || named).collect();
        if config.network.is_some() && nameless > 1 {
            return Err(Error::OneNameForMany { links: nameless });
        }
        if links.is_empty() {
            return Ok(Connection::Idle(outcome::no_network(site)));
        }
        let Some(token) = token::read(&config.token)? else {
            return Ok(Connection::Idle(outcome::no_token(config, wanted_return_routes, &links)));
        };
        let api = match &self.api {
            Some(api) if api.speaks_to(&config.endpoint, &token) => Arc::clone(api),
            _ => {
                // Another project, perhaps: what was known of the old one is void.
                self.named.clear();
                self.stood.clear();
                self.kept_for_tunnel.clear();
                Arc::new(Api::new(&config.endpoint, token)?)
            }
        };
        self.api = Some(Arc::clone(&api));
        Ok(Connection::Open(api, links))
    }

    /// One network after the other; the whole, and whether trying again soon may help.
    async fn reconcile_links(
        &mut self,
        api: &Api,
        config: &config::Hcloud,
        wanted_return_routes: &WantedReturnRoutes,
        links: &[&PrivateLink],
    ) -> (Outcome, bool) {
        let (mut outcomes, mut transient) = (Vec::new(), false);
        for link in links {
            let (outcome, may_pass) = match self.reconcile_link(api, config, wanted_return_routes, link).await {
                Ok(outcome) => outcome,
                Err(error) => {
                    // A network of that name may have been made anew under another number.
                    self.named.clear();
                    (outcome::failed_link(link, &error), error.is_transient())
                }
            };
            transient |= may_pass;
            outcomes.push(outcome);
        }
        (outcome::merged(outcomes), transient)
    }

    async fn reconcile_link(
        &mut self,
        api: &Api,
        config: &config::Hcloud,
        wanted_return_routes: &WantedReturnRoutes,
        link: &PrivateLink,
    ) -> Result<(Outcome, bool), Error> {
        if !link.address_present {
            // Traffic that cannot be answered must not be attracted.
            return Ok((outcome::no_address(link), false));
        }
        let network = self.network_of(api, config, link).await?;
        let wanted = desired(config, wanted_return_routes, link);
        let routes = wanted.routes();
        let table = self.look(api, network, link).await?;
        let first = self.plan(network, &wanted, &table, link, config.take_over);
        if table.subnets.is_empty() && !first.claim.is_empty() {
            return Ok((outcome::no_subnet(&table), false));
        }
        let told = |plan: &Plan, errors: &[api::Error], table: &NetworkTable| {
            let account = outcome::Account { table, link, wanted: &wanted, wanted_return_routes, plan };
            account.outcome(errors)
        };
        if first.withdraw.is_empty() && first.claim.is_empty() {
            if first.is_settled() {
                self.stood.insert(network, routes);
            }
            self.keep_for_tunnel(network, &wanted, &table);
            return Ok((told(&first, &[], &table), false));
        }
        let errors = apply(api, network, &first).await;
        let repaired = self.stood.get(&network) == Some(&routes);
        // What the API answered is one thing, what the network holds now is what counts.
        let table = self.look(api, network, link).await?;
        let rest = self.plan(network, &wanted, &table, link, config.take_over);
        let unfinished = !rest.withdraw.is_empty() || !rest.claim.is_empty();
        if rest.is_settled() {
            self.stood.insert(network, routes);
        }
        self.keep_for_tunnel(network, &wanted, &table);
        let may_pass = errors.is_empty() || errors.iter().any(api::Error::is_transient);
        let changes = outcome::changes(&first, &table);
        let outcome = Outcome { changes, repaired, ..told(&rest, &errors, &table) };
        Ok((outcome, unfinished && may_pass))
    }

    async fn look(&mut self, api: &Api, network: NetworkId, link: &PrivateLink) -> Result<NetworkTable, Error> {
        let table = api.table(network).await?;
        self.seen_return_routes.insert(link.interface.clone(), led_here(&table, link));
        Ok(table)
    }

    /// What is to be done: the room's plan, and the routes that we kept for a tunnel which wants them no more.
    fn plan(
        &self,
        network: NetworkId,
        wanted: &Desired,
        table: &NetworkTable,
        link: &PrivateLink,
        take_over: bool,
    ) -> Plan {
        let routes = wanted.routes();
        let kept = self.kept_for_tunnel.get(&network).into_iter().flatten();
        let given_up = kept.filter(|route| !routes.contains(route) && table.routes.contains(route));
        let given_up: BTreeSet<CloudRoute> = given_up.copied().collect();
        // They go first, so they are in nobody's way.
        let without = NetworkTable { routes: &table.routes - &given_up, ..table.clone() };
        let mut plan = plan(&routes, &without, link, take_over);
        plan.withdraw.extend(given_up);
        plan
    }

    fn keep_for_tunnel(&mut self, network: NetworkId, wanted: &Desired, table: &NetworkTable) {
        let kept = self.kept_for_tunnel.entry(network).or_default();
        kept.retain(|route| table.routes.contains(route));
        kept.extend(wanted.wanted_return_routes.intersection(&table.routes).copied());
    }

    /// The link's network: by its number, or by `HCLOUD_NETWORK`.
    async fn network_of(&mut self, api: &Api, config: &config::Hcloud, link: &PrivateLink) -> Result<NetworkId, Error> {
        let name = match (link.network_id, &config.network) {
            (Some(id), _) => return Ok(id),
            (None, name) => name.clone().unwrap_or_default(),
        };
        if let Ok(number) = name.parse() {
            return Ok(NetworkId(number));
        }
        if let Some(&id) = self.named.get(&name) {
            return Ok(id);
        }
        let network = api.network_named(&name).await?.ok_or_else(|| Error::NoSuchNetwork { name: name.clone() })?;
        self.named.insert(name, network.id);
        Ok(network.id)
    }
}

/// What there is to work with.
enum Connection<'a> {
    /// Nothing to do, and why.
    Idle(Outcome),
    /// The client, and the links whose networks it looks after.
    Open(Arc<Api>, Vec<&'a PrivateLink>),
}

#[cfg(test)]
mod tests;
