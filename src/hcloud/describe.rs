//! What the component found and did, as text for the operator.

use ipnet::Ipv4Net;

use super::Error;
use super::api;
use super::model::{Desired, NetworkTable, Unroutable, desired};
use super::plan::{Conflict, LinkPlan, Obstacle, RoutePlan};
use crate::config;
use crate::error::chain;
use crate::hetzner::{MAX_ROUTES, VSWITCH_MTU};
use crate::inputs::WantedReturnRoutes;
use crate::outcome::{Outcome, Problem, State};
use crate::site::{PrivateLink, Site};

fn waiting(detail: String, problem: Problem) -> Outcome {
    Outcome { problems: vec![problem], ..Outcome::unchanged(State::Waiting, detail) }
}

pub(super) fn no_network(site: &Site) -> Outcome {
    if site.private.is_empty() && site.needs_no_nat {
        return Outcome::unchanged(State::Off, "no private network");
    }
    if site.private.is_empty() {
        return Outcome::unchanged(State::Waiting, "no private network yet");
    }
    Outcome::unchanged(State::Off, "the private links are no Hetzner Networks (site.private.network_id)")
}

pub(super) fn no_token(config: &config::Hcloud, return_routes: &WantedReturnRoutes, links: &[&PrivateLink]) -> Outcome {
    // Masqueraded peers need no return routes.
    let needed = if return_routes.else_masqueraded { &WantedReturnRoutes::default() } else { return_routes };
    let by_hand = links
        .iter()
        .flat_map(|link| desired(config, needed, link).routes().into_iter().map(move |route| (link, route)));
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
            "no-token",
            "there is no API token, so the routes to this gateway are not kept",
            format!(
                "put a token with read and write permission into hcloud.token_file, or add the routes by hand: {}",
                by_hand.join("; ")
            ),
        ),
    )
}

pub(super) fn no_address(link: &PrivateLink) -> Outcome {
    let what = format!("no route to {} before {} has that address", link.address, link.interface);
    waiting(what.clone(), Problem::new("link-without-address", what, "it comes by DHCP"))
}

/// The site reports what is wrong.
pub(super) fn misrouted(link: &PrivateLink) -> Outcome {
    let detail = format!("no route is added for {} until its packets are routed right", link.network);
    Outcome::unchanged(State::Waiting, detail)
}

pub(super) fn no_subnet(table: &NetworkTable) -> Outcome {
    let what = format!("{} has no subnet, so no server can be reached in it", table.label());
    waiting(what.clone(), Problem::new("network-without-subnet", what, "add one: hcloud network add-subnet"))
}

pub(super) fn failed_link(link: &PrivateLink, error: &Error) -> Outcome {
    let network = link.network_id.map_or_else(|| link.network.to_string(), |id| format!("network {id}"));
    Outcome { detail: format!("{network}: {}", chain(error)), ..Outcome::failed(error) }
}

/// The most routes that a line of the status lists; it only counts the rest.
const SHOWN_ROUTES: usize = 6;

/// One network after a pass: its routes, and the wanted ones.
pub(super) struct NetworkOutcome<'a> {
    pub(super) table: &'a NetworkTable,
    pub(super) link: &'a PrivateLink,
    pub(super) desired: &'a Desired,
    pub(super) return_routes: &'a WantedReturnRoutes,
    /// What remains to be done or is in the way, after the network was read again.
    pub(super) plan: &'a RoutePlan,
}

/// What is in the way of one network's routes, and would still be after the plan is carried out.
pub(super) fn planned_problems(
    plan: &LinkPlan,
    table: &NetworkTable,
    link: &PrivateLink,
    return_routes: &WantedReturnRoutes,
) -> Vec<Problem> {
    match plan {
        LinkPlan::Routes { desired, routes, .. } => {
            NetworkOutcome { table, link, desired, return_routes, plan: routes }.without_errors().problems
        }
        LinkPlan::NoSubnet => no_subnet(table).problems,
        LinkPlan::NoAddress | LinkPlan::Misrouted | LinkPlan::Unknown => Vec::new(),
    }
}

