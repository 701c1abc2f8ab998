//! The cloud routes that belong to this daemon, remembered over restarts, moves and changed files.
//!
//! The API knows no owner of a route: no label, no description. A route is this daemon's once the daemon added it or
//! reported it as its own, and it stays so although the server's address or the configuration changes meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::model::CloudRoute;
use crate::error::chain;
use crate::net::{NetworkId, ServerId};
use crate::state;

/// The file in the state directory.
const FILE: &str = "cloud-routes.json";
/// The most networks that are remembered: a server is attached to three at a time.
const MAX_NETWORKS: usize = 64;

/// The routes, by network.
#[derive(Debug, Default)]
pub(super) struct OwnedRoutes {
    /// `None`: nothing is kept.
    file: Option<PathBuf>,
    content: Content,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// The server whose routes these are; `None` while its number is not known.
    server: Option<ServerId>,
    networks: BTreeMap<NetworkId, BTreeSet<CloudRoute>>,
}

impl OwnedRoutes {
    /// Reads what the last daemon kept.
    pub(super) fn load(state_directory: &Path) -> Self {
        let file = state_directory.join(FILE);
        let mut content: Content = state::read_json(&file).unwrap_or_default();
        while content.networks.len() > MAX_NETWORKS {
            content.networks.pop_last();
        }
        Self { file: Some(file), content }
    }

    /// Takes notice of this server's number. What another server kept here, before a snapshot was made of it, is
    /// that server's.
    pub(super) fn of_server(&mut self, server: Option<ServerId>) {
        if server.is_none() || self.content.server == server {
            return;
        }
        let before = std::mem::replace(&mut self.content.server, server);
        if before.is_some() {
            self.content.networks.clear();
        }
    }

    /// This daemon's routes in the network, whether or not they are there still.
    pub(super) fn in_network(&self, network: NetworkId) -> BTreeSet<CloudRoute> {
        self.content.networks.get(&network).cloned().unwrap_or_default()
    }

    /// Replaces what is remembered of a network.
    pub(super) fn set(&mut self, network: NetworkId, routes: BTreeSet<CloudRoute>) {
        if self.in_network(network) == routes {
            return;
        }
        if routes.is_empty() {
            self.content.networks.remove(&network);
        } else {
            self.content.networks.insert(network, routes);
        }
        let Some(file) = &self.file else { return };
        if let Err(error) = state::write_json(file, &self.content) {
            let error = chain(&error);
            tracing::warn!(component = "hcloud", error, "routes that the next start no longer wants will stay");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> CloudRoute {
        let (destination, gateway) = text.split_once(" via ").unwrap();
        CloudRoute { destination: destination.parse().unwrap(), gateway: gateway.parse().unwrap() }
    }

    #[test]
    fn routes_are_remembered_by_the_next_start_of_the_same_server() {
        let directory = tempfile::tempdir().unwrap();
        let routes = BTreeSet::from([route("0.0.0.0/0 via 10.0.0.2")]);
        let mut first = OwnedRoutes::load(directory.path());
        first.of_server(Some(ServerId(1)));
        first.set(NetworkId(7), routes.clone());
        let mut next = OwnedRoutes::load(directory.path());
        next.of_server(None);
        assert_eq!(next.in_network(NetworkId(7)), routes);
        next.of_server(Some(ServerId(1)));
        assert_eq!(next.in_network(NetworkId(7)), routes);
        assert_eq!(next.in_network(NetworkId(8)), BTreeSet::new());
    }

    #[test]
    fn a_server_made_from_a_snapshot_owns_none_of_the_first_ones_routes() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = OwnedRoutes::load(directory.path());
        first.of_server(Some(ServerId(1)));
        first.set(NetworkId(7), BTreeSet::from([route("0.0.0.0/0 via 10.0.0.2")]));
        let mut copy = OwnedRoutes::load(directory.path());
        copy.of_server(Some(ServerId(2)));
        assert_eq!(copy.in_network(NetworkId(7)), BTreeSet::new());
    }

    #[test]
    fn a_torn_file_is_the_same_as_none() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), b"{\"server\":1,\"networks\":{\"7\":[{\"dest").unwrap();
        assert_eq!(OwnedRoutes::load(directory.path()).in_network(NetworkId(7)), BTreeSet::new());
    }
}
