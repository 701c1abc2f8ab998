//! The path of a request, in the order of the real API: rate limit, path, token, method, permission, endpoint. Faults
//! take effect before all of them, or on the answer.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Query, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use futures::stream;

use super::call::{Answer, Call, Endpoint};
use super::connection::ResetSwitch;
use super::error::ApiError;
use crate::cloud::project::clock::unix_seconds;
use crate::cloud::project::cloud::Cloud;
use crate::cloud::project::faults::Fault;
use crate::cloud::project::rate_limit::Budget;
use crate::cloud::project::settings::ReadOnlyAnswer;
use crate::cloud::project::{Project, RequestRecord};

/// The longest request body, in bytes; a longer one is read as empty.
const MAX_BODY: usize = 1 << 20;

/// What the path and the method of a request select.
pub(super) enum Target {
    Endpoint(&'static Endpoint),
    /// The path exists, but not with this method.
    WrongMethod,
    UnknownPath,
}

/// An answer before it becomes an HTTP response.
#[derive(Debug)]
struct Reply {
    status: u16,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    chunked: bool,
    link: Option<String>,
}

const JSON: &str = "application/json";
const JSON_UTF8: &str = "application/json; charset=UTF-8";

impl Reply {
    fn from_answer(answer: Result<Answer, ApiError>) -> Self {
        match answer {
            Ok(Answer { status, body, link }) => {
                let content_type = body.as_ref().map(|_| JSON);
                let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
                Self { status, content_type, body, chunked: false, link }
            }
            Err(error) => Self::error(&error),
        }
    }

    fn error(error: &ApiError) -> Self {
        let (status, body) = (error.status, error.compact());
        // A 401 comes chunked from the real API, everything else with its length.
        Self { status, content_type: Some(JSON), body, chunked: status == 401, link: None }
    }

    /// An error of the proxy in front of the API's backend.
    fn early_error(error: &ApiError) -> Self {
        Self { content_type: Some(JSON_UTF8), body: error.pretty(), chunked: false, ..Self::error(error) }
    }

    /// The error page of a proxy that does not know the API.
    fn proxy_page(status: u16) -> Self {
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
        let body = format!("<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body></body>\r\n</html>\r\n");
        Self { status, content_type: Some("text/html"), body: body.into_bytes(), chunked: false, link: None }
    }
}

/// A request that has arrived completely.
struct Arrived {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Answers one request.
pub(super) async fn handle(cloud: Cloud, target: Target, params: Vec<(String, String)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let switch = parts.extensions.get::<ConnectInfo<ResetSwitch>>().map(|ConnectInfo(switch)| switch.clone());
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let arrived = Arrived { method: parts.method, uri: parts.uri, headers: parts.headers, body };

    let (reply, budget, fault, time_left) = cloud.with_project(|project, now| {
        let actions = project.actions.iter().count();
        let fault = project.faults.take_matching(&arrived.method, arrived.uri.path());
        let reply = project.reply(&target, &params, &arrived, fault.as_ref(), now);
        let silent = fault.as_ref().is_some_and(Fault::is_silent);
        project.requests.push(record(&arrived, now, (!silent).then_some(reply.status)));
        let started = project.actions.iter().nth(actions);
        let time_left = started.and_then(|action| action.due.duration_since(now).ok());
        (reply, project.bucket.budget(now), fault, time_left)
    });
    if let Some(time_left) = time_left {
        // The data plane follows at the end of the action, even if no client polls it.
        tokio::spawn(async move {
            tokio::time::sleep(time_left).await;
            cloud.settle();
        });
    }

    match fault {
        Some(Fault::Timeout { hold, .. }) => {
            tokio::time::sleep(hold).await;
            no_answer(switch.as_ref(), 504)
        }
        Some(Fault::Reset { .. }) => no_answer(switch.as_ref(), 502),
        Some(Fault::TruncatedJson) => {
            let half = reply.body.len() / 2;
            respond(Reply { body: reply.body[..half].to_vec(), ..reply }, &budget, None)
        }
        Some(Fault::SlowBody { per_byte }) => respond(reply, &budget, Some(per_byte)),
        Some(Fault::RateLimited) => respond(reply, &Budget { remaining: 0, ..budget }, None),
        _ => respond(reply, &budget, None),
    }
}

impl Project {
    fn reply(
        &mut self,
        target: &Target,
        params: &[(String, String)],
        arrived: &Arrived,
        fault: Option<&Fault>,
        now: SystemTime,
    ) -> Reply {
        match fault {
            Some(Fault::Status { code, json: true }) => return Reply::error(&ApiError::from_status(*code)),
            Some(Fault::Status { code, json: false }) => return Reply::proxy_page(*code),
            Some(Fault::Api { status, code, message }) => {
                return Reply::error(&ApiError::new(*status, code, message.clone()));
            }
            Some(Fault::Maintenance) => return Reply::error(&ApiError::maintenance()),
            Some(Fault::RateLimited) => {
                return Reply::early_error(&ApiError::rate_limit_exceeded(self.settings.rate_limit.burst));
            }
            // The client does not get this reply.
            Some(fault) if !fault.applies() => return Reply::proxy_page(504),
            _ => {}
        }
        if !self.bucket.take(now) {
            return Reply::early_error(&ApiError::rate_limit_exceeded(self.settings.rate_limit.burst));
        }
        let endpoint = match target {
            Target::UnknownPath => return Reply::early_error(&ApiError::no_route()),
            Target::WrongMethod => None,
            Target::Endpoint(endpoint) => Some(endpoint),
        };
        let permitted = self.check_token(arrived, endpoint.is_some());
        let action_fails = matches!(fault, Some(Fault::ActionFailed));
        Reply::from_answer(permitted.and_then(|()| {
            let endpoint = endpoint.ok_or_else(ApiError::method_not_allowed)?;
            let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&arrived.uri)
                .map_err(|_| ApiError::new(400, "invalid_input", "invalid query string"))?;
            let host = arrived.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
            let url = format!("http://{host}{}", arrived.uri.path());
            let (body, query) = (arrived.body.as_ref(), query.as_slice());
            (endpoint.answer)(&mut Call { project: self, now, params, query, body, url: &url, action_fails })
        }))
    }

