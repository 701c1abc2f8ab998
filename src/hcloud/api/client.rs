//! The HTTP client of the API, with a method for each endpoint that the daemon uses.

use std::net::Ipv4Addr;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;

use super::error::{Code, Error};
use super::schema::{
    Action, ActionEnvelope, Network, NetworkEnvelope, NetworksEnvelope, Route, Server, ServersEnvelope,
    parse_error_body,
};
use crate::config::Secret;
use crate::http;
use crate::net::{NetworkId, ServerId};

/// How long a call may take: as in Hetzner's own cloud controller.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer, in bytes. A network with 100 routes, 50 subnets and 100 servers takes less than 20 KiB, a page of 50
/// such networks 1 MiB.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// How many pages of servers are read at most: a network holds 100 servers, a project some more.
const SERVER_PAGES: usize = 20;

/// The project's rate limit, from the headers of the last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The most calls that the project can have left.
    pub limit: u64,
    /// Calls left. One more is added each second.
    pub remaining: u64,
}

/// A client of the API with one token.
#[derive(Debug)]
pub struct Api {
    http: reqwest::Client,
    endpoint: String,
    token: Secret,
    rate_limit: Mutex<Option<RateLimit>>,
}

impl Api {
    /// A client of `endpoint` (with its version, without a trailing slash).
    pub fn new(endpoint: &str, token: Secret) -> Result<Self, Error> {
        let http = http::client(TIMEOUT).map_err(Error::Setup)?;
        Ok(Self { http, endpoint: endpoint.to_owned(), token, rate_limit: Mutex::new(None) })
    }

    /// Whether calls go to `endpoint` with `token`.
    pub fn is_for(&self, endpoint: &str, token: &Secret) -> bool {
        self.endpoint == endpoint && self.token == *token
    }

    /// The project's rate limit; `None` before the first answer.
    pub fn rate_limit(&self) -> Option<RateLimit> {
        *self.rate_limit.lock()
    }

    /// `GET /networks/{id}`
    pub async fn network(&self, id: NetworkId) -> Result<Network, Error> {
        let envelope: NetworkEnvelope = self.call(Method::GET, &format!("/networks/{id}"), &[], None).await?;
        Ok(envelope.network)
    }

    /// `GET /networks?name=…`: the network of that name, if the project has one.
    pub async fn network_named(&self, name: &str) -> Result<Option<Network>, Error> {
        let envelope: NetworksEnvelope = self.call(Method::GET, "/networks", &[("name", name)], None).await?;
        Ok(envelope.networks.into_iter().find(|network| network.name == name))
    }

    /// The server that holds an address in a network, among the first [`SERVER_PAGES`] pages of `GET /servers`.
    pub async fn server_with(&self, network: NetworkId, address: Ipv4Addr) -> Result<Option<ServerId>, Error> {
        for page in 1..=SERVER_PAGES {
            let page = page.to_string();
            let query = [("per_page", "50"), ("page", page.as_str())];
            let ServersEnvelope { servers } = self.call(Method::GET, "/servers", &query, None).await?;
            let is_last = servers.is_empty();
            let holds = |server: &Server| server.private_net.iter().any(|link| link.holds(network, address));
            if let Some(server) = servers.into_iter().find(holds) {
                return Ok(Some(server.id));
            }
            if is_last {
                break;
            }
        }
        Ok(None)
    }

    /// `POST /networks/{id}/actions/add_route`
    pub async fn add_route(&self, network: NetworkId, route: Route) -> Result<Action, Error> {
        self.change(format!("/networks/{network}/actions/add_route"), route).await
    }

    /// `POST /networks/{id}/actions/delete_route`
    pub async fn delete_route(&self, network: NetworkId, route: Route) -> Result<Action, Error> {
        self.change(format!("/networks/{network}/actions/delete_route"), route).await
    }

    /// `GET /actions/{id}`
    pub async fn action(&self, id: u64) -> Result<Action, Error> {
        let envelope: ActionEnvelope = self.call(Method::GET, &format!("/actions/{id}"), &[], None).await?;
        Ok(envelope.action)
    }

    async fn change(&self, path: String, route: Route) -> Result<Action, Error> {
        let envelope: ActionEnvelope = self.call(Method::POST, &path, &[], Some(route)).await?;
        Ok(envelope.action)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Route>,
    ) -> Result<T, Error> {
        let call = format!("{method} {path}");
        let mut request =
            self.http.request(method, format!("{}{path}", self.endpoint)).bearer_auth(self.token.expose());
        if !query.is_empty() {
            request = request.query(query);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let transport = |source| Error::Transport { call: call.clone(), source };
        let response = request.send().await.map_err(|error| transport(error.into()))?;
        tracing::debug!(component = "hcloud", %call, status = response.status().as_u16(), "the API answered");
        self.record_rate_limit(response.headers());
        let answer = Answer::read(response).await.map_err(transport)?;
        answer.parsed(call)
    }

    fn record_rate_limit(&self, headers: &HeaderMap) {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        if let (Some(limit), Some(remaining)) = (number("ratelimit-limit"), number("ratelimit-remaining")) {
            let rate_limit = Some(RateLimit { limit, remaining });
            *self.rate_limit.lock() = rate_limit;
        }
    }
}

/// A complete response.
struct Answer {
    status: reqwest::StatusCode,
    correlation_id: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    async fn read(response: Response) -> Result<Self, http::Error> {
        let status = response.status();
        let correlation_id = response.headers().get("x-correlation-id").and_then(|id| id.to_str().ok());
        let correlation_id = correlation_id.map(|id| id.chars().take(64).collect());
        Ok(Self { status, correlation_id, body: http::read_limited(response, MAX_BODY).await? })
    }

    fn parsed<T: DeserializeOwned>(self, call: String) -> Result<T, Error> {
        if self.status.is_success() {
            return serde_json::from_slice(&self.body).map_err(|source| Error::Unreadable { call, source });
        }
        let status = self.status.as_u16();
        // Logged only: the ID differs each time, but the same error must have the same text.
        let correlation_id = self.correlation_id;
        tracing::info!(component = "hcloud", %call, status, correlation_id, "the API refused a call");
        Err(match parse_error_body(&self.body) {
            Some(error) => Error::Refused {
                call,
                status,
                code: Code::from_name(&error.code),
                message: error.message.chars().take(300).collect(),
            },
            None => Error::Foreign { call, status },
        })
    }
}