impl NetworkOutcome<'_> {
    /// The outcome for this network. `errors` are those of the changes that were tried.
    pub(super) fn outcome(&self, errors: &[api::Error]) -> Outcome {
        let mut outcome = self.without_errors();
        if self.plan.claim.is_empty() && self.plan.withdraw.is_empty() {
            return outcome; // The routes are right, whatever the API answered.
        }
        outcome.state = State::Failed;
        outcome.problems.extend(errors.iter().map(problem_of));
        if errors.is_empty() {
            let what = format!("{} does not show the routes that were just changed", self.table.label());
            outcome.problems.push(Problem::new("action-unfinished", what, "the daemon tries again by itself"));
        }
        outcome
    }

    fn without_errors(&self) -> Outcome {
        let is_return_route = |conflict: &&Conflict| self.desired.return_routes.contains(&conflict.wanted);
        let of_tunnel = self.plan.conflicts.iter().filter(is_return_route).map(|conflict| self.conflict(conflict));
        let unroutable = self.desired.unroutable.iter().map(|(range, why)| unroutable(*range, *why));
        let of_tunnel: Vec<Problem> = of_tunnel.chain(unroutable).collect();
        let named = self.plan.conflicts.iter().filter(|conflict| !is_return_route(conflict));
        let mut problems: Vec<Problem> = named.map(|conflict| self.conflict(conflict)).collect();
        let mut detail = self.detail();
        if self.return_routes.else_masqueraded {
            // Peers work either way, so this is no problem, but the status mentions it.
            for problem in of_tunnel {
                detail.push_str("; peers are masqueraded: ");
                detail.push_str(&problem.what);
            }
        } else {
            problems.extend(of_tunnel);
        }
        let state = if problems.is_empty() { State::Ok } else { State::Waiting };
        Outcome { problems, hints: vswitch_hints(self.table), ..Outcome::unchanged(state, detail) }
    }

    fn detail(&self) -> String {
        let here = self.table.routes.iter().filter(|route| self.link.holds(route.gateway));
        let mut here: Vec<String> = here.map(ToString::to_string).collect();
        if here.len() > SHOWN_ROUTES {
            let more = format!("{} more", here.len() - SHOWN_ROUTES);
            here.truncate(SHOWN_ROUTES);
            here.push(more);
        }
        let routes = if here.is_empty() { "no route leads here".to_owned() } else { here.join(", ") };
        format!("{}: {routes}", self.table.label())
    }

    fn conflict(&self, conflict: &Conflict) -> Problem {
        let (name, wanted) = (self.table.label(), conflict.wanted);
        let key =
            if self.desired.return_routes.contains(&wanted) { "the tunnel's network" } else { "hcloud.destinations" };
        match conflict.by {
            Obstacle::Held(held) => Problem::new(
                "route-held-by-other",
                format!("{name} sends {} to {}, which is not this server", held.destination, held.gateway),
                "it is left alone; delete that route, or set hcloud.take_over = true to have it replaced",
            ),
            Obstacle::OverlappingRoute(other) => Problem::new(
                "route-overlaps-route",
                format!("{wanted} overlaps the route {other} of {name}"),
                format!("Hetzner accepts only one of them: delete the other, or change {key}"),
            ),
            Obstacle::Subnet(subnet) => Problem::new(
                "route-overlaps-subnet",
                format!("{wanted} overlaps the subnet {subnet} of {name}"),
                format!("Hetzner accepts no route into a subnet: change {key}"),
            ),
        }
    }
}

fn problem_of(error: &api::Error) -> Problem {
    Problem::new(error.problem_code(), chain(error), error.advice())
}

/// What a network with a vSwitch needs besides the routes, and the API does not do by itself.
pub(super) fn vswitch_hints(table: &NetworkTable) -> Vec<Problem> {
    let (name, id) = (table.label(), table.id);
    let mtu = table.vswitches.iter().map(|subnet| {
        Problem::new(
            "vswitch-mtu",
            format!("{name} has the vSwitch subnet {subnet}, which carries packets of at most {VSWITCH_MTU} bytes"),
            format!(
                "set that on the VLAN interface of its servers: ip link set dev IF mtu {VSWITCH_MTU}; such a server \
                 cannot be the gateway of a route"
            ),
        )
    });
    let is_hidden = !table.vswitches.is_empty() && !table.exposes_routes;
    let hidden = is_hidden.then(|| {
        Problem::new(
            "vswitch-without-routes",
            format!("{name} does not expose its routes to its vSwitch, so servers there cannot use this gateway"),
            format!("if they are to: hcloud network expose-routes-to-vswitch {id}"),
        )
    });
    mtu.chain(hidden).collect()
}

fn unroutable(range: Ipv4Net, why: Unroutable) -> Problem {
    let advice = "set wireguard.snat to \"auto\" or true, or take another range for the tunnel";
    let reason = match why {
        Unroutable::NotPrivate => "Hetzner accepts no route for it".to_owned(),
        Unroutable::OverlapsDestination(named) => format!("it overlaps {named} of hcloud.destinations"),
        Unroutable::TooManyRoutes => format!("a network holds at most {MAX_ROUTES} routes"),
    };
    Problem::new("no-return-route", format!("{range} of the tunnel has no route back: {reason}"), advice)
}

/// The steps of the plan that are visible after the network was read again, a line each.
pub(super) fn changes(plan: &RoutePlan, table: &NetworkTable) -> Vec<String> {
    let name = table.label();
    let gone = plan.withdraw.iter().filter(|&route| !table.routes.contains(route));
    let there = plan.claim.iter().filter(|&route| table.routes.contains(route));
    let gone = gone.map(|route| format!("route {route} of {name} deleted"));
    gone.chain(there.map(|route| format!("route {route} added to {name}"))).collect()
}

/// The outcome of all networks: the worst state, and the changes and problems of all.
pub(super) fn merged(outcomes: Vec<Outcome>) -> Outcome {
    let worst = |state| outcomes.iter().any(|outcome| outcome.state == state).then_some(state);
    let state = worst(State::Failed).or(worst(State::Waiting)).unwrap_or(State::Ok);
    let details: Vec<&str> = outcomes.iter().map(|outcome| outcome.detail.as_str()).collect();
    let unchanged = Outcome::unchanged(state, details.join("; "));
    Outcome {
        repaired: outcomes.iter().any(|outcome| outcome.repaired && !outcome.changes.is_empty()),
        changes: outcomes.iter().flat_map(|outcome| outcome.changes.clone()).collect(),
        hints: outcomes.iter().flat_map(|outcome| outcome.hints.clone()).collect(),
        problems: outcomes.into_iter().flat_map(|outcome| outcome.problems).collect(),
        ..unchanged
    }
}
