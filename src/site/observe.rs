//! Links, addresses and default routes of the kernel, by rtnetlink.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::net::{InterfaceName, MacAddress};

/// The kernel's view of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// All links whose names are [`InterfaceName`]s, by index.
    pub links: Vec<Link>,
    /// IPv4 default routes of the main table, in the kernel's order.
    pub default_routes: Vec<DefaultRoute>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: InterfaceName,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddress>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its IPv4 addresses with their prefixes.
    pub addresses: Vec<Ipv4Net>,
}

/// An IPv4 default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Number of the interface that it leaves by.
    pub interface: u32,
    /// The lower one wins; 0 where the kernel names none.
    pub metric: u32,
}

/// Why the kernel could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a route netlink socket")]
    Open(#[source] std::io::Error),
    /// A question went unanswered.
    #[error("the kernel did not list its {what}")]
    List {
        /// `links`, `addresses` or `routes`.
        what: &'static str,
        /// Why not.
        source: rtnetlink::Error,
    },
}

/// Lists links, addresses and default routes.
pub(super) async fn observe() -> Result<Kernel, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
    let connection = tokio::spawn(connection);
    let observed = list(&handle).await;
    connection.abort();
    observed
}

async fn list(handle: &Handle) -> Result<Kernel, Error> {
    let mut links = links(handle).await.map_err(|source| Error::List { what: "links", source })?;
    let addresses = handle.address().get().execute().try_collect::<Vec<_>>().await;
    for message in addresses.map_err(|source| Error::List { what: "addresses", source })? {
        let Some(link) = links.get_mut(&message.header.index) else { continue };
        // On a point-to-point link ADDRESS is the peer's and LOCAL our own; elsewhere both are the same.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        link.addresses.extend(local.and_then(|address| Ipv4Net::new(address, message.header.prefix_len).ok()));
    }
    let request = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes = handle.route().get(request).execute().try_collect::<Vec<_>>().await;
    let routes = routes.map_err(|source| Error::List { what: "routes", source })?;
    Ok(Kernel {
        links: links.into_values().collect(),
        default_routes: routes.iter().filter_map(default_route).collect(),
    })
}

async fn links(handle: &Handle) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
    let mut links = BTreeMap::new();
    for message in handle.link().get().execute().try_collect::<Vec<_>>().await? {
        let (mut name, mut mac, mut mtu) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = text.parse().ok(),
                LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(MacAddress),
                LinkAttribute::Mtu(bytes) => mtu = *bytes,
                _ => {}
            }
        }
        let Some(name) = name else { continue };
        let (index, up) = (message.header.index, message.header.flags.contains(LinkFlags::Up));
        links.insert(index, Link { index, name, mac, mtu, up, addresses: Vec::new() });
    }
    Ok(links)
}

/// A unicast route to everywhere in the main table, that leaves by an interface.
fn default_route(message: &RouteMessage) -> Option<DefaultRoute> {
    let header = &message.header;
    let to_everywhere = header.address_family == AddressFamily::Inet
        && header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && header.table == RouteHeader::RT_TABLE_MAIN;
    if !to_everywhere {
        return None;
    }
    let (mut interface, mut metric) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(hops) => interface = interface.or(hops.first().map(|hop| hop.interface_index)),
            RouteAttribute::Destination(RouteAddress::Inet(address)) if !address.is_unspecified() => return None,
            _ => {}
        }
    }
    Some(DefaultRoute { interface: interface?, metric })
}
