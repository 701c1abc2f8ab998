//! The task that polls the metadata service, and what it keeps of the answers.
//!
//! A failure of the metadata service must not stop the gateway. Therefore the last answer is kept, also across a
//! restart of the daemon. A network that disappears from the list is kept for a minute, and as long as its interface
//! has its address: one that was really detached loses its interface at once. What is not believed is reported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::super::observe::{Kernel, Link, Netlink};
use super::client::{Doubt, Failure, Metadata, MetadataView, PrivateNetwork, fetch};
use crate::error::chain;
use crate::net::{NetworkId, overlap};
use crate::{http, state};

/// How long the service may take to answer. It usually takes milliseconds; seconds have been seen at first boots.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take to accept a connection: it is one hop away (cloud-init's `DataSourceHetzner` waits as long).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between queries while a network is expected to appear, or the service does not answer.
const EXPECTING_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Time between queries otherwise. An operator must act to change the answer, and a hot-plugged link starts a query at
/// once.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest time between two queries, no matter how many links change.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A network that is missing from the list for this time, and whose interface does not have its address, is dropped.
const MISSING_NETWORK_TIMEOUT: Duration = Duration::from_secs(60);

/// Polls the service until it is dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    view: watch::Receiver<MetadataView>,
    poll_request: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Starts to poll `endpoint`. Begins with the answer that an earlier daemon saved in `runtime_directory`. Without
    /// an endpoint nothing is polled, and the view is settled at once.
    pub(crate) fn start(endpoint: Option<String>, runtime_directory: &Path) -> Self {
        Self::start_with(endpoint, Some(runtime_directory.join("metadata.json")))
    }

    /// The same without a saved answer: none is read, and none is written.
    pub(crate) fn start_without_memory(endpoint: Option<String>) -> Self {
        Self::start_with(endpoint, None)
    }

    fn start_with(endpoint: Option<String>, saved: Option<PathBuf>) -> Self {
        let poll_request = Arc::new(Notify::new());
        let latest: Option<Metadata> = endpoint.as_ref().and_then(|_| state::read_json(saved.as_deref()?));
        let settled = endpoint.is_none() || latest.is_some();
        let (sender, view) = watch::channel(MetadataView { latest, settled, ..MetadataView::default() });
        let task = tokio::spawn(poll(endpoint, sender, Arc::clone(&poll_request), saved));
        Self { view, poll_request, task }
    }

    /// What is known now. Later changes wake the receiver.
    pub(crate) fn view(&self) -> watch::Receiver<MetadataView> {
        let mut view = self.view.clone();
        view.mark_unchanged();
        view
    }

    /// Starts a query soon, because a link has appeared or disappeared.
    pub(crate) fn poll_soon(&self) {
        self.poll_request.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn poll(
    endpoint: Option<String>,
    view: watch::Sender<MetadataView>,
    poll_request: Arc<Notify>,
    saved: Option<PathBuf>,
) {
    let Some(endpoint) = endpoint else { return view.closed().await };
    let mut missing = BTreeMap::new();
    loop {
        let queried_at = Instant::now();
        let answer = match http::plain_client(REQUEST_TIMEOUT, CONNECT_TIMEOUT) {
            Ok(client) => fetch(&client, &endpoint).await.map_err(Failure::from),
            Err(error) => Err(Failure { text: chain(&error), is_slow: false }),
        };
        let before = view.borrow().clone();
        // Err: nothing speaks for what the answer does not list.
        let kernel = match Netlink::open() {
            Ok(netlink) => netlink.observe().await.unwrap_or_default(),
            Err(_) => Kernel::default(),
        };
        let after = merge_answer(&before, answer, &mut missing, queried_at, &kernel);
        let expecting = after.error.is_some()
            || !missing.is_empty()
            || after.latest.as_ref().is_none_or(|metadata| metadata.private_networks.is_empty());
        if before.latest != after.latest {
            if let Some(Err(error)) = saved.as_ref().map(|saved| state::write_json(saved, &after.latest)) {
                // The file matters only for a restart while the service does not answer.
                tracing::warn!(component = "site", error = %chain(&error), "cannot save the metadata; continuing \
                    without");
            }
        }
        if before != after {
            view.send_replace(after);
        }
        tokio::select! {
            () = tokio::time::sleep(if expecting { EXPECTING_POLL_INTERVAL } else { IDLE_POLL_INTERVAL }) => {}
            () = poll_request.notified() => tokio::time::sleep_until(queried_at + MIN_POLL_INTERVAL).await,
            () = view.closed() => return,
        }
    }
}

/// What is believed after an answer. `missing` holds the time at which each known network disappeared from the list.
fn merge_answer(
    before: &MetadataView,
    answer: Result<Metadata, Failure>,
    missing: &mut BTreeMap<NetworkId, Instant>,
    now: Instant,
    kernel: &Kernel,
) -> MetadataView {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(error) => return MetadataView { error: Some(error), settled: true, ..before.clone() },
    };
    let mut doubts = Vec::new();
    for network in &mut answer.private_networks {
        let known = before.latest.iter().flat_map(|metadata| &metadata.private_networks);
        let Some(known) = known.into_iter().find(|known| known.network_id == network.network_id) else { continue };
        let is_here = |mac| kernel.links.iter().any(|link| link.mac == Some(mac));
        if network.mac_address != known.mac_address && !is_here(network.mac_address) && has_address(kernel, known) {
            doubts.push(Doubt::Interface(network.network_id, network.mac_address));
            (network.mac_address, network.ip) = (known.mac_address, known.ip);
        }
        // A range only ever grows (Hetzner's API, "Change IP range"), and DHCP makes a route for all of it. It does not
        // grow into that of another network of this server.
        let others = before.latest.iter().flat_map(|metadata| &metadata.private_networks);
        let mut others = others.filter(|other| other.network_id != known.network_id && has_route(kernel, other));
        let swallows =
            others.any(|other| overlap(network.network, other.network) && !overlap(known.network, other.network));
        if (swallows || !network.network.contains(&known.network)) && has_route(kernel, known) {
            doubts.push(Doubt::Range(network.network_id, network.network));
            network.network = known.network;
        }
    }
    let listed =
        |network: &PrivateNetwork| answer.private_networks.iter().any(|known| known.network_id == network.network_id);
    missing.retain(|id, _| !answer.private_networks.iter().any(|network| network.network_id == *id));
    let known = before.latest.iter().flat_map(|metadata| &metadata.private_networks);
    let kept = known.filter(|network| !listed(network)).filter(|network| {
        let since = *missing.entry(network.network_id).or_insert(now);
        now.duration_since(since) < MISSING_NETWORK_TIMEOUT || has_address(kernel, network)
    });
    let private_networks: Vec<PrivateNetwork> = answer.private_networks.iter().chain(kept).cloned().collect();
    missing.retain(|id, _| private_networks.iter().any(|network| network.network_id == *id));
    doubts.extend(missing.keys().map(|id| Doubt::Unlisted(*id)));
    let known_id = before.latest.as_ref().and_then(|metadata| metadata.server_id);
    doubts.extend(answer.server_id.filter(|id| known_id.is_some_and(|known| known != *id)).map(Doubt::Server));
    let server_id = known_id.or(answer.server_id);
    // Without its address a server has none on its link either, so the old one does no harm.
    let public_ipv4 = answer.public_ipv4.or(before.latest.as_ref().and_then(|metadata| metadata.public_ipv4));
    let latest = Some(Metadata { server_id, private_networks, public_ipv4 });
    MetadataView { latest, doubts, error: None, settled: true }
}

