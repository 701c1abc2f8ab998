//! The routes in the Hetzner Networks that lead the networks' traffic here.
//!
//! Ours: the destinations that the configuration names, in the networks this server is attached to. Every other route stays,
//! and so does one of ours that names somebody else, unless `hcloud.take_over` says otherwise.

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
pub use model::{CloudRoute, NetworkTable, desired};
pub use observe::RouteTables;
use pace::Last;
pub use plan::{Contest, Obstacle, Plan, plan, withdrawal};

use crate::config;
use crate::net::NetworkId;
use crate::report::{Outcome, Problem, State, chain};
use crate::site::{PrivateLink, Site};

/// Why the routes of a network could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] token::Error),
    /// A call failed.
    #[error(transparent)]
    Api(#[from] api::Error),
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
            Self::Token(_) => "check hcloud.token_file or the systemd credential hcloud-token",
            Self::Api(error) => error.advice(),
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
    /// Passes in a row that failed and may succeed soon.
    failing: u32,
}

impl Hcloud {
    /// Makes the routes as the configuration wants them; the outcome, and when to look again.
    pub async fn reconcile(&mut self, config: &config::Hcloud, site: &Site) -> (Outcome, Duration) {
        let (outcome, transient) = match self.connect(config, site) {
            Err(error) => (Outcome::failed(&error, error.advice()), error.is_transient()),
            Ok(Connection::Idle(outcome)) => (outcome, false),
            Ok(Connection::Open(api, links)) => self.reconcile_links(&api, config, &links).await,
        };
        self.failing = if transient { self.failing.saturating_add(1) } else { 0 };
        let last = if transient { Last::Failing { times: self.failing } } else { Last::Settled };
        let rate_limit = self.api.as_ref().and_then(|api| api.rate_limit());
        (outcome, pace::next_look(last, site.private.len(), config.poll_interval, rate_limit, fastrand::f64()))
    }

    /// What the next pass would do, a line each.
    pub async fn preview(&mut self, config: &config::Hcloud, site: &Site) -> Result<Vec<String>, Error> {
        let Connection::Open(api, links) = self.connect(config, site)? else { return Ok(Vec::new()) };
        let mut steps = Vec::new();
        for link in links {
            let network = self.network_of(&api, config, link).await?;
            let table = api.table(network).await?;
            let plan = plan(&desired(config, link), &table, link, config.take_over);
            let name = outcome::network_name(&table);
            steps.extend(plan.withdraw.iter().map(|route| format!("delete route {route} of {name}")));
            steps.extend(plan.claim.iter().map(|route| format!("add route {route} to {name}")));
        }
        Ok(steps)
    }

    /// Withdraws the routes that are ours: what was done, and what could not be.
    pub async fn remove(&mut self, config: &config::Hcloud, site: &Site) -> (Vec<String>, Vec<Problem>) {
        let (api, links) = match self.connect(config, site) {
            Ok(Connection::Open(api, links)) => (api, links),
            Ok(Connection::Idle(outcome)) => return (Vec::new(), outcome.problems),
            Err(error) => return (Vec::new(), vec![Problem::new(chain(&error), error.advice())]),
        };
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        for link in links {
            match self.remove_link(&api, config, link).await {
                Ok((done, failed)) => {
                    changes.extend(done);
                    problems.extend(failed.iter().map(|error| Problem::new(chain(error), error.advice())));
                }
                Err(error) => problems.push(Problem::new(chain(&error), error.advice())),
            }
        }
        (changes, problems)
    }

    async fn remove_link(
        &mut self,
        api: &Api,
        config: &config::Hcloud,
        link: &PrivateLink,
    ) -> Result<(Vec<String>, Vec<api::Error>), Error> {
        let network = self.network_of(api, config, link).await?;
        let table = api.table(network).await?;
        let withdraw = withdrawal(&desired(config, link), &table, link);
        let plan = Plan { withdraw, ..Plan::default() };
        let errors = apply(api, network, &plan).await;
        self.stood.remove(&network);
        Ok((outcome::changes(&plan, &api.table(network).await?), errors))
    }

    /// The client and the links to look after, or why there is nothing to do.
    fn connect<'a>(&mut self, config: &config::Hcloud, site: &'a Site) -> Result<Connection<'a>, Error> {
        if !config.enabled {
            return Ok(Connection::Idle(Outcome::unchanged(State::Off, "hcloud.enabled = false")));
        }
        let known = |link: &&PrivateLink| link.network_id.is_some() || config.network.is_some();
        let links: Vec<&PrivateLink> = site.private.iter().filter(known).collect();
        if links.is_empty() {
            return Ok(Connection::Idle(outcome::no_network(site)));
        }
        let Some(token) = token::read(&config.token)? else {
            return Ok(Connection::Idle(outcome::no_token(config, &links)));
        };
        let api = match &self.api {
            Some(api) if api.speaks_to(&config.endpoint, &token) => Arc::clone(api),
            _ => Arc::new(Api::new(&config.endpoint, token)?),
        };
        self.api = Some(Arc::clone(&api));
        Ok(Connection::Open(api, links))
    }

    /// One network after the other; the whole, and whether trying again soon may help.
    async fn reconcile_links(&mut self, api: &Api, config: &config::Hcloud, links: &[&PrivateLink]) -> (Outcome, bool) {
        let (mut outcomes, mut transient) = (Vec::new(), false);
        for link in links {
            let (outcome, may_pass) = match self.reconcile_link(api, config, link).await {
                Ok(outcome) => outcome,
                Err(error) => (outcome::failed_link(link, &error), error.is_transient()),
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
        link: &PrivateLink,
    ) -> Result<(Outcome, bool), Error> {
        if !link.address_present {
            // Traffic that cannot be answered must not be attracted.
            return Ok((outcome::no_address(link), false));
        }
        let network = self.network_of(api, config, link).await?;
        let desired = desired(config, link);
        let table = api.table(network).await?;
        let first = plan(&desired, &table, link, config.take_over);
        if table.subnets.is_empty() && !first.claim.is_empty() {
            return Ok((outcome::no_subnet(&table), false));
        }
        if first.withdraw.is_empty() && first.claim.is_empty() {
            if first.is_settled() {
                self.stood.insert(network, desired);
            }
            return Ok((outcome::standing(&table, link, &first), false));
        }
        let errors = apply(api, network, &first).await;
        let repaired = self.stood.get(&network) == Some(&desired);
        // What the API answered is one thing, what the network holds now is what counts.
        let table = api.table(network).await?;
        let rest = plan(&desired, &table, link, config.take_over);
        let unfinished = !rest.withdraw.is_empty() || !rest.claim.is_empty();
        if rest.is_settled() {
            self.stood.insert(network, desired);
        }
        let may_pass = errors.is_empty() || errors.iter().any(api::Error::is_transient);
        let changes = outcome::changes(&first, &table);
        let outcome = Outcome { changes, repaired, ..outcome::after_changes(&table, link, &rest, &errors) };
        Ok((outcome, unfinished && may_pass))
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