    /// Checks the token, and whether it may write.
    fn check_token(&self, arrived: &Arrived, exists: bool) -> Result<(), ApiError> {
        let header = arrived.headers.get(header::AUTHORIZATION).ok_or_else(ApiError::token_required)?;
        let token = header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().trim();
        let reads = matches!(arrived.method, Method::GET | Method::HEAD);
        if token == self.settings.token {
            return Ok(());
        }
        if token != self.settings.read_only_token {
            return Err(ApiError::token_invalid());
        }
        match self.settings.read_only_answer {
            _ if reads || !exists => Ok(()),
            ReadOnlyAnswer::TokenReadonly401 => Err(ApiError::token_readonly()),
            ReadOnlyAnswer::Forbidden403 => Err(ApiError::forbidden()),
        }
    }
}

fn record(arrived: &Arrived, at: SystemTime, status: Option<u16>) -> RequestRecord {
    RequestRecord {
        at,
        method: arrived.method.to_string(),
        path: arrived.uri.path().into(),
        query: arrived.uri.query().map(Into::into),
        status,
        user_agent: arrived
            .headers
            .get(header::USER_AGENT)
            .map(|agent| String::from_utf8_lossy(agent.as_bytes()).into()),
        body: String::from_utf8_lossy(&arrived.body).into(),
    }
}

/// Resets the connection. A router that is served without [`ResetSwitch`] answers with `status` and an empty body.
fn no_answer(switch: Option<&ResetSwitch>, status: u16) -> Response {
    if let Some(switch) = switch {
        switch.reset();
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response
}

/// The headers of every answer, as reported from the live API in vitobotta/hetzner-k3s#64.
fn respond(reply: Reply, budget: &Budget, per_byte: Option<Duration>) -> Response {
    let body = match per_byte {
        Some(per_byte) => trickle(reply.body, per_byte),
        None if reply.chunked => Body::from_stream(stream::iter([Ok::<_, Infallible>(reply.body)])),
        None => reply.body.into(),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(content_type) = reply.content_type {
        set("content-type", content_type);
    }
    if let Some(link) = &reply.link {
        set("link", link);
    }
    set("ratelimit-limit", &budget.limit.to_string());
    set("ratelimit-remaining", &budget.remaining.to_string());
    set("ratelimit-reset", &unix_seconds(budget.full_again).to_string());
    set("x-correlation-id", &format!("{:016x}", fastrand::u64(..)));
    set("strict-transport-security", "max-age=15724800; includeSubDomains");
    set("access-control-allow-origin", "*");
    set("access-control-allow-credentials", "true");
    response
}

fn trickle(body: Vec<u8>, per_byte: Duration) -> Body {
    Body::from_stream(stream::unfold(body.into_iter(), move |mut rest| async move {
        let byte = rest.next()?;
        tokio::time::sleep(per_byte).await;
        Some((Ok::<_, Infallible>(vec![byte]), rest))
    }))
}
