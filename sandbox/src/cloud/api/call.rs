//! What an endpoint is, gets and gives: [`Endpoint`], [`Call`], [`Answer`].

use std::str::FromStr;
use std::time::SystemTime;

use axum::http::Method;
use axum::routing::MethodFilter;
use serde_json::{Value, json};

use super::error::ApiError;
use super::schema;
use crate::cloud::model::change::Change;
use crate::cloud::model::ids::{ActionId, ResourceId};
use crate::cloud::model::refusal::Refusal;
use crate::cloud::model::resources::Resources;
use crate::cloud::project::Project;
use crate::cloud::project::actions::ActionOptions;
use crate::cloud::project::settings::Busy;

/// One method on one path, and the function that answers it.
pub(crate) struct Endpoint {
    pub(super) method: Method,
    pub(super) filter: MethodFilter,
    /// Below `/v1`, parameters in braces, as in the OpenAPI document.
    pub(super) path: &'static str,
    pub(super) answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>,
}

impl Endpoint {
    pub(super) const fn get(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::GET, filter: MethodFilter::GET, path, answer }
    }

    pub(super) const fn post(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::POST, filter: MethodFilter::POST, path, answer }
    }

    pub(super) const fn put(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::PUT, filter: MethodFilter::PUT, path, answer }
    }

    pub(super) const fn delete(path: &'static str, answer: fn(&mut Call<'_>) -> Result<Answer, ApiError>) -> Self {
        Self { method: Method::DELETE, filter: MethodFilter::DELETE, path, answer }
    }
}

/// A request that passed the rate limit and the checks of the token.
pub(crate) struct Call<'a> {
    pub(super) project: &'a mut Project,
    pub(super) now: SystemTime,
    pub(super) params: &'a [(String, String)],
    pub(super) query: &'a [(String, String)],
    pub(super) body: &'a [u8],
    /// The URL without its query, for links to other pages of a list.
    pub(super) url: &'a str,
    /// Whether the action that this call starts fails at its end.
    pub(super) action_fails: bool,
}

/// An endpoint's answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(super) status: u16,
    pub(super) body: Option<Value>,
    /// The `Link` header.
    pub(super) link: Option<String>,
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
    /// A path parameter as an id. A text that is not a number gets the answer for an unknown id.
    pub(super) fn id<T: From<u64>>(&self, name: &str, kind: &str) -> Result<T, ApiError> {
        let text = self.params.iter().find(|(param, _)| param == name).map_or("", |(_, value)| value.as_str());
        text.parse().map(u64::into).map_err(|_| ApiError::not_found(kind, text))
    }

    /// The project's resources as GET shows them.
    pub(super) fn visible(&self) -> Resources {
        self.project.actions.visible(&self.project.resources)
    }

    /// Refuses when a running action has locked the resource.
    pub(super) fn check_lock(&self, resource: ResourceId) -> Result<(), ApiError> {
        if !self.project.actions.locks(resource) {
            return Ok(());
        }
        match resource {
            ResourceId::Network(id) => {
                let busy = ApiError::from(Refusal::NetworkBusy(id));
                match self.project.settings.busy {
                    Busy::Conflict409 => Err(busy),
                    Busy::Locked423 => Err(ApiError { status: 423, code: "locked".into(), ..busy }),
                }
            }
            ResourceId::Server(id) => Err(Refusal::ServerLocked(id).into()),
            ResourceId::FloatingIp(id) => Err(Refusal::FloatingIpLocked(id).into()),
            ResourceId::PrimaryIp(_) | ResourceId::Firewall(_) => Ok(()),
        }
    }

    /// Starts an action if the change is allowed and no running action has locked what it changes.
    pub(super) fn start(&mut self, change: Change) -> Result<Answer, ApiError> {
        for resource in change.locks() {
            self.check_lock(resource)?;
        }
        change.apply(&mut self.visible())?;
        let Project { settings, actions, resources, .. } = &mut *self.project;
        let options =
            ActionOptions { duration: settings.action_duration, visible: settings.visible, fails: self.action_fails };
        let id = actions.start(resources, change, self.now, options);
        // An action without a duration ends at once.
        self.project.settle(self.now);
        Ok(Answer::created(json!({ "action": self.action(id) })))
    }

    fn action(&self, id: ActionId) -> Value {
        self.project.actions.get(id).map_or(Value::Null, |action| schema::action(action, self.now))
    }
}

/// The first value of a query parameter.
pub(super) fn parameter<T: FromStr>(query: &[(String, String)], name: &str) -> Result<Option<T>, ApiError> {
    let given = query.iter().find(|(key, _)| key == name);
    let read = |(_, value): &(String, String)| {
        value.parse().map_err(|_| ApiError::invalid_field(name, "is not a valid value"))
    };
    given.map(read).transpose()
}
