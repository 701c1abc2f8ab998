//! The API's HTTP side: a table of endpoints, each a function from a request and the project to an answer.

mod actions;
mod body;
mod error;
mod floating_ips;
mod front;
mod listing;
mod locations;
mod networks;
mod others;
mod schema;
mod servers;

use axum::Router;
use axum::extract::{RawPathParams, Request};
use axum::http::Method;
use axum::routing::{MethodFilter, on};

use super::Cloud;
use front::{Call, Target};

pub(crate) use error::ApiError;
pub(crate) use front::Answer;

/// One method on one path.
pub(crate) struct Endpoint {
    method: Method,
    filter: MethodFilter,
    /// Below `/v1`, parameters in braces, as in the OpenAPI document.
    path: &'static str,
    answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>,
}

impl Endpoint {
    const fn get(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::GET, filter: MethodFilter::GET, path, answer }
    }

    const fn post(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::POST, filter: MethodFilter::POST, path, answer }
    }

    const fn put(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::PUT, filter: MethodFilter::PUT, path, answer }
    }

    const fn delete(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::DELETE, filter: MethodFilter::DELETE, path, answer }
    }
}

const TABLES: [&[Endpoint]; 6] = [
    actions::ENDPOINTS,
    networks::ENDPOINTS,
    servers::ENDPOINTS,
    floating_ips::ENDPOINTS,
    others::ENDPOINTS,
    locations::ENDPOINTS,
];

/// Every endpoint that a [`Cloud`] answers: method, and path below `/v1` with its parameters in braces. The router is
/// made from the same table, so whoever checks all of these has checked all there is.
pub fn endpoints() -> impl Iterator<Item = (Method, &'static str)> {
    TABLES.into_iter().flatten().map(|endpoint| (endpoint.method.clone(), endpoint.path))
}

impl Cloud {
    /// The API below `/v1`. Resets need the connection itself: see [`Cloud::serve`].
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for endpoint in TABLES.into_iter().flatten() {
            let cloud = self.clone();
            let answer = move |params: RawPathParams, request: Request| {
                let params = params.iter().map(|(name, value)| (name.into(), value.into())).collect();
                front::pass(cloud.clone(), Target::Endpoint(endpoint), params, request)
            };
            router = router.route(&format!("/v1{}", endpoint.path), on(endpoint.filter, answer));
        }
        let elsewhere = |target: fn() -> Target| {
            let cloud = self.clone();
            move |request: Request| front::pass(cloud.clone(), target(), Vec::new(), request)
        };
        router.method_not_allowed_fallback(elsewhere(|| Target::WrongMethod)).fallback(elsewhere(|| Target::Nowhere))
    }
}
