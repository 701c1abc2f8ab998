//! Hetzner's virtual gateway of one private network, as a namespace that routes.
//!
//! It behaves as the real one is described (Hetzner documentation, "Networks: Architecture" and FAQ): pure layer 3, one
//! link to each server and none between them, so that no server sees another's ARP; one hop, so that the TTL drops by
//! one; routes as the cloud holds them; and a packet from a server is dropped unless its source belongs to that server:
//! its own address, an alias IP, or the destination of a route whose gateway it is.
//!
//! That last rule is the kernel's reverse path lookup in this namespace, which decides by the longest prefix: the
//! holder of `0.0.0.0/0` may speak for the whole internet but not for a neighbour's address. Whether the real gateway
//! is that strict is not documented; a bastion that lives with the stricter one lives with both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use serde::Deserialize;
use tokio::sync::watch;

use super::addresses::{PRIVATE_MTU, Range};
use super::hosts;
use crate::cloud::{NetworkId, NetworkView, ServerId};
use crate::namespace::{self, Namespace};

/// Raw priority: before connection tracking, so that a dropped packet leaves no trace.
const REVERSE_PATH_FILTER: &str = "
    table inet gateway {
        counter spoofed {}
        chain prerouting {
            type filter hook prerouting priority raw; policy accept;
            iifname lo accept
            fib saddr . iif oif missing counter name spoofed drop
        }
    }
";

/// Where the gateway sends what matches a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// To the server whose address it is.
    Server(ServerId),
    /// To the server that has this address: an alias IP of it, or a route's destination.
    Via(ServerId, Ipv4Addr),
    /// Nowhere: nobody holds the route's gateway address. The sender gets an ICMP error.
    Unreachable,
}

/// All that the gateway knows: a pure function of the cloud's network and of the links that are plugged in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Servers' addresses and the hardware addresses behind them. The gateway never asks: the cloud knows them.
    neighbours: BTreeMap<ServerId, (Ipv4Addr, String)>,
    routes: BTreeMap<Ipv4Net, Hop>,
}

impl Table {
    /// The table for a network.
    fn of(network: &NetworkView, plugged: &BTreeSet<ServerId>) -> Self {
        let mut table = Self::default();
        let mut holders = BTreeMap::new();
        for server in network.servers.iter().filter(|attached| plugged.contains(&attached.server)) {
            table.neighbours.insert(server.server, (server.ip, server.mac_address.clone()));
            table.routes.insert(server.ip.into(), Hop::Server(server.server));
            holders.insert(server.ip, Hop::Via(server.server, server.ip));
            for &alias in &server.alias_ips {
                table.routes.insert(alias.into(), Hop::Via(server.server, server.ip));
                holders.insert(alias, Hop::Via(server.server, server.ip));
            }
        }
        for route in &network.routes {
            let hop = holders.get(&route.gateway).copied().unwrap_or(Hop::Unreachable);
            table.routes.insert(route.destination, hop);
        }
        table
    }

    /// The lines of `ip` that lead from this table to `next`, touching nothing that is in both.
    fn lines_to(&self, next: &Self) -> String {
        let mut lines = String::new();
        for (destination, hop) in &self.routes {
            if !next.routes.contains_key(destination) {
                line(&mut lines, format_args!("route del {}", phrase(*destination, *hop)));
            }
        }
        for (server, neighbour) in &next.neighbours {
            if self.neighbours.get(server) != Some(neighbour) {
                let (ip, mac) = neighbour;
                line(&mut lines, format_args!("neigh replace {ip} lladdr {mac} dev {} nud permanent", link(*server)));
            }
        }
        // Servers first: a route's gateway must be known before the route.
        let is_route = |hop: &Hop| !matches!(hop, Hop::Server(_));
        let mut changed: Vec<_> =
            next.routes.iter().filter(|(destination, hop)| self.routes.get(destination) != Some(hop)).collect();
        changed.sort_by_key(|(_, hop)| is_route(hop));
        for (destination, hop) in changed {
            line(&mut lines, format_args!("route replace {}", phrase(*destination, *hop)));
        }
        lines
    }
}

fn line(lines: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(lines, "{line}").expect("writing to a string does not fail");
}

fn phrase(destination: Ipv4Net, hop: Hop) -> String {
    match hop {
        Hop::Server(server) => format!("{destination} dev {} scope link", link(server)),
        Hop::Via(server, ip) => format!("{destination} via {ip} dev {} onlink", link(server)),
        Hop::Unreachable => format!("unreachable {destination}"),
    }
}

/// The gateway's end of a server's link.
fn link(server: ServerId) -> String {
    format!("guest{server}")
}

/// A server's private interface, to be plugged into the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plug<'a> {
    pub(super) server: ServerId,
    pub(super) namespace: &'a Namespace,
    pub(super) interface: &'a str,
    pub(super) mac: &'a str,
}

/// The virtual gateway of one network.
#[derive(Debug)]
pub struct Gateway {
    namespace: Namespace,
    network: NetworkId,
    address: Ipv4Addr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    plugged: BTreeSet<ServerId>,
    applied: Table,
    /// Why the table that the cloud wants is not in force.
    failure: Option<namespace::Error>,
}

