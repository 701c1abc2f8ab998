//! The task that polls the metadata service, and what it keeps of the answers.
//!
//! A failure of the metadata service must not stop the gateway. Therefore the last answer is kept, also across a
//! restart of the daemon, and a network that disappears from the list is dropped only after it has been missing for a
//! minute. (A network that was really detached loses its interface at once, which the site notices by itself.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::client::{Metadata, MetadataView, PrivateNetwork, fetch};
use crate::error::chain;
use crate::net::NetworkId;
use crate::{http, state};

/// The service is one hop away; cloud-init also waits 2 s (cloud-init `DataSourceHetzner`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between queries while a network is expected to appear, or the service does not answer.
const EXPECTING_POLL_INTERVAL: Duration = Duration::from_secs(5);
/// Time between queries otherwise. An operator must act to change the answer, and a hot-plugged link starts a query at
/// once.
const IDLE_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// The shortest time between two queries, no matter how many links change.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A network that is missing from the list for this time is dropped.
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
        let (sender, view) = watch::channel(MetadataView { latest, error: None, settled });
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
        let answer = match http::plain_client(REQUEST_TIMEOUT) {
            Ok(client) => fetch(&client, &endpoint).await.map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        let before = view.borrow().clone();
        let after = merge_answer(&before, answer, &mut missing, queried_at);
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

/// What is known after an answer. `missing` holds the time at which each known network disappeared from the list.
fn merge_answer(
    before: &MetadataView,
    answer: Result<Metadata, String>,
    missing: &mut BTreeMap<NetworkId, Instant>,
    now: Instant,
) -> MetadataView {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return MetadataView { latest: before.latest.clone(), error: Some(error), settled: true },
    };
    let listed =
        |network: &PrivateNetwork| answer.private_networks.iter().any(|known| known.network_id == network.network_id);
    missing.retain(|id, _| !answer.private_networks.iter().any(|network| network.network_id == *id));
    let known = before.latest.iter().flat_map(|metadata| &metadata.private_networks);
    let kept = known.filter(|network| !listed(network)).filter(|network| {
        now.duration_since(*missing.entry(network.network_id).or_insert(now)) < MISSING_NETWORK_TIMEOUT
    });
    let private_networks: Vec<PrivateNetwork> = answer.private_networks.iter().chain(kept).cloned().collect();
    missing.retain(|id, _| private_networks.iter().any(|network| network.network_id == *id));
    let server_id = answer.server_id.or(before.latest.as_ref().and_then(|metadata| metadata.server_id));
    MetadataView { latest: Some(Metadata { server_id, private_networks }), error: None, settled: true }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ServerId;

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
        Metadata { server_id: Some(ServerId(42)), private_networks: ids.iter().map(|&id| network(id)).collect() }
    }

    fn view(ids: &[u64]) -> MetadataView {
        MetadataView { latest: Some(metadata(ids)), error: None, settled: true }
    }

    #[test]
    fn a_service_that_does_not_answer_removes_nothing() {
        let (mut missing, now) = (BTreeMap::new(), Instant::now());
        let after = merge_answer(&view(&[1, 2]), Err("no answer".to_owned()), &mut missing, now);
        assert_eq!(after, MetadataView { error: Some("no answer".to_owned()), ..view(&[1, 2]) });
    }

    #[test]
    fn a_missing_network_is_kept_for_a_minute_and_then_dropped() {
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        let mut known = view(&[1, 2]);
        for (seconds, expected) in [(0, vec![2, 1]), (30, vec![2, 1]), (59, vec![2, 1]), (60, vec![2]), (61, vec![2])] {
            known = merge_answer(&known, Ok(metadata(&[2])), &mut missing, start + Duration::from_secs(seconds));
            assert_eq!(known, view(&expected), "after {seconds} s");
        }
        assert!(missing.is_empty());
    }

    #[test]
    fn a_network_that_returns_within_a_minute_stays_and_its_minute_starts_again() {
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let away = merge_answer(&view(&[1]), Ok(metadata(&[])), &mut missing, at(0));
        let back = merge_answer(&away, Ok(metadata(&[1])), &mut missing, at(50));
        assert_eq!((&away, &back), (&view(&[1]), &view(&[1])));
        let away_again = merge_answer(&back, Ok(metadata(&[])), &mut missing, at(70));
        assert_eq!(away_again, view(&[1]), "its minute starts again");
    }

    #[test]
    fn a_new_network_and_a_changed_one_are_used_at_once() {
        let (mut missing, now) = (BTreeMap::new(), Instant::now());
        let mut renumbered = metadata(&[1, 3]);
        renumbered.private_networks[0].alias_ips = vec!["10.1.0.9".parse().unwrap()];
        let after = merge_answer(&view(&[1]), Ok(renumbered.clone()), &mut missing, now);
        assert_eq!(after.latest, Some(renumbered));
    }
}
