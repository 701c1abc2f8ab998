//! Carries a plan out: tries every step, keeps each error.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

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

/// The settings of each interface.
const CONF: &str = "/proc/sys/net/ipv6/conf";
/// More errors than this are counted: ten thousand routes may fail for one reason.
const SHOWN_ERRORS: usize = 5;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
struct Error {
    step: String,
    /// Whether it adds something of IPv6.
    is_v6: bool,
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
            Err(source) => {
                let is_v6 = matches!(step, Step::AddAddress(IpNet::V6(_)) | Step::AddRoute(IpNet::V6(_), _));
                errors.push(Error { step: plan.describe(step, Tense::Future).to_string(), is_v6, source });
            }
        }
    }
    let more = errors.len().saturating_sub(SHOWN_ERRORS);
    let mut problems: Vec<Problem> =
        errors.iter().take(SHOWN_ERRORS).map(|error| problem(error, plan.interface_name(index))).collect();
    if more > 0 {
        problems.push(Problem::new(
            "routes-failed",
            format!("{more} more addresses or routes could not be changed"),
            ADVICE,
        ));
    }
    Ok((changes, problems))
}

/// The kernel says "permission denied" where IPv6 is switched off (`inet6_rtm_newaddr`, `ip6_route_add`), and nothing
/// of why.
fn problem(error: &Error, interface: Option<&str>) -> Problem {
    let disabled = interface.filter(|_| error.is_v6).and_then(|interface| disabled_v6(Path::new(CONF), interface));
    match disabled {
        Some(Disabled::BySysctl(setting)) => Problem::new(
            "ipv6-disabled",
            format!("cannot {}: IPv6 is disabled by sysctl ({setting} = 1)", error.step),
            format!(
                "`sysctl -w {setting}=0`, and in /etc/sysctl.d the setting of `default` or `all` that it comes \
                 from; or \
                 remove the IPv6 addresses of the tunnel from the configuration"
            ),
        ),
        Some(Disabled::InKernel) => Problem::new(
            "ipv6-disabled",
            format!("cannot {}: this kernel runs without IPv6", error.step),
            "remove ipv6.disable=1 from the kernel's command line, or the IPv6 addresses of the tunnel from the \
             configuration",
        ),
        None => Problem::new(FAILED, chain(error), ADVICE),
    }
}

/// Why an interface has no IPv6.
#[derive(Debug, PartialEq, Eq)]
enum Disabled {
    /// By this setting.
    BySysctl(String),
    /// Nothing on this host has.
    InKernel,
}

/// `None` if IPv6 is on. `conf` is [`CONF`].
fn disabled_v6(conf: &Path, interface: &str) -> Option<Disabled> {
    if !conf.exists() {
        return Some(Disabled::InKernel);
    }
    let is_on = |name: &str| {
        let value = std::fs::read_to_string(conf.join(name).join("disable_ipv6")).ok();
        value.is_some_and(|value| value.trim() == "1")
    };
    // A dot separates names in sysctl(8), and a slash stands for one within a name.
    let setting = |name: &str| format!("net.ipv6.conf.{}.disable_ipv6", name.replace('.', "/"));
    [interface, "all"].into_iter().find(|name| is_on(name)).map(|name| Disabled::BySysctl(setting(name)))
}

async fn carry_out(netlink: &Netlink, index: u32, step: Step) -> Result<(), rtnetlink::Error> {
    match step {
        Step::RemoveRoute(route) => netlink.0.handle.route().del(removal(route)).execute().await,
        Step::RemoveAddress(net) => netlink.0.handle.address().del(address(index, net)).execute().await,
        Step::AddAddress(net) => {
            let mut request = netlink.0.handle.address().add(index, net.addr(), net.prefix_len());
            request.message_mut().attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
            request.execute().await
        }
        Step::AddRoute(destination, hop) => netlink.0.handle.route().add(to_hop(destination, hop)).execute().await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_disables_ipv6_is_named() {
        let conf = tempfile::tempdir().unwrap();
        let set = |name: &str, value: &str| {
            std::fs::create_dir_all(conf.path().join(name)).unwrap();
            std::fs::write(conf.path().join(name).join("disable_ipv6"), value).unwrap();
        };
        set("all", "0\n");
        set("wg0", "0\n");
        assert_eq!(disabled_v6(conf.path(), "wg0"), None);
        set("all", "1\n");
        let by = |setting: &str| Some(Disabled::BySysctl(setting.to_owned()));
        assert_eq!(disabled_v6(conf.path(), "wg0"), by("net.ipv6.conf.all.disable_ipv6"));
        set("wg0.7", "1\n");
        assert_eq!(disabled_v6(conf.path(), "wg0.7"), by("net.ipv6.conf.wg0/7.disable_ipv6"));
        assert_eq!(disabled_v6(&conf.path().join("none"), "wg0"), Some(Disabled::InKernel));
    }
}
