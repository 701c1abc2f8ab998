//! `/actions`, and the lists of actions below other resources.

use serde_json::json;

use super::call::{Answer, Call, Endpoint};
use super::error::ApiError;
use super::listing::{Key, filter, page, sort};
use super::schema;
use crate::cloud::model::ids::{ActionId, ResourceId};
use crate::cloud::project::actions::Action;

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint::get("/actions", list), Endpoint::get("/actions/{id}", get)];

const KEYS: &[Key<Action>] = &[
    ("id", |a, b| a.id.cmp(&b.id)),
    ("command", |a, b| a.change.command().cmp(b.change.command())),
    ("status", |a, b| a.status().cmp(&b.status())),
    ("started", |a, b| a.started.cmp(&b.started)),
    ("finished", |a, b| a.finished().cmp(&b.finished())),
];

/// The actions with the given `id`s that exist. Listing all actions was removed on 2025-01-30.
fn list(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    let ids: Vec<&str> = call.query.iter().filter(|(key, _)| key == "id").map(|(_, id)| id.as_str()).collect();
    if ids.is_empty() {
        let announcement = "https://docs.hetzner.cloud/changelog\
                            #2025-01-30-listing-arbitrary-actions-in-the-actions-list-endpoint-is-removed";
        return Err(ApiError::removed(announcement));
    }
    let ids: Result<Vec<u64>, _> = ids.into_iter().map(str::parse).collect();
    let ids = ids.map_err(|_| ApiError::invalid_field("id", "must be an ID"))?;
    let actions = call.project.actions.iter().filter(|action| ids.contains(&action.id.0));
    let actions: Vec<_> = actions.map(|action| schema::action(action, call.now)).collect();
    Ok(Answer::ok(json!({ "actions": actions })))
}

fn get(call: &mut Call<'_>) -> Result<Answer, ApiError> {
    find_action(call, "id", |_| true)
}

/// An action of one resource, by a path that is deprecated since 2026-04-30.
pub(super) fn get_for_resource(call: &Call<'_>, resource: ResourceId) -> Result<Answer, ApiError> {
    find_action(call, "action_id", |action| action.resources.contains(&resource))
}

fn find_action(call: &Call<'_>, parameter: &str, belongs: impl Fn(&Action) -> bool) -> Result<Answer, ApiError> {
    let id: ActionId = call.id(parameter, "action")?;
    match call.project.actions.get(id).filter(|action| belongs(action)) {
        Some(action) => Ok(Answer::ok(json!({ "action": schema::action(action, call.now) }))),
        None => Err(ApiError::not_found("action", &id.to_string())),
    }
}

/// The actions of one resource or of one kind of resource.
pub(super) fn history(call: &Call<'_>, belongs: impl Fn(ResourceId) -> bool) -> Result<Answer, ApiError> {
    let status = filter(call.query, "status", &["running", "success", "error"])?;
    let id = filter(call.query, "id", &[])?;
    let mut actions: Vec<Action> = call
        .project
        .actions
        .iter()
        .filter(|action| action.resources.iter().any(|resource| belongs(*resource)))
        .filter(|action| status(action.status().name()) && id(&action.id.to_string()))
        .cloned()
        .collect();
    sort(&mut actions, call.query, KEYS)?;
    page(call, "actions", &actions, |action| schema::action(action, call.now))
}