/// Whether the network's interface is there and has this server's address in it.
fn has_address(kernel: &Kernel, network: &PrivateNetwork) -> bool {
    let has_it = |link: &Link| link.addresses.iter().any(|net| net.addr() == network.ip);
    kernel.links.iter().any(|link| link.mac == Some(network.mac_address) && has_it(link))
}

/// Whether the kernel has a route for just the network's range out of its interface.
fn has_route(kernel: &Kernel, network: &PrivateNetwork) -> bool {
    let links = kernel.links.iter().filter(|link| link.mac == Some(network.mac_address));
    let indices: Vec<u32> = links.map(|link| link.index).collect();
    let is_its = |interface: u32| indices.contains(&interface);
    kernel.routes.iter().any(|route| route.destination == network.network && route.interface.is_some_and(is_its))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ServerId;
    use crate::site::route::{Route, RouteKind};

    fn network(id: u64) -> PrivateNetwork {
        PrivateNetwork {
            ip: format!("10.{id}.0.2").parse().unwrap(),
            alias_ips: vec![],
            mac_address: format!("86:00:00:00:00:0{id}").parse().unwrap(),
            network_id: NetworkId(id),
            network_name: None,
            network: format!("10.{id}.0.0/16").parse().unwrap(),
            gateway: None,
        }
    }

    fn metadata(ids: &[u64]) -> Metadata {
        Metadata {
            server_id: Some(ServerId(42)),
            private_networks: ids.iter().map(|&id| network(id)).collect(),
            public_ipv4: None,
        }
    }

    fn view(ids: &[u64]) -> MetadataView {
        MetadataView { latest: Some(metadata(ids)), settled: true, ..MetadataView::default() }
    }

    /// The same while these networks are not listed.
    fn doubted(ids: &[u64], unlisted: &[u64]) -> MetadataView {
        MetadataView { doubts: unlisted.iter().map(|&id| Doubt::Unlisted(NetworkId(id))).collect(), ..view(ids) }
    }

    fn failure() -> Failure {
        Failure { text: "no answer".to_owned(), is_slow: false }
    }

    /// A server on which the interfaces of these networks have their addresses and routes.
    fn standing(ids: &[u64]) -> Kernel {
        let mut kernel = Kernel::default();
        for (&id, index) in ids.iter().zip(2..) {
            let PrivateNetwork { ip, mac_address, network, .. } = network(id);
            kernel.links.push(Link {
                index,
                name: format!("eth{id}").parse().unwrap(),
                mac: Some(mac_address),
                mtu: 1450,
                up: true,
                addresses: vec![ip.into()],
                has_lease: false,
            });
            kernel.routes.push(Route {
                kind: RouteKind::Unicast,
                destination: network,
                gateway: None,
                interface: Some(index),
                further: Vec::new(),
                metric: 0,
                table: 254,
                protocol: 3,
            });
        }
        kernel
    }

    #[test]
    fn a_service_that_does_not_answer_removes_nothing() {
        let (mut missing, now) = (BTreeMap::new(), Instant::now());
        let after = merge_answer(&view(&[1, 2]), Err(failure()), &mut missing, now, &Kernel::default());
        assert_eq!(after, MetadataView { error: Some(failure()), ..view(&[1, 2]) });
    }

    #[test]
    fn a_missing_network_is_kept_for_a_minute_and_then_dropped() {
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        let mut known = view(&[1, 2]);
        for (seconds, expected) in [(0, vec![2, 1]), (30, vec![2, 1]), (59, vec![2, 1]), (60, vec![2]), (61, vec![2])] {
            known = merge_answer(
                &known,
                Ok(metadata(&[2])),
                &mut missing,
                start + Duration::from_secs(seconds),
                &Kernel::default(),
            );
            let unlisted: &[u64] = if expected.len() == 2 { &[1] } else { &[] };
            assert_eq!(known, doubted(&expected, unlisted), "after {seconds} s");
        }
        assert!(missing.is_empty());
    }

    #[test]
    fn a_network_that_returns_within_a_minute_stays_and_its_minute_starts_again() {
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let away = merge_answer(&view(&[1]), Ok(metadata(&[])), &mut missing, at(0), &Kernel::default());
        let back = merge_answer(&away, Ok(metadata(&[1])), &mut missing, at(50), &Kernel::default());
        assert_eq!((&away, &back), (&doubted(&[1], &[1]), &view(&[1])));
        let away_again = merge_answer(&back, Ok(metadata(&[])), &mut missing, at(70), &Kernel::default());
        assert_eq!(away_again, doubted(&[1], &[1]), "its minute starts again");
    }

    #[test]
    fn a_new_network_and_a_changed_one_are_used_at_once() {
        let (mut missing, now) = (BTreeMap::new(), Instant::now());
        let mut renumbered = metadata(&[1, 3]);
        renumbered.private_networks[0].alias_ips = vec!["10.1.0.9".parse().unwrap()];
        let after = merge_answer(&view(&[1]), Ok(renumbered.clone()), &mut missing, now, &Kernel::default());
        assert_eq!(after.latest, Some(renumbered));
    }

    #[test]
    fn a_missing_network_is_kept_as_long_as_its_interface_has_its_address() {
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        let mut known = view(&[1, 2]);
        for (seconds, listed) in [(0, vec![]), (60, vec![]), (600, vec![]), (6000, vec![2])] {
            let now = start + Duration::from_secs(seconds);
            let unlisted: Vec<u64> = [1, 2].into_iter().filter(|id| !listed.contains(id)).collect();
            known = merge_answer(&known, Ok(metadata(&listed)), &mut missing, now, &standing(&[1, 2]));
            let mut ids = listed.clone();
            ids.extend(&unlisted);
            assert_eq!(known, doubted(&ids, &unlisted), "after {seconds} s");
        }
        let gone =
            merge_answer(&known, Ok(metadata(&[2])), &mut missing, start + Duration::from_secs(6001), &standing(&[2]));
        assert_eq!(gone, view(&[2]), "its interface is gone: it was detached");
    }

    #[test]
    fn a_range_that_shrinks_or_moves_is_not_believed_while_the_network_has_its_route() {
        let with_range = |range: &str| {
            let mut answer = metadata(&[1]);
            answer.private_networks[0].network = range.parse().unwrap();
            answer
        };
        let after = |range: &str, kernel: &Kernel| {
            merge_answer(&view(&[1]), Ok(with_range(range)), &mut BTreeMap::new(), Instant::now(), kernel)
        };
        let doubt = |range: &str| MetadataView {
            doubts: vec![Doubt::Range(NetworkId(1), range.parse().unwrap())],
            ..view(&[1])
        };
        for range in ["10.1.0.0/24", "10.1.0.0/17"] {
            assert_eq!(after(range, &standing(&[1])), doubt(range));
        }
        // It may grow, and without a route nothing speaks for the known range.
        assert_eq!(after("10.0.0.0/15", &standing(&[1])).latest, Some(with_range("10.0.0.0/15")));
        assert_eq!(after("10.1.0.0/24", &standing(&[])).latest, Some(with_range("10.1.0.0/24")));
    }

    #[test]
    fn a_range_that_grows_into_another_network_is_not_believed_while_both_have_their_routes() {
        let mut answer = metadata(&[1, 2]);
        answer.private_networks[0].network = "10.0.0.0/8".parse().unwrap();
        let after = |kernel: &Kernel| {
            merge_answer(&view(&[1, 2]), Ok(answer.clone()), &mut BTreeMap::new(), Instant::now(), kernel)
        };
        let doubts = vec![Doubt::Range(NetworkId(1), "10.0.0.0/8".parse().unwrap())];
        assert_eq!(after(&standing(&[1, 2])), MetadataView { doubts, ..view(&[1, 2]) });
        assert_eq!(after(&standing(&[1])).latest, Some(answer.clone()), "the other one is gone");
    }

    #[test]
    fn another_interface_is_not_believed_while_the_known_one_stands_and_that_one_does_not() {
        let mut answer = metadata(&[1]);
        let mac: crate::net::MacAddress = "02:00:00:00:00:09".parse().unwrap();
        answer.private_networks[0].mac_address = mac;
        let after = |kernel: &Kernel| {
            merge_answer(&view(&[1]), Ok(answer.clone()), &mut BTreeMap::new(), Instant::now(), kernel)
        };
        let doubts = vec![Doubt::Interface(NetworkId(1), mac)];
        assert_eq!(after(&standing(&[1])), MetadataView { doubts, ..view(&[1]) });
        // Detached and attached again: the old interface is gone, or the new one is there.
        assert_eq!(after(&Kernel::default()).latest, Some(answer.clone()));
        let mut both = standing(&[1, 2]);
        both.links[1].mac = Some(mac);
        assert_eq!(after(&both).latest, Some(answer.clone()));
    }

    #[test]
    fn the_servers_number_and_address_stay_what_they_were() {
        let first = Metadata { public_ipv4: Some("198.51.100.2".parse().unwrap()), ..metadata(&[1]) };
        let before = MetadataView { latest: Some(first.clone()), settled: true, ..MetadataView::default() };
        let other = Metadata { server_id: Some(ServerId(43)), ..metadata(&[1]) };
        let after = merge_answer(&before, Ok(other), &mut BTreeMap::new(), Instant::now(), &standing(&[1]));
        let expected = MetadataView { doubts: vec![Doubt::Server(ServerId(43))], ..before };
        assert_eq!(after, expected);
    }
}
