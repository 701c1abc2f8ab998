//! The cloud room's findings in an operator's words.

use super::api;
use super::model::NetworkTable;
use super::plan::{Contest, Obstacle, Plan};
use super::{Error, desired};
use crate::config;
use crate::report::{Outcome, Problem, State, chain};
use crate::site::{PrivateLink, Site};

/// `network 1234 (private)`
pub(super) fn network_name(table: &NetworkTable) -> String {
    if table.name.is_empty() {
        format!("network {}", table.id)
    } else {
        format!("network {} ({})", table.id, table.name)
    }
}

fn waiting(detail: String, problem: Problem) -> Outcome {
    Outcome { problems: vec![problem], ..Outcome::unchanged(State::Waiting, detail) }
}

pub(super) fn no_network(site: &Site) -> Outcome {
    if site.private.is_empty() {
        return Outcome::unchanged(State::Waiting, "no private network yet");
    }
    Outcome::unchanged(State::Off, "the private links are no Hetzner Networks (site.private.network_id)")
}

pub(super) fn no_token(config: &config::Hcloud, links: &[&PrivateLink]) -> Outcome {
    let by_hand = links.iter().flat_map(|link| desired(config, link).into_iter().map(move |route| (link, route)));
    let by_hand: Vec<String> = by_hand
        .map(|(link, route)| {
            let network = link.network_id.map_or_else(|| "NETWORK".to_owned(), |id| id.to_string());
            format!(
                "hcloud network add-route {network} --destination {} --gateway {}",
                route.destination, route.gateway
            )
        })
        .collect();
    waiting(
        "no API token".to_owned(),
        Problem::new(
            "there is no API token, so the routes to this gateway are not looked after",
            format!(
                "put a token with read and write permission into hcloud.token_file, or add the routes by hand: {}",
                by_hand.join("; ")
            ),
        ),
    )
}

pub(super) fn no_address(link: &PrivateLink) -> Outcome {
    let what = format!("no route to {} before {} has that address", link.address, link.interface);
    waiting(what.clone(), Problem::new(what, "it comes by DHCP"))
}

pub(super) fn no_subnet(table: &NetworkTable) -> Outcome {
    let what = format!("{} has no subnet, so no server can be reached in it", network_name(table));
    waiting(what.clone(), Problem::new(what, "add one: hcloud network add-subnet"))
}

pub(super) fn failed_link(link: &PrivateLink, error: &Error) -> Outcome {
    let network = link.network_id.map_or_else(|| link.network.to_string(), |id| format!("network {id}"));
    Outcome { detail: format!("{network}: {}", chain(error)), ..Outcome::failed(error, error.advice()) }
}

/// Nothing was to be done.
pub(super) fn standing(table: &NetworkTable, link: &PrivateLink, plan: &Plan) -> Outcome {
    let problems: Vec<Problem> = plan.contested.iter().map(|contest| contested(table, contest)).collect();
    let state = if problems.is_empty() { State::Ok } else { State::Waiting };
    Outcome { problems, ..Outcome::unchanged(state, detail(table, link)) }
}

/// Something was done, or tried: `rest` is what a fresh look finds still to do.
pub(super) fn after_changes(table: &NetworkTable, link: &PrivateLink, rest: &Plan, errors: &[api::Error]) -> Outcome {
    let mut outcome = standing(table, link, rest);
    if rest.claim.is_empty() && rest.withdraw.is_empty() {
        return outcome; // whatever was answered, the routes are right
    }
    outcome.state = State::Failed;
    outcome.problems.extend(errors.iter().map(|error| Problem::new(chain(error), error.advice())));
    if errors.is_empty() {
        let what = format!("{} does not show the routes that were just changed", network_name(table));
        outcome.problems.push(Problem::new(what, "tried again by itself"));
    }
    outcome
}

/// What of the plan a fresh look finds done, a line each.
pub(super) fn changes(plan: &Plan, table: &NetworkTable) -> Vec<String> {
    let name = network_name(table);
    let gone = plan.withdraw.iter().filter(|&route| !table.routes.contains(route));
    let there = plan.claim.iter().filter(|&route| table.routes.contains(route));
    let gone = gone.map(|route| format!("route {route} of {name} deleted"));
    gone.chain(there.map(|route| format!("route {route} added to {name}"))).collect()
}

/// The networks together: the worst state, and everything else.
pub(super) fn merged(outcomes: Vec<Outcome>) -> Outcome {
    let worst = |state| outcomes.iter().any(|outcome| outcome.state == state).then_some(state);
    let state = worst(State::Failed).or(worst(State::Waiting)).unwrap_or(State::Ok);
    let details: Vec<&str> = outcomes.iter().map(|outcome| outcome.detail.as_str()).collect();
    Outcome {
        state,
        detail: details.join("; "),
        repaired: outcomes.iter().any(|outcome| outcome.repaired && !outcome.changes.is_empty()),
        changes: outcomes.iter().flat_map(|outcome| outcome.changes.clone()).collect(),
        problems: outcomes.into_iter().flat_map(|outcome| outcome.problems).collect(),
    }
}

fn detail(table: &NetworkTable, link: &PrivateLink) -> String {
    let here: Vec<String> =
        table.routes.iter().filter(|route| link.holds(route.gateway)).map(ToString::to_string).collect();
    let routes = if here.is_empty() { "no route leads here".to_owned() } else { here.join(", ") };
    format!("{}: {routes}", network_name(table))
}

fn contested(table: &NetworkTable, contest: &Contest) -> Problem {
    let (name, wanted) = (network_name(table), contest.wanted);
    match contest.by {
        Obstacle::Held(held) => Problem::new(
            format!("{name} sends {} to {}, which is not this server", held.destination, held.gateway),
            "it is left alone; delete that route, or set hcloud.take_over = true to have it replaced",
        ),
        Obstacle::OverlappingRoute(other) => Problem::new(
            format!("{wanted} overlaps the route {other} of {name}"),
            "Hetzner takes only one of them: delete the other, or change hcloud.destinations",
        ),
        Obstacle::Subnet(subnet) => Problem::new(
            format!("{wanted} overlaps the subnet {subnet} of {name}"),
            "Hetzner takes no route into a subnet: change hcloud.destinations",
        ),
    }
}
