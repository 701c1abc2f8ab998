//! The interface to the cloud's route tables, its implementation with the API, and what a pass reads through it.

use std::future::Future;
use std::sync::Arc;

use super::api::{Api, Code, Error, Route};
use super::model::{CloudRoute, NetworkTable};
use crate::net::NetworkId;
use crate::outcome::Outcome;
use crate::site::PrivateLink;

/// The operations on the cloud that the component needs.
pub(super) trait RouteTables {
    /// Reads a network.
    fn table(&self, network: NetworkId) -> impl Future<Output = Result<NetworkTable, Error>> + Send;
    /// Adds a route, and waits until it is there.
    fn claim(&self, network: NetworkId, route: CloudRoute) -> impl Future<Output = Result<(), Error>> + Send;
    /// Deletes a route, and waits until it is gone. Deleting a route that is not there succeeds.
    fn withdraw(&self, network: NetworkId, route: CloudRoute) -> impl Future<Output = Result<(), Error>> + Send;
}

impl RouteTables for Api {
    async fn table(&self, network: NetworkId) -> Result<NetworkTable, Error> {
        let network = self.network(network).await?;
        // The API removes host bits of destinations; this does not rely on it.
        let route = |route: Route| CloudRoute { destination: route.destination.trunc(), gateway: route.gateway };
        let vswitches = network.subnets.iter().filter(|subnet| subnet.kind.as_deref() == Some("vswitch"));
        Ok(NetworkTable {
            vswitches: vswitches.filter_map(|subnet| subnet.ip_range).collect(),
            exposes_routes: network.expose_routes_to_vswitch,
            id: network.id,
            name: network.name,
            subnets: network.subnets.iter().filter_map(|subnet| subnet.ip_range).collect(),
            routes: network.routes.into_iter().map(route).collect(),
        })
    }

    async fn claim(&self, network: NetworkId, route: CloudRoute) -> Result<(), Error> {
        let action = self.add_route(network, request_body(route)).await?;
        self.wait_for(action).await
    }

    async fn withdraw(&self, network: NetworkId, route: CloudRoute) -> Result<(), Error> {
        match self.delete_route(network, request_body(route)).await {
            Ok(action) => self.wait_for(action).await,
            Err(error) if error.code() == Some(&Code::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn request_body(route: CloudRoute) -> Route {
    Route { destination: route.destination, gateway: route.gateway }
}

/// What a pass finds in the cloud.
#[derive(Debug)]
pub enum Observed {
    /// The cloud was not asked; the outcome says why.
    NotAsked(Outcome),
    /// The networks behind the private links.
    Networks {
        /// The client that read them.
        api: Arc<Api>,
        /// One entry for each link with a network.
        links: Vec<ObservedLink>,
    },
}

/// A private link, and the network behind it.
#[derive(Debug)]
pub struct ObservedLink {
    /// The link.
    pub link: PrivateLink,
    /// The network behind the link.
    pub network: ObservedNetwork,
}

/// A network, or why it was not read.
#[derive(Debug)]
pub enum ObservedNetwork {
    /// The link's address is missing.
    NoAddress,
    /// The kernel routes the network's packets elsewhere.
    Misrouted,
    /// It was read.
    Table(NetworkTable),
    /// It could not be read.
    Failed(super::Error),
}
