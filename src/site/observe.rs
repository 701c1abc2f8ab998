//! Lists the kernel's links, addresses and routes by rtnetlink.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::route::Route;
use crate::net::{InterfaceName, MacAddress, PROBE_ROUTE_PROTOCOL, ROUTE_PROTOCOL};
use crate::outcome::ComponentError;
use crate::rtnetlink_connection::RtnetlinkConnection;

/// The kernel's view of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kernel {
    /// All links whose names are [`InterfaceName`]s, by index.
    pub links: Vec<Link>,
    /// IPv4 default routes of the main table, in the kernel's order.
    pub default_routes: Vec<DefaultRoute>,
    /// Indices of the interfaces of IPv6 default routes of the main table.
    pub default_routes_v6: Vec<u32>,
    /// IPv4 routes of all tables that lead out of an interface or nowhere, without this daemon's own.
    pub routes: Vec<Route>,
    /// IPv4 routes to this server itself, of its addresses and of ranges that are routed here.
    pub local_routes: Vec<Route>,
    /// The bridges by index, each with the number of links that are its ports.
    pub bridges: BTreeMap<u32, usize>,
}

impl Kernel {
    /// Whether a DHCP client may configure an interface: it has a leased address, or none and may wait for one.
    pub(super) fn may_use_dhcp(&self, name: &InterfaceName) -> bool {
        let link = self.links.iter().find(|link| link.name == *name);
        link.is_none_or(|link| link.has_lease || link.addresses.is_empty())
    }

    /// The name of an interface in messages.
    pub(super) fn name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.to_string())
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    /// The kernel's index of the interface.
    pub index: u32,
    pub name: InterfaceName,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its IPv4 addresses with their prefixes.
    pub addresses: Vec<Ipv4Net>,
    /// Whether one of them has an end, which DHCP clients give to what they lease.
    pub has_lease: bool,
}

/// An IPv4 default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DefaultRoute {
    /// Index of its outgoing interface.
    pub interface: u32,
    /// The route with the lowest metric is used; 0 if the kernel names none.
    pub metric: u32,
}

/// Why the kernel's state cannot be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no netlink socket.
    #[error("cannot open a route netlink socket")]
    Open(#[source] std::io::Error),
    /// A request failed.
    #[error("the kernel did not list its {what}")]
    List {
        /// `links`, `addresses` or `routes`.
        what: &'static str,
        /// The kernel's error.
        source: rtnetlink::Error,
    },
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        "site-unobservable"
    }

    fn advice(&self) -> String {
        "the daemon needs a route netlink socket; it tries again by itself".to_owned()
    }
}

/// A conversation with the kernel; it ends when dropped.
pub(super) struct Netlink(pub(super) RtnetlinkConnection);

impl Netlink {
    pub(super) fn open() -> Result<Self, Error> {
        RtnetlinkConnection::open().map(Self).map_err(Error::Open)
    }

    /// Lists links, addresses and routes.
    pub(super) async fn observe(&self) -> Result<Kernel, Error> {
        list(&self.0.handle).await
    }
}

async fn list(handle: &Handle) -> Result<Kernel, Error> {
    let (mut links, bridges) = links(handle).await.map_err(|source| Error::List { what: "links", source })?;
    let addresses = handle.address().get().execute().try_collect::<Vec<_>>().await;
    let mut leased = Vec::new();
    for message in addresses.map_err(|source| Error::List { what: "addresses", source })? {
        let Some(link) = links.get_mut(&message.header.index) else { continue };
        // On a point-to-point link, ADDRESS is the peer's and LOCAL is the server's own; on other links both are the
        // same.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        let Some(address) = local.and_then(|address| Ipv4Net::new(address, message.header.prefix_len).ok()) else {
            continue;
        };
        link.addresses.push(address);
        if !message.header.flags.contains(AddressHeaderFlags::Permanent) {
            leased.push(address.addr());
            link.has_lease = true;
        }
    }
    let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes = handle.route().get(request).execute().try_collect::<Vec<_>>().await;
    let routes = routes.map_err(|source| Error::List { what: "routes", source })?;
    let request = RouteMessageBuilder::<Ipv6Addr>::new().build();
    // Err: IPv6 is off.
    let routes_v6 = handle.route().get(request).execute().try_collect::<Vec<_>>().await.unwrap_or_default();
    let preferred: Vec<Ipv4Addr> = routes.iter().filter_map(preferred_source).collect();
    for link in links.values_mut() {
        move_own_address_first(&mut link.addresses, &preferred, &leased);
    }
    Ok(Kernel {
        links: links.into_values().collect(),
        default_routes: routes.iter().flat_map(default_routes).collect(),
        default_routes_v6: routes_v6.iter().flat_map(to_everywhere).map(|route| route.interface).collect(),
        routes: routes
            .iter()
            .filter_map(Route::from_message)
            .filter(|it| ![ROUTE_PROTOCOL, PROBE_ROUTE_PROTOCOL].contains(&it.protocol))
            .collect(),
        local_routes: routes.iter().filter_map(Route::to_this_server).collect(),
        bridges,
    })
}

/// Moves the server's own address to the front, before floating IPs: the address that the default route names, or else
/// one that DHCP assigned. The kernel lists addresses in the order in which they were added, and DHCP adds its address
/// last.
fn move_own_address_first(addresses: &mut [Ipv4Net], preferred: &[Ipv4Addr], leased: &[Ipv4Addr]) {
    addresses.sort_by_key(|net| (!preferred.contains(&net.addr()), !leased.contains(&net.addr())));
}

