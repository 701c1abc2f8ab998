//! The routing table of the gateway, and the `ip` commands that change it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::cloud::{NetworkView, ServerId};

/// The next hop of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextHop {
    /// The server that has the destination address.
    Server(ServerId),
    /// The server with this address, for one of its alias IPs or for the destination of a route.
    Via(ServerId, Ipv4Addr),
    /// None, because no server has the route's gateway address. The sender gets an ICMP error.
    Unreachable,
}

/// The gateway's neighbours and routes, computed from the cloud's network and the connected servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// The IP and MAC address of each server. The gateway sends no ARP requests, because the cloud knows them.
    neighbours: BTreeMap<ServerId, (Ipv4Addr, String)>,
    pub(super) routes: BTreeMap<Ipv4Net, NextHop>,
}

impl Table {
    /// The table of a network. Servers without a link to the gateway are ignored.
    pub(super) fn from_network(network: &NetworkView, connected: &BTreeSet<ServerId>) -> Self {
        let mut table = Self::default();
        let mut holders = BTreeMap::new();
        for server in network.servers.iter().filter(|attached| connected.contains(&attached.server)) {
            table.neighbours.insert(server.server, (server.ip, server.mac_address.clone()));
            table.routes.insert(server.ip.into(), NextHop::Server(server.server));
            holders.insert(server.ip, NextHop::Via(server.server, server.ip));
            for &alias in &server.alias_ips {
                table.routes.insert(alias.into(), NextHop::Via(server.server, server.ip));
                holders.insert(alias, NextHop::Via(server.server, server.ip));
            }
        }
        for route in &network.routes {
            let hop = holders.get(&route.gateway).copied().unwrap_or(NextHop::Unreachable);
            table.routes.insert(route.destination, hop);
        }
        table
    }

    /// Replaces the routes to some destinations by routes to other servers, or by none.
    pub(super) fn override_routes(&mut self, overridden: &BTreeMap<Ipv4Net, Option<Ipv4Addr>>) {
        for (&destination, gateway) in overridden {
            let hop = gateway.map(|gateway| match self.routes.get(&gateway.into()) {
                Some(NextHop::Server(server)) => NextHop::Via(*server, gateway),
                Some(other) => *other,
                None => NextHop::Unreachable,
            });
            match hop {
                Some(hop) => drop(self.routes.insert(destination, hop)),
                None => drop(self.routes.remove(&destination)),
            }
        }
    }

    /// The `ip` commands that change this table into `next`. Entries in both are not touched.
    pub(super) fn commands_to(&self, next: &Self) -> String {
        let mut lines = String::new();
        for (destination, hop) in &self.routes {
            if !next.routes.contains_key(destination) {
                line(&mut lines, format_args!("route del {}", route_arguments(*destination, *hop)));
            }
        }
        for (server, neighbour) in &next.neighbours {
            if self.neighbours.get(server) != Some(neighbour) {
                let (ip, mac) = neighbour;
                line(
                    &mut lines,
                    format_args!("neigh replace {ip} lladdr {mac} dev {} nud permanent", interface(*server)),
                );
            }
        }
        // Servers come first, because a route's gateway must be known before the route.
        let is_route = |hop: &NextHop| !matches!(hop, NextHop::Server(_));
        let mut changed: Vec<_> =
            next.routes.iter().filter(|(destination, hop)| self.routes.get(destination) != Some(hop)).collect();
        changed.sort_by_key(|(_, hop)| is_route(hop));
        for (destination, hop) in changed {
            line(&mut lines, format_args!("route replace {}", route_arguments(*destination, *hop)));
        }
        lines
    }
}

fn line(lines: &mut String, line: fmt::Arguments<'_>) {
    writeln!(lines, "{line}").expect("writing to a string does not fail");
}

fn route_arguments(destination: Ipv4Net, hop: NextHop) -> String {
    match hop {
        NextHop::Server(server) => format!("{destination} dev {} scope link", interface(server)),
        NextHop::Via(server, ip) => format!("{destination} via {ip} dev {} onlink", interface(server)),
        NextHop::Unreachable => format!("unreachable {destination}"),
    }
}

