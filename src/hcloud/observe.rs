//! The boundary to the cloud in our nouns, and the API behind it.

use std::future::Future;

use super::api::{Api, Code, Error, Route};
use super::model::{CloudRoute, NetworkTable};
use crate::net::NetworkId;

/// What the room needs of the cloud.
pub trait RouteTables {
    /// Reads a network.
    fn table(&self, network: NetworkId) -> impl Future<Output = Result<NetworkTable, Error>> + Send;
    /// Adds a route, and waits until it is there.
    fn claim(&self, network: NetworkId, route: CloudRoute) -> impl Future<Output = Result<(), Error>> + Send;
    /// Deletes a route, and waits until it is gone; one that is not there is gone.
    fn withdraw(&self, network: NetworkId, route: CloudRoute) -> impl Future<Output = Result<(), Error>> + Send;
}

impl RouteTables for Api {
    async fn table(&self, network: NetworkId) -> Result<NetworkTable, Error> {
        let network = self.network(network).await?;
        // The API masks destinations; compare the canonical form all the same.
        let route = |route: Route| CloudRoute { destination: route.destination.trunc(), gateway: route.gateway };
        Ok(NetworkTable {
            id: network.id,
            name: network.name,
            subnets: network.subnets.iter().filter_map(|subnet| subnet.ip_range).collect(),
            routes: network.routes.into_iter().map(route).collect(),
        })
    }

    async fn claim(&self, network: NetworkId, route: CloudRoute) -> Result<(), Error> {
        let action = self.add_route(network, body(route)).await?;
        self.ended(action).await
    }

    async fn withdraw(&self, network: NetworkId, route: CloudRoute) -> Result<(), Error> {
        match self.delete_route(network, body(route)).await {
            Ok(action) => self.ended(action).await,
            Err(error) if error.code() == Some(&Code::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn body(route: CloudRoute) -> Route {
    Route { destination: route.destination, gateway: route.gateway }
}
