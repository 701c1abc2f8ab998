//! The front door, in the order of the real one: rate limit, path, token, method, permission; and behind it the
//! endpoint. Faults strike before all of it, or on the way out.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Query, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use futures::stream;
use serde_json::{Value, json};

use super::{ApiError, Endpoint, schema};
use crate::cloud::Cloud;
use crate::cloud::actions::Course;
use crate::cloud::change::Change;
use crate::cloud::clock::unix_seconds;
use crate::cloud::faults::Fault;
use crate::cloud::ids::ActionId;
use crate::cloud::project::{Project, RequestRecord};
use crate::cloud::rate_limit::Budget;
use crate::cloud::refusal::Refusal;
use crate::cloud::serve::Line;
use crate::cloud::settings::{Busy, ReadOnlyAnswer};
use crate::cloud::state::{Resource, World};

/// Bodies of more bytes are no requests of this API.
const MAX_BODY: usize = 1 << 20;

/// Where a request leads.
pub(super) enum Target {
    Endpoint(&'static Endpoint),
    /// The path is there, the method is not.
    WrongMethod,
    Nowhere,
}

/// A request on its way to its endpoint.
pub(crate) struct Call<'a> {
    pub(super) project: &'a mut Project,
    pub(super) now: SystemTime,
    pub(super) params: &'a [(String, String)],
    pub(super) query: &'a [(String, String)],
    pub(super) body: &'a [u8],
    /// The address that the client used, for links to other pages.
    pub(super) url: &'a str,
    /// The action to start will fail.
    doomed: bool,
}

/// An endpoint's answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    status: u16,
    body: Option<Value>,
    link: Option<String>,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: 200, body: Some(body), link: None }
    }

    pub(super) fn created(body: Value) -> Self {
        Self { status: 201, body: Some(body), link: None }
    }

    pub(super) fn no_content() -> Self {
        Self { status: 204, body: None, link: None }
    }

    pub(super) fn with_link(self, link: String) -> Self {
        Self { link: Some(link).filter(|link| !link.is_empty()), ..self }
    }
}

impl Call<'_> {
    /// A path parameter as an id. What is no number is the id of nothing.
    pub(super) fn id<T: From<u64>>(&self, name: &str, kind: &str) -> Result<T, ApiError> {
        let text = self.params.iter().find(|(param, _)| param == name).map_or("", |(_, value)| value.as_str());
        text.parse().map(u64::into).map_err(|_| ApiError::not_found(kind, text))
    }

    /// The project's resources as GET shows them.
    pub(super) fn visible(&self) -> World {
        self.project.actions.visible(&self.project.world)
    }

    /// Refuses when a running action holds the resource.
    pub(super) fn check_lock(&self, resource: Resource) -> Result<(), ApiError> {
        if !self.project.actions.locks(resource) {
            return Ok(());
        }
        match resource {
            Resource::Network(id) => {
                let busy = ApiError::from(Refusal::NetworkBusy(id));
                match self.project.settings.busy {
                    Busy::Conflict409 => Err(busy),
                    Busy::Locked423 => Err(ApiError { status: 423, code: "locked".into(), ..busy }),
                }
            }
            Resource::Server(id) => Err(Refusal::ServerLocked(id).into()),
            Resource::FloatingIp(id) => Err(Refusal::FloatingIpLocked(id).into()),
            Resource::PrimaryIp(_) | Resource::Firewall(_) => Ok(()),
        }
    }

    /// Starts an action, if nothing holds what it changes and the change is allowed.
    pub(super) fn start(&mut self, change: Change) -> Result<Answer, ApiError> {
        for resource in change.locks() {
            self.check_lock(resource)?;
        }
        change.apply(&mut self.visible())?;
        let Project { settings, actions, world, .. } = &mut *self.project;
        let course = Course { duration: settings.action_duration, visible: settings.visible, doomed: self.doomed };
        let id = actions.start(world, change, self.now, course);
        // One of no duration has ended by now.
        self.project.settle(self.now);
        Ok(Answer::created(json!({ "action": self.action(id) })))
    }

    fn action(&self, id: ActionId) -> Value {
        self.project.actions.get(id).map_or(Value::Null, |action| schema::action(action, self.now))
    }
}