/// The name of the gateway's interface to a server.
pub(super) fn interface(server: ServerId) -> String {
    format!("guest{server}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{AttachedServer, NetworkId, Route};

    const BASTION: ServerId = ServerId(42);
    const WEB: ServerId = ServerId(43);
    const UNCONNECTED: ServerId = ServerId(44);

    /// A network with the bastion, which has an alias IP, a web server, and a server without a link.
    fn network(routes: &[(&str, [u8; 4])]) -> NetworkView {
        let server = |server, last, alias_ips| AttachedServer {
            server,
            ip: [10, 0, 0, last].into(),
            alias_ips,
            mac_address: format!("86:00:00:2a:00:0{last}"),
        };
        let route = |&(destination, gateway): &(&str, [u8; 4])| Route {
            destination: destination.parse().expect("a destination"),
            gateway: gateway.into(),
        };
        NetworkView {
            id: NetworkId(7),
            name: "private".into(),
            ip_range: "10.0.0.0/16".parse().expect("a range"),
            gateway: [10, 0, 0, 1].into(),
            servers: vec![
                server(BASTION, 2, vec![[10, 0, 0, 3].into()]),
                server(WEB, 4, vec![]),
                server(UNCONNECTED, 9, vec![]),
            ],
            routes: routes.iter().map(route).collect(),
        }
    }

    fn table(routes: &[(&str, [u8; 4])]) -> Table {
        Table::from_network(&network(routes), &[BASTION, WEB].into())
    }

    fn lines(from: &Table, to: &Table) -> Vec<String> {
        from.commands_to(to).lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_empty_gateway_gets_servers_before_routes() {
        let table = table(&[
            ("0.0.0.0/0", [10, 0, 0, 3]),
            ("10.8.0.0/24", [10, 0, 0, 4]),
            ("10.9.0.0/24", [10, 0, 0, 9]),
            ("10.10.0.0/24", [10, 0, 0, 200]),
        ]);
        assert_eq!(
            lines(&Table::default(), &table),
            [
                "neigh replace 10.0.0.2 lladdr 86:00:00:2a:00:02 dev guest42 nud permanent",
                "neigh replace 10.0.0.4 lladdr 86:00:00:2a:00:04 dev guest43 nud permanent",
                "route replace 10.0.0.2/32 dev guest42 scope link",
                "route replace 10.0.0.4/32 dev guest43 scope link",
                "route replace 0.0.0.0/0 via 10.0.0.2 dev guest42 onlink",
                "route replace 10.0.0.3/32 via 10.0.0.2 dev guest42 onlink",
                "route replace 10.8.0.0/24 via 10.0.0.4 dev guest43 onlink",
                "route replace unreachable 10.9.0.0/24",
                "route replace unreachable 10.10.0.0/24",
            ]
        );
    }

    #[test]
    fn unchanged_entries_are_not_touched() {
        let before = table(&[("0.0.0.0/0", [10, 0, 0, 2]), ("10.8.0.0/24", [10, 0, 0, 2])]);
        let after = table(&[("0.0.0.0/0", [10, 0, 0, 4]), ("10.9.0.0/24", [10, 0, 0, 2])]);
        assert_eq!(
            lines(&before, &after),
            [
                "route del 10.8.0.0/24 via 10.0.0.2 dev guest42 onlink",
                "route replace 0.0.0.0/0 via 10.0.0.4 dev guest43 onlink",
                "route replace 10.9.0.0/24 via 10.0.0.2 dev guest42 onlink",
            ]
        );
        assert_eq!(lines(&after, &after), Vec::<String>::new());
    }

    #[test]
    fn overridden_routes_differ_from_the_clouds() {
        let mut table = table(&[("0.0.0.0/0", [10, 0, 0, 2]), ("10.8.0.0/24", [10, 0, 0, 2])]);
        let destination = |text: &str| text.parse::<Ipv4Net>().expect("a destination");
        table.override_routes(&BTreeMap::from([
            (destination("0.0.0.0/0"), None),
            (destination("10.8.0.0/24"), Some([10, 0, 0, 4].into())),
            (destination("10.9.0.0/24"), Some([10, 0, 0, 200].into())),
        ]));
        assert_eq!(table.routes.get(&destination("0.0.0.0/0")), None);
        assert_eq!(table.routes[&destination("10.8.0.0/24")], NextHop::Via(WEB, [10, 0, 0, 4].into()));
        assert_eq!(table.routes[&destination("10.9.0.0/24")], NextHop::Unreachable);
    }
}
