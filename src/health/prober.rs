//! The thread that sends the probes.
//!
//! A thread of its own with a runtime of its own: probes measure times of milliseconds while the daemon's loop may be
//! busy, and nothing that they wait for delays a repair.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::blame::blame;
use super::engine::{Engine, Now, Outcome};
use super::interface::ProbeInterface;
use super::link_path::{self, Returns};
use super::memory::Proven;
use super::nat_path::{self, Round};
use super::orders::{Orders, path_of};
use super::packet::Target;
use super::path::{Path, PathReport};
use crate::error::chain;
use crate::nat::ProbedPath;
use crate::net::InterfaceName;
use crate::state;

/// The file in the state directory of the paths that have passed on this server.
const MEMORY_FILE: &str = "paths.json";

/// The thread, as the daemon holds it. Dropping the value ends it, and its interfaces with it.
#[derive(Debug)]
pub(crate) struct Prober {
    orders: Option<watch::Sender<Orders>>,
    reports: watch::Receiver<Vec<PathReport>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Prober {
    /// Starts the thread, with nothing to probe yet. What has passed is remembered in `state_directory`.
    pub(crate) fn start(state_directory: &std::path::Path) -> Self {
        let (orders, follow) = watch::channel(Orders::default());
        let (publish, reports) = watch::channel(Vec::new());
        let memory = state_directory.join(MEMORY_FILE);
        let thread = std::thread::Builder::new().name("health".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(Task::new(memory, publish).run(follow)),
                Err(error) => tracing::warn!(component = "health", %error, "no probes are sent"),
            }
        });
        if let Err(error) = &thread {
            tracing::warn!(component = "health", %error, "no probes are sent");
        }
        Self { orders: Some(orders), reports, thread: thread.ok() }
    }

    /// Probes what `orders` say from now on, each path at once.
    pub(crate) fn follow(&self, orders: Orders) {
        let Some(sender) = &self.orders else { return };
        sender.send_modify(|current| *current = Orders { changes: current.changes.wrapping_add(1), ..orders });
    }

    /// Probes each path at once: something may have changed the way of packets.
    pub(crate) fn probe_soon(&self) {
        let Some(sender) = &self.orders else { return };
        sender.send_modify(|current| current.changes = current.changes.wrapping_add(1));
    }

    /// What is known about each path. A change of a path's state wakes those who wait for a new value.
    pub(crate) fn reports(&self) -> watch::Receiver<Vec<PathReport>> {
        self.reports.clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.orders = None;
        // A panic of the thread is on standard error already.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A network's interface.
#[derive(Debug)]
struct Entrance {
    interface: Arc<ProbeInterface>,
    reader: JoinHandle<()>,
}

/// What a path's rounds have in common.
#[derive(Debug, Default)]
struct Asking {
    rounds: usize,
    /// The targets that did not answer when they were asked last.
    silent: BTreeSet<Target>,
    /// The obstacle that the newest round passed in spite of.
    passed_in_spite_of: Option<String>,
}

/// The work of the thread.
struct Task {
    engine: Engine,
    memory: PathBuf,
    publish: watch::Sender<Vec<PathReport>>,
    orders: Orders,
    entrances: BTreeMap<InterfaceName, Entrance>,
    asking: BTreeMap<Path, Asking>,
    rounds: JoinSet<(Path, Round)>,
    returns: Returns,
}

impl Task {
    fn new(memory: PathBuf, publish: watch::Sender<Vec<PathReport>>) -> Self {
        let proven: Proven = state::read_json(&memory).unwrap_or_default();
        Self {
            engine: Engine::new(proven),
            memory,
            publish,
            orders: Orders::default(),
            entrances: BTreeMap::new(),
            asking: BTreeMap::new(),
            rounds: JoinSet::new(),
            returns: Returns::default(),
        }
    }

    /// Runs until the daemon drops its end.
    async fn run(mut self, mut follow: watch::Receiver<Orders>) {
        loop {
            let due = self.engine.next_due();
            tokio::select! {
                changed = follow.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let orders = follow.borrow_and_update().clone();
                    self.take(orders).await;
                }
                () = async { sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {
                    self.start_rounds().await;
                }
                Some(ended) = self.rounds.join_next(), if !self.rounds.is_empty() => {
                    // Err: the round panicked, which is on standard error already.
                    if let Ok((path, round)) = ended {
                        self.finish(&path, round).await;
                    }
                }
            }
            self.report();
        }
    }

    async fn take(&mut self, orders: Orders) {
        let has_changed = orders.changes != self.orders.changes;
        self.orders = orders;
        self.engine.set_server(self.orders.server);
        let wanted = self.orders.wanted();
        self.asking.retain(|path, _| wanted.iter().any(|wanted| wanted.path == *path));
        self.engine.follow(&wanted, now());
        if has_changed {
            self.engine.probe_soon(now());
        }
        let names: Vec<InterfaceName> = self.entrances.keys().cloned().collect();
        for name in names {
            let is_current = |entrance: &Entrance| *entrance.interface.sources() == self.orders.sources_of(&name);
            if !self.entrances.get(&name).is_some_and(is_current) {
                self.close(&name).await;
            }
        }
    }

    async fn close(&mut self, name: &InterfaceName) {
        let Some(Entrance { interface, reader }) = self.entrances.remove(name) else { return };
        // Rounds that run hold it too.
        self.rounds.shutdown().await;
        reader.abort();
        let _ = reader.await;
        drop(interface);
        // The results of those rounds are missing: all paths begin anew.
        let wanted = self.orders.wanted();
        self.engine.restart(&wanted, now());
    }

    /// The interface of a network; made if there is none.
    async fn entrance(&mut self, name: &InterfaceName) -> Result<Arc<ProbeInterface>, String> {
        if self.entrances.get(name).is_some_and(|entrance| entrance.reader.is_finished()) {
            // Another program has removed it.
            self.entrances.remove(name);
        }
        if let Some(entrance) = self.entrances.get(name) {
            return Ok(Arc::clone(&entrance.interface));
        }
        let interface =
            ProbeInterface::open(name, self.orders.sources_of(name)).await.map_err(|error| chain(&error))?;
        let reading = Arc::clone(&interface);
        let reader = tokio::spawn(async move {
            let error = reading.deliver().await;
            tracing::debug!(component = "health", %error, "a probe's interface is gone");
        });
        let entrance = Entrance { interface: Arc::clone(&interface), reader };
        self.entrances.insert(name.clone(), entrance);
        Ok(interface)
    }

    async fn start_rounds(&mut self) {
        for path in self.engine.start_due(now()) {
            if matches!(path, Path::Private { .. } | Path::Whole { .. }) {
                self.start_link_round(path).await;
                continue;
            }
            let Some(probed) = self.orders.paths.iter().find(|probed| path_of(probed) == path).cloned() else {
                continue;
            };
            let Some(Ok(targets)) = self.orders.targets.get(&probed.network) else { continue };
            let mut targets = targets.clone();
            match self.entrance(&probed.interface).await {
                Ok(interface) => {
                    let asking = self.asking.entry(path.clone()).or_default();
                    // Each target is the first one in its turn, so that one that does not answer is noticed.
                    let first = asking.rounds % targets.len().max(1);
                    targets.rotate_left(first);
                    asking.rounds = asking.rounds.wrapping_add(1);
                    self.rounds.spawn(async move {
                        let round = nat_path::round(&interface, &probed, &targets).await;
                        (path, round)
                    });
                }
                Err(reason) => {
                    let reason = format!("no probe can be sent: {reason}");
                    self.engine.finish(&path, Outcome::Cannot { reason }, now());
                }
            }
        }
    }

    /// Starts a round of a path by a private link.
    async fn start_link_round(&mut self, path: Path) {
        let Some(network) = path.network() else { return };
        let Some(link) = self.orders.links.iter().find(|link| link.network == network).cloned() else { return };
        let is_private = matches!(path, Path::Private { .. });
        if !is_private && self.orders.misrouted.contains(&network) {
            // The probe's own address has a route of its own, so its answer says nothing about those to private hosts.
            let reason = format!("the kernel routes packets of {network} elsewhere, as the problems of site say");
            self.engine.finish(&path, Outcome::Missed { reason }, now());
            return;
        }
        let ready = if is_private {
            self.returns.listen().await.map(|probes| {
                self.rounds.spawn(async move { (path.clone(), link_path::round(&probes, &link).await.into()) });
            })
        } else {
            let probed = self.orders.paths.iter().find(|probed| probed.network == network).cloned();
            let Some(ProbedPath { interface, source, .. }) = probed else { return };
            let targets = self.orders.link_targets(network);
            self.entrance(&interface).await.map(|interface| {
                self.rounds.spawn(async move {
                    (path.clone(), link_path::whole_round(&interface, source, &link, &targets).await.into())
                });
            })
        };
        if let Err(reason) = ready {
            let path = if is_private { Path::Private { network } } else { Path::Whole { network } };
            self.engine.finish(&path, Outcome::Cannot { reason: format!("no probe can be sent: {reason}") }, now());
        }
    }

    async fn finish(&mut self, path: &Path, round: Round) {
        let Round { mut outcome, answered, silent } = round;
        let obstacle = self.orders.obstacle(path).cloned();
        let asking = self.asking.entry(path.clone()).or_default();
        asking.silent.extend(silent);
        if let Some(answered) = answered {
            asking.silent.remove(&answered);
            asking.passed_in_spite_of.clone_from(&obstacle);
        }
        if let Outcome::Passed { note, .. } = &mut outcome {
            if !asking.silent.is_empty() {
                let silent: Vec<String> = asking.silent.iter().map(ToString::to_string).collect();
                *note = format!("no answer from {}", silent.join(", "));
            }
        } else if let Some(probed) = self.orders.paths.iter().find(|probed| Some(probed.network) == path.network()) {
            // Another program may have taken the interface down, or its routes.
            if let Some(entrance) = self.entrances.get(&probed.interface) {
                if let Err(error) = entrance.interface.set_up().await {
                    outcome = Outcome::Cannot { reason: format!("no probe can be sent: {}", chain(&error)) };
                    // It is gone. The next round makes a new one.
                    entrance.reader.abort();
                    self.entrances.remove(&probed.interface);
                }
            }
        }
        // The hosts' packets may pass where probes do not, so nothing is known about the path.
        if let (Outcome::Missed { .. }, Some(reason)) = (&outcome, obstacle) {
            let passed_in_spite_of = self.asking.get(path).and_then(|asking| asking.passed_in_spite_of.as_ref());
            if passed_in_spite_of != Some(&reason) {
                outcome = Outcome::Cannot { reason };
            }
        }
        let was_proven = self.engine.proven().contains(path);
        self.engine.finish(path, outcome, now());
        if !was_proven && self.engine.proven().contains(path) {
            if let Err(error) = state::write_json(&self.memory, self.engine.proven()) {
                let error = chain(&error);
                tracing::warn!(component = "health", error, "a path that passes may count as unproven later");
            }
        }
    }

    /// Publishes what is known. Only a change of state wakes the daemon.
    fn report(&self) {
        let mut reports = self.engine.reports();
        blame(&mut reports);
        self.publish.send_if_modified(|published| {
            let states = |reports: &[PathReport]| -> Vec<_> {
                reports.iter().map(|report| (report.path.clone(), report.state, report.detail.clone())).collect()
            };
            let is_news = states(published) != states(&reports);
            *published = reports;
            is_news
        });
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { at: Instant::now(), unix }
}