/// A route did not come about in time.
#[derive(Debug, thiserror::Error)]
#[error("the gateway of network {network} sends {destination} to {found:?}, not via {expected:?}{}", failed(.failure.as_deref()))]
pub struct NotInForce {
    network: NetworkId,
    destination: Ipv4Net,
    expected: Option<Ipv4Addr>,
    found: Option<Hop>,
    failure: Option<String>,
}

fn failed(failure: Option<&str>) -> String {
    failure.map(|failure| format!(" (its last change failed: {failure})")).unwrap_or_default()
}

impl Gateway {
    pub(super) fn open(name: &str, network: NetworkId, range: Range) -> Result<Self, namespace::Error> {
        let namespace = Namespace::create(name)?;
        namespace.sysctls(&hosts::ROUTER)?;
        namespace.sysctls(&[
            ("net.ipv4.conf.default.proxy_arp", "1"),
            // Private networks have no IPv6.
            ("net.ipv6.conf.default.disable_ipv6", "1"),
        ])?;
        namespace.nft(REVERSE_PATH_FILTER)?;
        // An address of the network that nobody has leads nowhere, not out by 0.0.0.0/0. The metric lets a route with
        // the network's own prefix win.
        namespace.ip(&format!("route add unreachable {} metric 4000000", range.range))?;
        let (state, changed) = (Mutex::default(), Condvar::new());
        Ok(Self { namespace, network, address: range.gateway(), state, changed })
    }

    /// Lays the cable of a server's private interface, switched on at the gateway's end. The interface is the server's
    /// to configure.
    pub(super) fn plug(&self, plug: Plug<'_>) -> Result<(), namespace::Error> {
        let Plug { server, namespace, interface, mac } = plug;
        let (link, guest, address) = (link(server), namespace.name(), self.address);
        // The kernel waits up to 0.8 s before it answers ARP for others; the sysctl of that is the machine's root's alone.
        self.namespace.ip(&format!(
            "link add name {link} mtu {PRIVATE_MTU} type veth \
             peer name {interface} netns {guest} address {mac} mtu {PRIVATE_MTU}
             ntable change name arp_cache dev {link} proxy_delay 0
             addr add {address}/32 dev {link}
             link set {link} up"
        ))?;
        self.state().plugged.insert(server);
        Ok(())
    }

    /// The namespace, to look at or to spoil.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The network that it serves.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The network's first address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where it sends what, as in force now: servers' addresses, alias IPs and routes.
    pub fn routes(&self) -> BTreeMap<Ipv4Net, Hop> {
        self.state().applied.routes.clone()
    }

    /// How many packets were dropped because their source was not their sender's.
    pub fn spoofed_packets(&self) -> Result<u64, namespace::Error> {
        #[derive(Deserialize)]
        struct Listing {
            nftables: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            counter: Option<Counter>,
        }
        #[derive(Deserialize)]
        struct Counter {
            packets: u64,
        }
        let listing: Listing = self.namespace.nft_json("list counter inet gateway spoofed")?;
        Ok(listing.nftables.iter().filter_map(|item| item.counter.as_ref()).map(|counter| counter.packets).sum())
    }

    /// Waits until `destination` goes to the server that holds `gateway`, or nowhere special for `None`.
    ///
    /// # Errors
    /// It does not within `timeout`; the error says what is in force instead.
    pub fn await_route(
        &self,
        destination: Ipv4Net,
        gateway: Option<Ipv4Addr>,
        timeout: Duration,
    ) -> Result<(), NotInForce> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            let found = state.applied.routes.get(&destination).copied();
            let expected = gateway.and_then(|gateway| state.applied.routes.get(&gateway.into())).copied();
            let leads_there = match (gateway, expected, found) {
                (None, _, found) => found.is_none(),
                (Some(_), Some(Hop::Server(a) | Hop::Via(a, _)), Some(Hop::Via(b, _))) => a == b,
                (Some(_), None | Some(Hop::Unreachable), Some(Hop::Unreachable)) => true,
                _ => false,
            };
            if leads_there {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let failure = state.failure.as_ref().map(ToString::to_string);
                return Err(NotInForce { network: self.network, destination, expected: gateway, found, failure });
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Brings the cloud's view into force. Takes a few milliseconds and blocks.
    pub(super) fn apply(&self, networks: &[NetworkView]) {
        let mut state = self.state();
        let next = networks.iter().find(|network| network.id == self.network);
        let next = next.map(|network| Table::of(network, &state.plugged)).unwrap_or_default();
        let lines = state.applied.lines_to(&next);
        let outcome = if lines.is_empty() { Ok(String::new()) } else { self.namespace.ip(&lines) };
        match outcome {
            Ok(_) => {
                state.applied = next;
                state.failure = None;
            }
            Err(failure) => {
                tracing::error!(network = %self.network, %failure, "the virtual gateway could not follow the cloud");
                state.failure = Some(failure);
            }
        }
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the cloud until it or the runtime ends.
pub(super) async fn follow(gateway: std::sync::Arc<Gateway>, mut networks: watch::Receiver<Vec<NetworkView>>) {
    loop {
        let view = networks.borrow_and_update().clone();
        let gateway = gateway.clone();
        if tokio::task::spawn_blocking(move || gateway.apply(&view)).await.is_err() {
            return;
        }
        if networks.changed().await.is_err() {
            return;
        }
    }
}
