//! The task that keeps asking the metadata service, and what it believes.
//!
//! A gateway must not fall because its metadata service does: what was heard last is kept, over a restart of the daemon too,
//! and a network that is suddenly missing from the list is believed gone only when it stays missing. (A network that was
//! really detached loses its interface at once, and the site sees that by itself.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Metadata, MetadataView, PrivateNetwork, fetch};
use crate::error::chain;
use crate::net::NetworkId;
use crate::{http, state};

/// The service is one hop away; cloud-init gives it 2 s as well (cloud-init `DataSourceHetzner`).
const TIMEOUT: Duration = Duration::from_secs(2);
/// While something is still expected to appear.
const SOON: Duration = Duration::from_secs(5);
/// When all is there: the answer changes only by hand, and a hot-plugged link asks at once.
const IDLE: Duration = Duration::from_secs(60);
/// Between two questions, however many links come and go.
const AT_LEAST: Duration = Duration::from_millis(500);
/// How long a network has to be missing from the list to be believed gone.
const GRACE: Duration = Duration::from_secs(60);

/// Asks until dropped.
#[derive(Debug)]
pub struct Watcher {
    view: watch::Receiver<MetadataView>,
    nudge: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    /// Starts to ask `endpoint`, knowing what a daemon before this one left in `runtime_directory`; `None` asks nobody and
    /// is settled at once.
    pub fn start(endpoint: Option<String>, runtime_directory: &Path) -> Self {
        let memory = runtime_directory.join("metadata.json");
        let nudge = Arc::new(Notify::new());
        let latest: Option<Metadata> = endpoint.as_ref().and_then(|_| state::read_json(&memory));
        let settled = endpoint.is_none() || latest.is_some();
        let (sender, view) = watch::channel(MetadataView { latest, error: None, settled });
        let task = tokio::spawn(keep_asking(endpoint, sender, Arc::clone(&nudge), memory));
        Self { view, nudge, task }
    }

    /// What is known now; changes from here on wake the receiver.
    pub fn view(&self) -> watch::Receiver<MetadataView> {
        let mut view = self.view.clone();
        view.mark_unchanged();
        view
    }

    /// Asks again soon: a link appeared or went.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_asking(endpoint: Option<String>, view: watch::Sender<MetadataView>, nudge: Arc<Notify>, memory: PathBuf) {
    let Some(endpoint) = endpoint else { return view.closed().await };
    let mut missing = BTreeMap::new();
    loop {
        let asked = Instant::now();
        let answer = match http::plain_client(TIMEOUT) {
            Ok(client) => fetch(&client, &endpoint).await.map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        let before = view.borrow().clone();
        let after = learned(&before, answer, &mut missing, asked);
        let expecting = after.error.is_some()
            || !missing.is_empty()
            || after.latest.as_ref().is_none_or(|metadata| metadata.private_networks.is_empty());
        if before.latest != after.latest {
            if let Err(error) = state::write_json(&memory, &after.latest) {
                // Only a restart while the service is silent would miss it.
                tracing::warn!(component = "site", error = %chain(&error), "go on without");
            }
        }
        if before != after {
            view.send_replace(after);
        }
        tokio::select! {
            () = tokio::time::sleep(if expecting { SOON } else { IDLE }) => {}
            () = nudge.notified() => tokio::time::sleep_until(asked + AT_LEAST).await,
            () = view.closed() => return,
        }
    }
}

/// What is believed after an answer. `missing` says since when a known network is not in the list any more.
fn learned(
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
    let kept = known
        .filter(|network| !listed(network))
        .filter(|network| now.duration_since(*missing.entry(network.network_id).or_insert(now)) < GRACE);
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
        }
    }

    fn metadata(ids: &[u64]) -> Metadata {
        Metadata { server_id: Some(ServerId(42)), private_networks: ids.iter().map(|&id| network(id)).collect() }
    }

    fn view(ids: &[u64]) -> MetadataView {
        MetadataView { latest: Some(metadata(ids)), error: None, settled: true }
    }

    #[test]
    fn a_silent_service_takes_nothing_away() {
        let (mut missing, now) = (BTreeMap::new(), Instant::now());
        let after = learned(&view(&[1, 2]), Err("no answer".to_owned()), &mut missing, now);
        assert_eq!(after, MetadataView { error: Some("no answer".to_owned()), ..view(&[1, 2]) });
    }

    #[test]
    fn a_network_that_is_missing_is_kept_for_a_minute_and_then_let_go() {
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        let mut known = view(&[1, 2]);
        for (seconds, expected) in [(0, vec![2, 1]), (30, vec![2, 1]), (59, vec![2, 1]), (60, vec![2]), (61, vec![2])] {
            known = learned(&known, Ok(metadata(&[2])), &mut missing, start + Duration::from_secs(seconds));
            assert_eq!(known, view(&expected), "after {seconds} s");
        }
        assert!(missing.is_empty());
    }

    #[test]
    fn a_network_that_comes_back_in_time_was_never_away() {
        let (mut missing, start) = (BTreeMap::new(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let away = learned(&view(&[1]), Ok(metadata(&[])), &mut missing, at(0));
        let back = learned(&away, Ok(metadata(&[1])), &mut missing, at(50));
        assert_eq!((&away, &back), (&view(&[1]), &view(&[1])));
        let away_again = learned(&back, Ok(metadata(&[])), &mut missing, at(70));
        assert_eq!(away_again, view(&[1]), "its minute starts anew");
    }

    #[test]
    fn a_new_network_and_a_changed_one_are_believed_at_once() {
        let (mut missing, now) = (BTreeMap::new(), Instant::now());
        let mut renumbered = metadata(&[1, 3]);
        renumbered.private_networks[0].alias_ips = vec!["10.1.0.9".parse().unwrap()];
        let after = learned(&view(&[1]), Ok(renumbered.clone()), &mut missing, now);
        assert_eq!(after.latest, Some(renumbered));
    }
}