/// The source address that a default route names for the server's own packets.
fn preferred_source(message: &RouteMessage) -> Option<Ipv4Addr> {
    let is_default = !default_routes(message).is_empty();
    message.attributes.iter().filter(|_| is_default).find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

/// The links by index, and the bridges among them, each with the number of its ports.
async fn links(handle: &Handle) -> Result<(BTreeMap<u32, Link>, BTreeMap<u32, usize>), rtnetlink::Error> {
    let (mut links, mut bridges, mut ports) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for message in handle.link().get().execute().try_collect::<Vec<_>>().await? {
        let (mut name, mut mac, mut mtu) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = text.parse().ok(),
                LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddress),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                LinkAttribute::Controller(bridge) => ports.push(*bridge),
                LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(InfoKind::Bridge)) => {
                    bridges.insert(message.header.index, 0);
                }
                _ => {}
            }
        }
        let Some(name) = name else { continue };
        let (index, up) = (message.header.index, message.header.flags.contains(LinkFlags::Up));
        links.insert(index, Link { index, name, mac, mtu, up, addresses: Vec::new(), has_lease: false });
    }
    for bridge in ports {
        if let Some(count) = bridges.get_mut(&bridge) {
            *count += 1;
        }
    }
    Ok((links, bridges))
}

/// The default routes in a route message: one for each outgoing interface, none if it is not a unicast route to
/// everywhere in the main table.
fn default_routes(message: &RouteMessage) -> Vec<DefaultRoute> {
    let is_v4 = message.header.address_family == AddressFamily::Inet;
    if is_v4 { to_everywhere(message) } else { Vec::new() }
}

/// The same for either family.
fn to_everywhere(message: &RouteMessage) -> Vec<DefaultRoute> {
    let header = &message.header;
    let to_everywhere = header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && header.table == RouteHeader::RT_TABLE_MAIN;
    if !to_everywhere {
        return Vec::new();
    }
    let (mut interfaces, mut metric) = (Vec::new(), 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(hops) => interfaces.extend(hops.iter().map(|hop| hop.interface_index)),
            RouteAttribute::Destination(RouteAddress::Inet(address)) if !address.is_unspecified() => return Vec::new(),
            _ => {}
        }
    }
    interfaces.into_iter().map(|interface| DefaultRoute { interface, metric }).collect()
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    fn message(prefix: u8, table: u8, kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix;
        message.header.table = table;
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    fn hop(interface: u32) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = interface;
        hop
    }

    #[test]
    fn the_servers_own_address_comes_first_no_matter_when_others_were_added() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Ipv4Net>>();
        let (floating, own) = ("203.0.113.50/32", "198.51.100.2/32");
        let address = [Ipv4Addr::new(198, 51, 100, 2)];
        for (preferred, leased) in [(&address[..], &[][..]), (&[], &address), (&address, &address)] {
            let mut addresses = nets(&[floating, own]);
            move_own_address_first(&mut addresses, preferred, leased);
            assert_eq!(addresses, nets(&[own, floating]));
        }
        let mut addresses = nets(&[floating, own]);
        move_own_address_first(&mut addresses, &[], &[]);
        assert_eq!(addresses, nets(&[floating, own]), "without further information the kernel's order stays");
        let source = RouteAttribute::PrefSource(RouteAddress::Inet(address[0]));
        let main = RouteHeader::RT_TABLE_MAIN;
        let by = RouteAttribute::Oif(2);
        let default = message(0, main, RouteType::Unicast, vec![by.clone(), source.clone()]);
        assert_eq!(preferred_source(&default), Some(address[0]));
        assert_eq!(preferred_source(&message(8, main, RouteType::Unicast, vec![by, source])), None);
    }

    #[test]
    fn only_a_unicast_route_to_everywhere_in_the_main_table_is_a_default_route() {
        let main = RouteHeader::RT_TABLE_MAIN;
        let by = |interface| RouteAttribute::Oif(interface);
        let to = |address: &str| RouteAttribute::Destination(RouteAddress::Inet(address.parse().unwrap()));
        let route = |interface, metric| DefaultRoute { interface, metric };
        let cases = [
            ("plain", message(0, main, RouteType::Unicast, vec![by(2)]), vec![route(2, 0)]),
            (
                "with a metric, before or after the interface",
                message(0, main, RouteType::Unicast, vec![RouteAttribute::Priority(100), by(2)]),
                vec![route(2, 100)],
            ),
            (
                "multi-path",
                message(
                    0,
                    main,
                    RouteType::Unicast,
                    vec![RouteAttribute::MultiPath(vec![hop(3), hop(2)]), RouteAttribute::Priority(7)],
                ),
                vec![route(3, 7), route(2, 7)],
            ),
            (
                "explicit destination 0.0.0.0",
                message(0, main, RouteType::Unicast, vec![to("0.0.0.0"), by(2)]),
                vec![route(2, 0)],
            ),
            ("a narrower route", message(8, main, RouteType::Unicast, vec![to("10.0.0.0"), by(2)]), vec![]),
            ("unreachable", message(0, main, RouteType::Unreachable, vec![RouteAttribute::Priority(1)]), vec![]),
            ("another table", message(0, 100, RouteType::Unicast, vec![by(2)]), vec![]),
            ("without an interface", message(0, main, RouteType::Unicast, vec![]), vec![]),
        ];
        for (name, message, expected) in cases {
            assert_eq!(default_routes(&message), expected, "{name}");
        }
    }
}
