//! The thread that sends the probes.
//!
//! A thread of its own with a runtime of its own: probes measure times of milliseconds while the daemon's loop may be
//! busy, and nothing that they wait for delays a repair.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::Ipv4Net;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::engine::{Engine, Now, Outcome, WantedPath};
use super::interface::ProbeInterface;
use super::memory::Proven;
use super::nat_path::{self, Round};
use super::packet::Target;
use super::path::{Path, PathReport};
use super::targets::{Targets, targets};
use crate::config::Config;
use crate::error::chain;
use crate::inputs::Tunnel;
use crate::nat::{ProbedPath, probed_paths};
use crate::net::{InterfaceName, ServerId};
use crate::site::Site;
use crate::state;

/// The file in the state directory of the paths that have passed on this server.
const MEMORY_FILE: &str = "paths.json";

/// What is to be probed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    server: Option<ServerId>,
    paths: Vec<ProbedPath>,
    targets: Targets,
    /// By network: what drops probes although it lets private hosts pass.
    obstacles: BTreeMap<Ipv4Net, String>,
    /// Counts what may have changed the way of packets.
    changes: u64,
}

impl Orders {
    /// What is to be probed with this configuration on this server.
    pub(crate) fn new(
        config: &Config,
        site: &Site,
        tunnel: Option<&Tunnel>,
        obstacles: BTreeMap<Ipv4Net, String>,
    ) -> Self {
        let paths = probed_paths(config, site);
        let networks: BTreeSet<Ipv4Net> = paths.iter().map(|path| path.network).collect();
        let targets = targets(config, site, tunnel, networks);
        Self { server: site.server_id, paths, targets, obstacles, changes: 0 }
    }
}

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
        let wanted: Vec<WantedPath> = self.orders.paths.iter().map(|path| self.wanted(path)).collect();
        self.asking.retain(|path, _| wanted.iter().any(|wanted| wanted.path == *path));
        self.engine.follow(&wanted, now());
        if has_changed {
            self.engine.probe_soon(now());
        }
        let names: Vec<InterfaceName> = self.entrances.keys().cloned().collect();
        for name in names {
            let is_current = |entrance: &Entrance| *entrance.interface.sources() == self.sources_of(&name);
            if !self.entrances.get(&name).is_some_and(is_current) {
                self.close(&name).await;
            }
        }
    }

    fn wanted(&self, path: &ProbedPath) -> WantedPath {
        let cannot = match self.orders.targets.get(&path.network) {
            Some(Err(reason)) => Some(reason.clone()),
            Some(Ok(_)) | None => None,
        };
        WantedPath { path: path_of(path), cannot }
    }

    fn sources_of(&self, name: &InterfaceName) -> BTreeSet<Ipv4Addr> {
        self.orders.paths.iter().filter(|path| path.interface == *name).map(|path| path.source).collect()
    }

    async fn close(&mut self, name: &InterfaceName) {
        let Some(Entrance { interface, reader }) = self.entrances.remove(name) else { return };
        // Rounds that run hold it too.
        self.rounds.shutdown().await;
        reader.abort();
        let _ = reader.await;
        drop(interface);
        // The results of those rounds are missing: all paths begin anew.
        let wanted: Vec<WantedPath> = self.orders.paths.iter().map(|path| self.wanted(path)).collect();
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
        let interface = ProbeInterface::open(name, self.sources_of(name)).await.map_err(|error| chain(&error))?;
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

    async fn finish(&mut self, path: &Path, round: Round) {
        let Round { mut outcome, answered, silent } = round;
        let obstacle = network_of(path).and_then(|network| self.orders.obstacles.get(&network)).cloned();
        let asking = self.asking.entry(path.clone()).or_default();
        asking.silent.extend(silent);
        if let Some(answered) = answered {
            asking.silent.remove(&answered);
            asking.passed_in_spite_of = obstacle.clone();
        }
        if let Outcome::Passed { note, .. } = &mut outcome {
            if !asking.silent.is_empty() {
                let silent: Vec<String> = asking.silent.iter().map(ToString::to_string).collect();
                *note = format!("no answer from {}", silent.join(", "));
            }
        } else if let Some(probed) = self.orders.paths.iter().find(|probed| path_of(probed) == *path) {
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
                tracing::warn!(component = "health", error = %chain(&error), "a path that passes may count as unproven later");
            }
        }
    }

    /// Publishes what is known. Only a change of state wakes the daemon.
    fn report(&self) {
        let reports = self.engine.reports();
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

fn path_of(probed: &ProbedPath) -> Path {
    Path::Nat { network: probed.network, egress: probed.egress }
}

fn network_of(path: &Path) -> Option<Ipv4Net> {
    match path {
        Path::Nat { network, .. } => Some(*network),
        Path::Private { .. } => None,
    }
}

fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { at: Instant::now(), unix }
}
