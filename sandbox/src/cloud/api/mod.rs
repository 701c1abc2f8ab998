//! The API's HTTP side: a table of endpoints, each a function from a request and the project to an answer.

mod actions;
mod body;
mod call;
pub(crate) mod connection;
mod error;
mod floating_ips;
mod handler;
mod listing;
mod locations;
mod networks;
mod read_only;
mod schema;
mod servers;

use axum::Router;
use axum::extract::{RawPathParams, Request};
use axum::http::Method;
use axum::routing::on;

use call::Endpoint;
use handler::Target;

use crate::cloud::project::cloud::Cloud;

const TABLES: [&[Endpoint]; 6] = [
    actions::ENDPOINTS,
    networks::ENDPOINTS,
    servers::ENDPOINTS,
    floating_ips::ENDPOINTS,
    read_only::ENDPOINTS,
    locations::ENDPOINTS,
];

/// Every endpoint that a [`Cloud`] answers: the method, and the path below `/v1` with its parameters in braces. The
/// router is made from the same table, so this list is complete.
pub fn endpoints() -> impl Iterator<Item = (Method, &'static str)> {
    TABLES.into_iter().flatten().map(|endpoint| (endpoint.method.clone(), endpoint.path))
}

impl Cloud {
    /// The API below `/v1`. Resets need access to the connection: see [`Cloud::serve`].
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for endpoint in TABLES.into_iter().flatten() {
            let cloud = self.clone();
            let answer = move |params: RawPathParams, request: Request| {
                let params = params.iter().map(|(name, value)| (name.into(), value.into())).collect();
                handler::handle(cloud.clone(), Target::Endpoint(endpoint), params, request)
            };
            router = router.route(&format!("/v1{}", endpoint.path), on(endpoint.filter, answer));
        }
        let error = |target: fn() -> Target| {
            let cloud = self.clone();
            move |request: Request| handler::handle(cloud.clone(), target(), Vec::new(), request)
        };
        router.method_not_allowed_fallback(error(|| Target::WrongMethod)).fallback(error(|| Target::UnknownPath))
    }
}