/// What goes out, before it becomes a response.
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
    fn of(answer: Result<Answer, ApiError>) -> Self {
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

    /// From what stands before the API's backend.
    fn early_error(error: &ApiError) -> Self {
        Self { content_type: Some(JSON_UTF8), body: error.pretty(), chunked: false, ..Self::error(error) }
    }

    /// From a proxy that knows nothing of the API.
    fn proxy_page(status: u16) -> Self {
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Error");
        let body = format!("<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body></body>\r\n</html>\r\n");
        Self { status, content_type: Some("text/html"), body: body.into_bytes(), chunked: false, link: None }
    }
}

/// What a request needs besides its endpoint.
struct Arrived {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Lets one request in, and its answer out.
pub(super) async fn pass(cloud: Cloud, target: Target, params: Vec<(String, String)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let line = parts.extensions.get::<ConnectInfo<Line>>().map(|ConnectInfo(line)| line.clone());
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
    let arrived = Arrived { method: parts.method, uri: parts.uri, headers: parts.headers, body };

    let (reply, budget, fault, ending) = cloud.with(|project, now| {
        let actions = project.actions.iter().count();
        let fault = project.faults.meet(&arrived.method, arrived.uri.path());
        let reply = project.reply(&target, &params, &arrived, fault.as_ref(), now);
        let silent = fault.as_ref().is_some_and(Fault::is_silent);
        project.requests.push(record(&arrived, now, (!silent).then_some(reply.status)));
        let started = project.actions.iter().nth(actions);
        let ending = started.and_then(|action| action.due.duration_since(now).ok());
        (reply, project.bucket.budget(now), fault, ending)
    });
    if let Some(ending) = ending {
        // So that the data plane follows although nobody asks for the action.
        tokio::spawn(async move {
            tokio::time::sleep(ending).await;
            cloud.settle();
        });
    }

    match fault {
        Some(Fault::Timeout { hold, .. }) => {
            tokio::time::sleep(hold).await;
            cut(line.as_ref(), 504)
        }
        Some(Fault::Reset { .. }) => cut(line.as_ref(), 502),
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
            Some(Fault::Status { code, json: true }) => return Reply::error(&ApiError::of_status(*code)),
            Some(Fault::Status { code, json: false }) => return Reply::proxy_page(*code),
            Some(Fault::Api { status, code, message }) => {
                return Reply::error(&ApiError::new(*status, code, message.clone()));
            }
            Some(Fault::Maintenance) => return Reply::error(&ApiError::maintenance()),
            Some(Fault::RateLimited) => {
                return Reply::early_error(&ApiError::rate_limit_exceeded(self.settings.rate_limit.burst));
            }
            // Nobody sees this one.
            Some(fault) if !fault.applies() => return Reply::proxy_page(504),
            _ => {}
        }
        if !self.bucket.take(now) {
            return Reply::early_error(&ApiError::rate_limit_exceeded(self.settings.rate_limit.burst));
        }
        let endpoint = match target {
            Target::Nowhere => return Reply::early_error(&ApiError::no_route()),
            Target::WrongMethod => None,
            Target::Endpoint(endpoint) => Some(endpoint),
        };
        let permitted = self.permit(arrived, endpoint.is_some());
        let doomed = matches!(fault, Some(Fault::ActionFailed));
        Reply::of(permitted.and_then(|()| {
            let endpoint = endpoint.ok_or_else(ApiError::method_not_allowed)?;
            let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(&arrived.uri)
                .map_err(|_| ApiError::new(400, "invalid_input", "invalid query string"))?;
            let host = arrived.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
            let url = format!("http://{host}{}", arrived.uri.path());
            let (body, query) = (arrived.body.as_ref(), query.as_slice());
            (endpoint.answer)(&mut Call { project: self, now, params, query, body, url: &url, doomed })
        }))
    }

    /// Whether the token may do this.
    fn permit(&self, arrived: &Arrived, exists: bool) -> Result<(), ApiError> {
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

/// No answer. Where the connection is out of reach, an empty one.
fn cut(line: Option<&Line>, status: u16) -> Response {
    if let Some(line) = line {
        line.reset();
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

/// Reads a query parameter that may be given once.
pub(super) fn parameter<T: FromStr>(query: &[(String, String)], name: &str) -> Result<Option<T>, ApiError> {
    let given = query.iter().find(|(key, _)| key == name);
    let read = |(_, value): &(String, String)| {
        value.parse().map_err(|_| ApiError::invalid_field(name, "is not a valid value"))
    };
    given.map(read).transpose()
}
