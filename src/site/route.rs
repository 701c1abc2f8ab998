//! A route of the kernel, as far as messages and samples need it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

/// An IPv4 route of any table that leads to an interface or nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub kind: RouteKind,
    /// Where to, without host bits.
    pub destination: Ipv4Net,
    /// The router, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// Index of its outgoing interface, of the first one if there are several; `None` if it leads nowhere.
    pub interface: Option<u32>,
    /// Indices of its further interfaces.
    pub further: Vec<u32>,
    /// The lower one wins.
    pub metric: u32,
    /// The table's number.
    pub table: u32,
    /// Who made it.
    pub protocol: u8,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// It sends them out of an interface.
    Unicast,
    /// It drops them silently.
    Blackhole,
    /// It drops them and says that the host is unreachable.
    Unreachable,
    /// It drops them and says that this is forbidden.
    Prohibit,
    /// Its table has no route for them: the next rule decides (`ip rule`), and after the main table there is none.
    Throw,
}

impl RouteKind {
    fn of(kind: RouteType) -> Option<Self> {
        match kind {
            RouteType::Unicast => Some(Self::Unicast),
            RouteType::BlackHole => Some(Self::Blackhole),
            RouteType::Unreachable => Some(Self::Unreachable),
            RouteType::Prohibit => Some(Self::Prohibit),
            RouteType::Throw => Some(Self::Throw),
            _ => None,
        }
    }

    /// The word of `ip route`, with a space after it.
    fn word(self) -> &'static str {
        match self {
            Self::Unicast => "",
            Self::Blackhole => "blackhole ",
            Self::Unreachable => "unreachable ",
            Self::Prohibit => "prohibit ",
            Self::Throw => "throw ",
        }
    }
}

impl Route {
    /// The route in a message; `None` if it is another kind of route (local, broadcast, multicast).
    pub(super) fn from_message(message: &RouteMessage) -> Option<Self> {
        Self::of_kind(message, RouteKind::of(message.header.kind)?)
    }

    /// The local route in a message: packets that it matches are for this server.
    pub(super) fn to_this_server(message: &RouteMessage) -> Option<Self> {
        if message.header.kind == RouteType::Local { Self::of_kind(message, RouteKind::Unicast) } else { None }
    }

    fn of_kind(message: &RouteMessage, kind: RouteKind) -> Option<Self> {
        let header = &message.header;
        if header.address_family != AddressFamily::Inet {
            return None;
        }
        let mut route = Self {
            kind,
            destination: Ipv4Net::default(),
            gateway: None,
            interface: None,
            further: Vec::new(),
            metric: 0,
            table: header.table.into(),
            protocol: header.protocol.into(),
        };
        let mut address = Ipv4Addr::UNSPECIFIED;
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(destination)) => address = *destination,
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => route.gateway = Some(*gateway),
                RouteAttribute::Oif(index) => route.interface = Some(*index),
                RouteAttribute::Priority(priority) => route.metric = *priority,
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::MultiPath(hops) => {
                    let mut hops = hops.iter().map(|hop| hop.interface_index);
                    route.interface = hops.next();
                    route.further = hops.collect();
                }
                _ => {}
            }
        }
        route.destination = Ipv4Net::new(address, header.destination_prefix_length).ok()?.trunc();
        Some(route)
    }

    /// Whether it is in the main table, the one of `ip route` without further words.
    pub(super) fn is_in_main(&self) -> bool {
        self.table == u32::from(RouteHeader::RT_TABLE_MAIN)
    }

    /// The route as `ip route` prints it and takes it: `default via 10.0.0.1 dev eth1 metric 100 table 5`.
    pub(super) fn text(&self, name: impl Fn(u32) -> String) -> String {
        let mut text = self.kind.word().to_owned();
        if self.destination.prefix_len() == 0 {
            text.push_str("default");
        } else {
            let _ = write!(text, "{}", self.destination);
        }
        if let Some(gateway) = self.gateway {
            let _ = write!(text, " via {gateway}");
        }
        if let Some(interface) = self.interface.filter(|_| self.kind == RouteKind::Unicast) {
            let _ = write!(text, " dev {}", name(interface));
        }
        if self.metric != 0 {
            let _ = write!(text, " metric {}", self.metric);
        }
        if !self.is_in_main() {
            let _ = write!(text, " table {}", self.table);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_written_as_ip_route_takes_it() {
        let route = Route {
            kind: RouteKind::Unicast,
            destination: Ipv4Net::default(),
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            interface: Some(3),
            further: Vec::new(),
            metric: 0,
            table: 254,
            protocol: 3,
        };
        let text = |route: &Route| route.text(|index| format!("eth{index}"));
        assert_eq!(text(&route), "default via 10.0.0.1 dev eth3");
        let narrow = Route {
            destination: "10.0.0.0/17".parse().unwrap(),
            gateway: None,
            metric: 50,
            table: 51820,
            ..route.clone()
        };
        assert_eq!(text(&narrow), "10.0.0.0/17 dev eth3 metric 50 table 51820");
        for (kind, word) in [(RouteKind::Blackhole, "blackhole"), (RouteKind::Throw, "throw")] {
            let nowhere = Route { kind, interface: Some(1), gateway: None, ..narrow.clone() };
            assert_eq!(text(&nowhere), format!("{word} 10.0.0.0/17 metric 50 table 51820"));
        }
    }
}
