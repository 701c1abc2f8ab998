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

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use serde::Deserialize;
use tokio::sync::watch;

pub use table::NextHop;
use table::{Table, link};

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
            iifname \"lo\" accept
            fib saddr . iif oif missing counter name spoofed drop
        }
    }
";

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
pub struct RouteNotApplied {
    network: NetworkId,
    destination: Ipv4Net,
    expected: Option<Ipv4Addr>,
    found: Option<NextHop>,
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
    pub fn routes(&self) -> BTreeMap<Ipv4Net, NextHop> {
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
    pub fn wait_for_route(
        &self,
        destination: Ipv4Net,
        gateway: Option<Ipv4Addr>,
        timeout: Duration,
    ) -> Result<(), RouteNotApplied> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            let found = state.applied.routes.get(&destination).copied();
            let expected = gateway.and_then(|gateway| state.applied.routes.get(&gateway.into())).copied();
            let leads_there = match (gateway, expected, found) {
                (None, _, found) => found.is_none(),
                (Some(_), Some(NextHop::Server(a) | NextHop::Via(a, _)), Some(NextHop::Via(b, _))) => a == b,
                (Some(_), None | Some(NextHop::Unreachable), Some(NextHop::Unreachable)) => true,
                _ => false,
            };
            if leads_there {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let failure = state.failure.as_ref().map(ToString::to_string);
                return Err(RouteNotApplied { network: self.network, destination, expected: gateway, found, failure });
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
