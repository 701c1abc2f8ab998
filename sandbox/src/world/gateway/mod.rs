//! Hetzner's virtual gateway of one private network, simulated by a namespace that routes.
//!
//! It behaves as Hetzner's documentation describes the real one ("Networks: Architecture" and FAQ):
//!
//! - It works on layer 3 only, with one link to each server and none between servers: a server sees no ARP of another.
//! - It is one hop, so the TTL decreases by one.
//! - Its routes are those of the cloud.
//! - It drops a packet from a server unless the source belongs to that server: its own address, an alias IP, or the
//!   destination of a route whose gateway it is.
//!
//! The last rule is the kernel's reverse path lookup in this namespace, which uses the longest prefix: the gateway of
//! `0.0.0.0/0` may use any internet source, but not a neighbour's address. Whether the real gateway is that strict is
//! not documented. A bastion that works with the strict one works with both.

mod broken;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::Deserialize;
use tokio::sync::watch;

pub use table::NextHop;
use table::Table;

use super::addresses::{PRIVATE_MTU, Range};
use super::hosts;
use crate::cloud::{NetworkId, NetworkView, ServerId};
use crate::namespace::{self, Namespace};

/// Drops packets with a wrong source. Priority raw is before connection tracking, so a dropped packet creates no flow.
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

/// The end of a server's link to the gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerLink<'a> {
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
    connected: BTreeSet<ServerId>,
    /// The cloud's latest view of the networks.
    latest: Vec<NetworkView>,
    /// Routes that differ from the cloud's on purpose: without a gateway there is none.
    overridden: BTreeMap<Ipv4Net, Option<Ipv4Addr>>,
    /// Servers whose port has no carrier.
    unplugged: BTreeSet<ServerId>,
    applied: Table,
    /// Why the latest table could not be applied.
    failure: Option<namespace::Error>,
}

/// A route was not applied in time.
#[derive(Debug, thiserror::Error)]
#[error(
    "the gateway of network {network} sends {destination} to {found:?} instead of {expected:?}{}",
    failure_text(.failure.as_deref())
)]
pub struct RouteNotApplied {
    network: NetworkId,
    destination: Ipv4Net,
    expected: Option<Ipv4Addr>,
    found: Option<NextHop>,
    failure: Option<String>,
}

fn failure_text(failure: Option<&str>) -> String {
    failure.map(|failure| format!(" (its last change failed: {failure})")).unwrap_or_default()
}

impl Gateway {
    pub(super) fn create(name: &str, network: NetworkId, range: Range) -> Result<Self, namespace::Error> {
        let namespace = Namespace::create(name)?;
        namespace.sysctls(&hosts::ROUTER)?;
        namespace.sysctls(&[
            ("net.ipv4.conf.default.proxy_arp", "1"),
            // Private networks have no IPv6.
            ("net.ipv6.conf.default.disable_ipv6", "1"),
        ])?;
        namespace.nft(REVERSE_PATH_FILTER)?;
        // An unused address of the network is unreachable and does not follow 0.0.0.0/0. A route with the network's own
        // prefix wins because of the metric.
        namespace.ip(&format!("route add unreachable {} metric 4000000", range.range))?;
        let (state, changed) = (Mutex::default(), Condvar::new());
        Ok(Self { namespace, network, address: range.gateway(), state, changed })
    }

    /// Creates the link to a server's private interface and sets the gateway's end up. The caller configures the
    /// server's end.
    pub(super) fn connect(&self, link: ServerLink<'_>) -> Result<(), namespace::Error> {
        let ServerLink { server, namespace, interface, mac } = link;
        let (link, guest, address) = (table::interface(server), namespace.name(), self.address);
        // The kernel delays proxy ARP replies by up to 0.8 s. Only the machine's root may set the sysctl, but `ntable`
        // works.
        self.namespace.ip(&format!(
            "link add name {link} mtu {PRIVATE_MTU} type veth \
             peer name {interface} netns {guest} address {mac} mtu {PRIVATE_MTU}
             ntable change name arp_cache dev {link} proxy_delay 0
             addr add {address}/32 dev {link}
             link set {link} up"
        ))?;
        self.state().connected.insert(server);
        Ok(())
    }

    /// The namespace of the gateway.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The network of the gateway.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The network's first address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The applied routes: servers' addresses, alias IPs and the routes of the network.
    pub fn routes(&self) -> BTreeMap<Ipv4Net, NextHop> {
        self.state().applied.routes.clone()
    }

    /// The number of packets dropped because their source does not belong to their sender.
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

    /// Waits until `destination` is routed to the server that has the address `gateway`; for `None`, until there is no
    /// such route.
    ///
    /// # Errors
    /// That did not happen within `timeout`. The error shows the applied route.
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
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Applies the cloud's view of the network. It blocks for a few milliseconds.
    pub(super) fn apply(&self, networks: &[NetworkView]) {
        let mut state = self.state();
        state.latest = networks.to_vec();
        self.apply_latest(&mut state);
    }

    fn apply_latest(&self, state: &mut State) {
        let next = state.latest.iter().find(|network| network.id == self.network);
        let plugged: BTreeSet<ServerId> = state.connected.difference(&state.unplugged).copied().collect();
        let mut next = next.map(|network| Table::from_network(network, &plugged)).unwrap_or_default();
        next.override_routes(&state.overridden);
        let commands = state.applied.commands_to(&next);
        let outcome = if commands.is_empty() { Ok(String::new()) } else { self.namespace.ip(&commands) };
        match outcome {
            Ok(_) => {
                state.applied = next;
                state.failure = None;
            }
            Err(failure) => {
                let network = self.network;
                tracing::error!(%network, %failure, "the virtual gateway cannot apply the cloud's routes");
                state.failure = Some(failure);
            }
        }
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Applies every change of the cloud until the cloud or the runtime ends.
pub(super) async fn follow_cloud(gateway: std::sync::Arc<Gateway>, mut networks: watch::Receiver<Vec<NetworkView>>) {
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
