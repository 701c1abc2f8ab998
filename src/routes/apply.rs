//! Carries a plan out: tries every step, keeps each error.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::model::{Hop, PROTOCOL, Route};
use super::observe::{self, Netlink};
use super::plan::{Plan, Step, Tense};
use super::{ADVICE, FAILED};
use crate::component::Steps;
use crate::error::chain;
use crate::outcome::Problem;

/// More errors than this are counted: ten thousand routes may fail for one reason.
const SHOWN_ERRORS: usize = 5;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
struct Error {
    step: String,
    source: rtnetlink::Error,
}

/// Tries every step; the steps that worked, and why others did not.
pub(super) async fn apply(plan: &Plan) -> Result<Steps, observe::Error> {
    let netlink = Netlink::open()?;
    let (mut changes, mut errors) = (Vec::new(), Vec::new());
    let index = plan.tunnel_index.unwrap_or(0);
    for step in plan.in_order() {
        match carry_out(&netlink, index, step).await {
            Ok(()) => changes.push(plan.describe(step, Tense::Past).to_string()),
            Err(source) => errors.push(Error { step: plan.describe(step, Tense::Future).to_string(), source }),
        }
    }
    let more = errors.len().saturating_sub(SHOWN_ERRORS);
    let mut problems: Vec<Problem> =
        errors.iter().take(SHOWN_ERRORS).map(|error| Problem::new(FAILED, chain(error), ADVICE)).collect();
    if more > 0 {
        problems.push(Problem::new(
            "routes-failed",
            format!("{more} more addresses or routes could not be changed"),
            ADVICE,
        ));
    }
    Ok((changes, problems))
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
        Step::AddRoute(destination, hop) => netlink.handle.route().add(to_hop(destination, hop)).execute().await,
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

/// For the kernel, an IPv4 route without a router has link scope. A router is on the link, whatever addresses that has:
/// Hetzner's DHCP gives a /32.
fn to_hop(destination: IpNet, Hop { interface, gateway }: Hop) -> RouteMessage {
    let mut message = prefix(destination);
    message.header.protocol = RouteProtocol::Other(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (destination, gateway) {
        (IpNet::V4(_), None) => RouteScope::Link,
        (IpNet::V4(_), Some(_)) | (IpNet::V6(_), _) => RouteScope::Universe,
    };
    message.attributes.push(RouteAttribute::Oif(interface));
    if let Some(gateway) = gateway {
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    message
}

/// Names the route by everything that distinguishes it from another program's route to the same destination.
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
