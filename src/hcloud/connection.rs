//! The API client, and which network is behind which link.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::api::Api;
use super::{Error, describe, token};
use crate::config;
use crate::inputs::WantedReturnRoutes;
use crate::net::NetworkId;
use crate::outcome::{Outcome, State};
use crate::site::{PrivateLink, Site};

/// The API client for one endpoint and token, made when it is first needed.
#[derive(Debug, Default)]
pub(super) struct Connection {
    api: Option<Arc<Api>>,
    /// Networks by the name that `HCLOUD_NETWORK` gives.
    by_name: BTreeMap<String, NetworkId>,
}

/// What a pass reads from the API.
pub(super) enum Target<'a> {
    /// Nothing; the outcome says why.
    Nothing(Outcome),
    /// The API, about the networks behind these links.
    Networks {
        api: Arc<Api>,
        links: Vec<&'a PrivateLink>,
        /// Whether the endpoint or the token changed. Then what is known may belong to another project.
        is_new_project: bool,
    },
}

impl Connection {
    /// The client and the links whose networks it reads, or why there is nothing to do.
    pub(super) fn open<'a>(
        &mut self,
        config: &config::Hcloud,
        site: &'a Site,
        return_routes: &WantedReturnRoutes,
    ) -> Result<Target<'a>, Error> {
        if !config.enabled {
            return Ok(Target::Nothing(Outcome::unchanged(State::Off, "hcloud.enabled = false")));
        }
        // The name in HCLOUD_NETWORK can only mean one network.
        let attached = || site.private.iter().filter(|link| !link.is_local);
        let nameless = attached().filter(|link| link.network_id.is_none()).count();
        let named = config.network.is_some() && nameless == 1;
        let links: Vec<&PrivateLink> = attached().filter(|link| link.network_id.is_some() || named).collect();
        if config.network.is_some() && nameless > 1 {
            return Err(Error::OneNameForMany { links: nameless });
        }
        if links.is_empty() {
            return Ok(Target::Nothing(describe::no_network(site)));
        }
        let Some(token) = token::read(&config.token)? else {
            return Ok(Target::Nothing(describe::no_token(config, return_routes, &links)));
        };
        match &self.api {
            Some(api) if api.is_for(&config.endpoint, &token) => {
                Ok(Target::Networks { api: Arc::clone(api), links, is_new_project: false })
            }
            _ => {
                self.by_name.clear();
                let api = Arc::new(Api::new(&config.endpoint, token)?);
                self.api = Some(Arc::clone(&api));
                Ok(Target::Networks { api, links, is_new_project: true })
            }
        }
    }

    /// The project's rate limit; `None` before the first answer.
    pub(super) fn rate_limit(&self) -> Option<super::api::RateLimit> {
        self.api.as_ref().and_then(|api| api.rate_limit())
    }

    /// The link's network: by its id, or by the name that `HCLOUD_NETWORK` gives.
    pub(super) async fn network_of(
        &mut self,
        api: &Api,
        config: &config::Hcloud,
        link: &PrivateLink,
    ) -> Result<NetworkId, Error> {
        let name = match (link.network_id, &config.network) {
            (Some(id), _) => return Ok(id),
            (None, name) => name.clone().unwrap_or_default(),
        };
        if let Ok(number) = name.parse() {
            return Ok(NetworkId(number));
        }
        if let Some(&id) = self.by_name.get(&name) {
            return Ok(id);
        }
        let network = api.network_named(&name).await?.ok_or_else(|| Error::NoSuchNetwork { name: name.clone() })?;
        self.by_name.insert(name, network.id);
        Ok(network.id)
    }

    /// Forgets the IDs of names: a network may have been deleted and created again with another ID.
    pub(super) fn forget_names(&mut self) {
        self.by_name.clear();
    }
}
