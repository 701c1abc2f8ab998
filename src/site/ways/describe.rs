//! Packets that take another way than they should, in an operator's words, with the command that helps.

use std::net::Ipv4Addr;

use super::super::metadata::MetadataView;
use super::super::model::{PrivateLink, Site};
use super::super::observe::{DefaultRoute, Kernel};
use super::super::route::Route;
use super::{Answer, Way, blamed};
use crate::hetzner::PUBLIC_GATEWAY;
use crate::outcome::Problem;

/// How many routes that lead parts of one network elsewhere are named.
const SHOWN: usize = 4;

/// A network whose packets do not leave by its link: one problem for each route that leads them elsewhere.
pub(super) fn misrouted(link: &PrivateLink, wrong: &[&Way], kernel: &Kernel, metadata: &MetadataView) -> Vec<Problem> {
    let mut problems: Vec<(Option<&Route>, Problem)> = Vec::new();
    for way in wrong {
        let route = blamed(way, kernel);
        if problems.len() < SHOWN && !problems.iter().any(|(known, _)| *known == route) {
            problems.push((route, network_problem(link, way, route, kernel, metadata)));
        }
    }
    problems.into_iter().map(|(_, problem)| problem).collect()
}

fn network_problem(
    link: &PrivateLink,
    way: &Way,
    route: Option<&Route>,
    kernel: &Kernel,
    metadata: &MetadataView,
) -> Problem {
    let id = link.network_id.map_or_else(String::new, |id| format!(" (network {id})"));
    let (network, interface) = (link.network, &link.interface);
    let narrower = route.filter(|route| route.destination != network && network.contains(&route.destination));
    let part = narrower.map_or_else(String::new, |route| format!("{} of ", route.destination));
    let what = format!(
        "{part}{network}{id} is not routed out of {interface}: packets to {} {}",
        way.question.to,
        leaves(way, route, kernel)
    );
    let own = kernel
        .routes
        .iter()
        .any(|own| own.destination == network && own.is_in_main() && own.interface == Some(way.question.interface));
    let add = format!("ip route replace {}", wanted_route(link, way.question.interface, kernel, metadata));
    let advice = match route {
        // A table of its own is selected by a rule.
        Some(route) if !route.is_in_main() => format!(
            "a rule selects table {} (ip rule): add a rule with a lower number, ip rule add to {network} lookup main \
             priority 100, or remove that route: ip route del {}",
            route.table,
            text(route, kernel)
        ),
        Some(route) if narrower.is_some() || (route.destination == network && own) => {
            format!("remove that route: ip route del {}", text(route, kernel))
        }
        Some(route) if route.destination == network => {
            format!("remove that route, then add the right one: ip route del {} && {add}", text(route, kernel))
        }
        None if own => "a routing rule drops them; ip rule shows it".to_owned(),
        // The network's own route is gone: DHCP had added it.
        _ => format!("its route is gone, put it back: {add}"),
    };
    Problem::new("network-misrouted", what, format!("{advice}; until then no new traffic of the network is attracted"))
}

/// The network's own route, as DHCP makes it.
pub(super) fn wanted_route(link: &PrivateLink, interface: u32, kernel: &Kernel, metadata: &MetadataView) -> String {
    let (network, name) = (link.network, &link.interface);
    let on_link = |gateway: Ipv4Addr| {
        let covered = |route: &Route| {
            route.gateway.is_none() && route.interface == Some(interface) && route.destination.contains(&gateway)
        };
        kernel.routes.iter().any(covered)
    };
    let listed = metadata.latest.iter().flat_map(|latest| &latest.private_networks);
    let listed = listed.filter(|listed| Some(listed.network_id) == link.network_id).find_map(|listed| listed.gateway);
    // A Hetzner Network's gateway has its first address.
    let first = || link.network_id.and_then(|_| network.hosts().next());
    // In other networks DHCP leaves a route to the gateway alone, or the link's prefix covers the network.
    let hop = || {
        let single = |route: &&Route| {
            let net = route.destination;
            net.prefix_len() == 32 && network.contains(&net) && route.interface == Some(interface)
        };
        kernel.routes.iter().find(single).map(|route| route.destination.addr())
    };
    match listed.or_else(first).or_else(hop) {
        Some(gateway) if on_link(gateway) => format!("{network} via {gateway} dev {name}"),
        Some(gateway) => format!("{network} via {gateway} dev {name} onlink"),
        None => format!("{network} dev {name}"),
    }
}

/// Packets to the internet that do not leave by the public link. `link` is the private link that they come from, if it
/// is about forwarded packets only.
pub(super) fn lost(way: &Way, link: Option<&PrivateLink>, kernel: &Kernel, site: &Site) -> Problem {
    let public = site.public.as_ref().map_or("the public interface", |public| public.interface.as_str());
    let whose = link.map_or_else(String::new, |link| format!(" of {}", link.network));
    let route = blamed(way, kernel);
    let what = format!("packets{whose} to the internet do not leave by {public}: they {}", leaves(way, route, kernel));
    let has_default =
        kernel.default_routes.iter().any(|DefaultRoute { interface, .. }| *interface == way.question.interface);
    let add = format!("ip route add default via {PUBLIC_GATEWAY} dev {public} onlink");
    let advice = match route {
        Some(route) if !route.is_in_main() => format!(
            "a rule selects table {} (ip rule): remove the rule, or that route: ip route del {}",
            route.table,
            text(route, kernel)
        ),
        Some(route) if has_default => format!("remove the route that wins: ip route del {}", text(route, kernel)),
        Some(route) => format!("replace that route: ip route del {} && {add}", text(route, kernel)),
        None if has_default => "a routing rule drops them; ip rule shows it".to_owned(),
        None => format!("add the default route: {add}"),
    };
    let by = |interface: u32| site.private.iter().all(|private| private.interface.as_str() != kernel.name(interface));
    let other = match way.answer {
        Answer::Leaves(interface) if by(interface) => {
            let name = kernel.name(interface);
            format!("; if they are to leave by {name}, set site.public_interface = \"{name}\"")
        }
        _ => String::new(),
    };
    Problem::new("internet-misrouted", what, format!("{advice}{other}"))
}

/// `leave by eth0 (default via 172.31.1.1 dev eth0)`
pub(super) fn leaves(way: &Way, route: Option<&Route>, kernel: &Kernel) -> String {
    let by = match way.answer {
        Answer::Leaves(interface) => format!("leave by {}", kernel.name(interface)),
        Answer::Nowhere | Answer::Unknown => "lead nowhere".to_owned(),
    };
    match route {
        Some(route) => format!("{by} ({})", text(route, kernel)),
        None if way.answer == Answer::Nowhere => format!("{by} (no route)"),
        None => by,
    }
}

fn text(route: &Route, kernel: &Kernel) -> String {
    route.text(|index| kernel.name(index))
}
