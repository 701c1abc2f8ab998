//! The tunnel's link and addresses, and the main table, by rtnetlink.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::model::{Address, Link, Observed, PROTOCOL, Route};
use crate::net::InterfaceName;
use crate::rtnetlink_connection::RtnetlinkConnection;

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
        source: rtnetlink::Error,
    },
}

/// A conversation with the kernel; it ends when dropped.
pub(super) struct Netlink(pub(super) RtnetlinkConnection);

impl Netlink {
    pub(super) fn open() -> Result<Self, Error> {
        RtnetlinkConnection::open().map(Self).map_err(Error::Open)
    }

    /// Looks at the interface, if one is named, and at the main table.
    pub(super) async fn observe(&self, interface: Option<&InterfaceName>) -> Result<Observed, Error> {
        let mut observed = Observed::default();
        for (index, (name, up)) in self.links().await.map_err(|source| Error::List { what: "links", source })? {
            if interface.is_some_and(|wanted| wanted.as_str() == name) {
                observed.link = Some(Link { index, up });
            }
            observed.names.insert(index, name);
            observed.up.extend(up.then_some(index));
        }
        if let Some(link) = observed.link {
            let addresses = self.0.handle.address().get().set_link_index_filter(link.index).execute();
            let addresses: Vec<_> =
                addresses.try_collect().await.map_err(|source| Error::List { what: "addresses", source })?;
            observed.addresses = addresses.iter().filter_map(|message| address(message, link)).collect();
        }
        for request in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let routes: Result<Vec<_>, _> = self.0.handle.route().get(request).execute().try_collect().await;
            let routes = routes.map_err(|source| Error::List { what: "routes", source })?;
            observed.routes.extend(routes.iter().filter_map(route));
        }
        Ok(observed)
    }

    async fn links(&self) -> Result<BTreeMap<u32, (String, bool)>, rtnetlink::Error> {
        let mut links = BTreeMap::new();
        for message in self.0.handle.link().get().execute().try_collect::<Vec<_>>().await? {
            let name = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            let up = message.header.flags.contains(LinkFlags::Up);
            links.extend(name.map(|name| (message.header.index, (name, up))));
        }
        Ok(links)
    }
}

/// An address of the link, unless it is link-local or another link's (kernels before 4.20 heed no filter).
fn address(message: &AddressMessage, link: Link) -> Option<Address> {
    if message.header.index != link.index {
        return None;
    }
    let (mut local, mut any, mut ours) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => any = Some(*address),
            AddressAttribute::Protocol(protocol) => ours = *protocol == AddressProtocol::Other(PROTOCOL),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side's; IPv6 names only that where both are the same.
    let address = local.or(any)?;
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    let net = IpNet::new(address, message.header.prefix_len).ok()?;
    (!is_link_local || ours).then_some(Address { net, ours })
}

/// A route of the main table.
fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let (mut destination, mut interface, mut metric, mut routed, mut gateway) = (None, 0, 0, false, None);
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = Some(IpAddr::V6(*address)),
            RouteAttribute::Oif(index) => interface = *index,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Gateway(address) => {
                routed = true;
                gateway = match address {
                    RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
                    RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
                    _ => None,
                };
            }
            RouteAttribute::Via(_) => routed = true,
            RouteAttribute::MultiPath(hops) => {
                routed = true;
                interface = hops.first().map_or(0, |hop| hop.interface_index);
            }
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let everywhere = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let destination = IpNet::new(destination.unwrap_or(everywhere), header.destination_prefix_length).ok()?;
    let plain = header.kind == RouteType::Unicast && !routed;
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then_some(Route {
        destination,
        interface,
        protocol: header.protocol.into(),
        metric,
        gateway: gateway.filter(|_| header.kind == RouteType::Unicast),
        plain,
    })
}
