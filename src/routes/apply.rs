//! Carries a plan out: tries every step, keeps each error.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::ADVICE;
use super::model::{Observed, PROTOCOL, Route};
use super::observe::Netlink;
use super::plan::Plan;
use crate::error::chain;
use crate::outcome::Problem;

/// More failures than this are told by their number: ten thousand routes may fail for one reason.
const TOLD: usize = 5;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
struct Error {
    step: String,
    source: rtnetlink::Error,
}

/// One step.
#[derive(Debug, Clone, Copy)]
enum Step {
    RemoveRoute(Route),
    RemoveAddress(IpNet),
    AddAddress(IpNet),
    AddRoute(IpNet),
}

fn in_order(plan: &Plan) -> impl Iterator<Item = Step> + '_ {
    let removals = plan.remove_routes.iter().map(|&route| Step::RemoveRoute(route));
    let removals = removals.chain(plan.remove_addresses.iter().map(|&address| Step::RemoveAddress(address)));
    let additions = plan.add_addresses.iter().map(|&address| Step::AddAddress(address));
    removals.chain(additions).chain(plan.add_routes.iter().map(|&destination| Step::AddRoute(destination)))
}

/// A step in words.
struct Told<'a>(Step, &'a Observed, Tense);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tense {
    ToDo,
    Done,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(step, observed, tense) = self;
        let tunnel = observed.link.and_then(|link| observed.name(link.index)).unwrap_or("the tunnel");
        let (what, done, to_do) = match step {
            Step::RemoveRoute(route) => {
                let name = observed.name(route.interface).unwrap_or("nowhere");
                (format!("route {} to {name}", route.destination), "removed", "remove")
            }
            Step::RemoveAddress(address) => (format!("address {address} of {tunnel}"), "removed", "remove"),
            Step::AddAddress(address) => (format!("address {address} of {tunnel}"), "added", "add"),
            Step::AddRoute(destination) => (format!("route {destination} to {tunnel}"), "added", "add"),
        };
        match tense {
            Tense::ToDo => write!(f, "{to_do} {what}"),
            Tense::Done => write!(f, "{what} {done}"),
        }
    }
}

/// What would be done, a line each.
pub(super) fn steps(plan: &Plan, observed: &Observed) -> Vec<String> {
    in_order(plan).map(|step| Told(step, observed, Tense::ToDo).to_string()).collect()
}

/// Tries every step; what worked and what did not.
pub(super) async fn apply(netlink: &Netlink, observed: &Observed, plan: &Plan) -> (Vec<String>, Vec<Problem>) {
    let (mut changes, mut errors) = (Vec::new(), Vec::new());
    let index = observed.link.map_or(0, |link| link.index);
    for step in in_order(plan) {
        match carry_out(netlink, index, step).await {
            Ok(()) => changes.push(Told(step, observed, Tense::Done).to_string()),
            Err(source) => errors.push(Error { step: Told(step, observed, Tense::ToDo).to_string(), source }),
        }
    }
    let more = errors.len().saturating_sub(TOLD);
    let mut problems: Vec<Problem> = errors.iter().take(TOLD).map(|error| Problem::new(chain(error), ADVICE)).collect();
    if more > 0 {
        problems.push(Problem::new(format!("{more} more addresses or routes could not be changed"), ADVICE));
    }
    (changes, problems)
}

async fn carry_out(netlink: &Netlink, index: u32, step: Step) -> Result<(), rtnetlink::Error> {
    match step {
        Step::RemoveRoute(route) => netlink.handle.route().del(removal(route)).execute().await,
        Step::RemoveAddress(net) => netlink.handle.address().del(address(index, net)).execute().await,
        Step::AddAddress(net) => {
            let mut request = netlink.handle.address().add(index, net.addr(), net.prefix_len());
            request.message_mut().attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
            request.execute().await
        }
        Step::AddRoute(destination) => netlink.handle.route().add(to_interface(destination, index)).execute().await,
    }
}

fn address(index: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(net) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(net.addr(), net.prefix_len()).build()
        }
        IpNet::V6(net) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(net.addr(), net.prefix_len()).build()
        }
    }
}

/// The kernel takes a route without a router as one of the link's scope.
fn to_interface(destination: IpNet, index: u32) -> RouteMessage {
    let mut message = prefix(destination);
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match destination {
        IpNet::V4(_) => RouteScope::Link,
        IpNet::V6(_) => RouteScope::Universe,
    };
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

/// Names the route by all that tells it from a stranger's for the same destination.
fn removal(route: Route) -> RouteMessage {
    let mut message = prefix(route.destination);
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unspec; // any
    message.header.scope = RouteScope::NoWhere; // any
    if route.interface != 0 {
        message.attributes.push(RouteAttribute::Oif(route.interface));
    }
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn prefix(destination: IpNet) -> RouteMessage {
    match destination {
        IpNet::V4(net) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(net.network(), net.prefix_len()).build()
        }
        IpNet::V6(net) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(net.network(), net.prefix_len()).build()
        }
    }
}
