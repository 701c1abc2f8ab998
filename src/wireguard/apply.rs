//! Carries a plan out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use tokio::time::Instant;

use super::active_peers::{ActivePeers, ActivePeersFile, active_peers};
use super::backend::{self, Backend, Start};
use super::held::Held;
use super::kernel;
use super::kernel_backend::KernelInterface;
use super::link::{Links, mark};
use super::model::BackendKind;
use super::model::{ConfiguredEndpoints, host};
use super::observe::{Observed, RunningState, wanted};
use super::plan::{InterfacePlan, Plan, SetUp};
use super::refused::RefusedLog;
use super::running::{Running, detail};
use super::userspace::{Started, Userspace};
use super::{CHECK_INTERVAL, Error, Wireguard, keyfile};
use crate::component::Steps;
use crate::config::{self, BackendChoice};
use crate::error::chain;
use crate::inputs::{Inputs, Tunnel};
use crate::net::InterfaceName;
use crate::outcome::{ComponentName, Outcome, Problem, State};
use bastiond_tunnel::model::Snapshot;

impl Wireguard {
    pub(super) async fn carry_out(&mut self, inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        let mut changes = Vec::new();
        let reaped = self.reap_missing_interface(&plan, &mut changes).await;
        if plan.release_inherited {
            self.release_inherited();
        }
        let (ended, stop_problems) = self.stop(plan.stop.is_some(), plan.remove).await;
        changes.extend(ended);
        let Some((config, tunnel)) = wanted(inputs) else {
            self.names.request(&BTreeSet::new(), inputs.now);
            let failed = plan.obstacles.first().map(|obstacle| obstacle.what.clone());
            let state = if failed.is_none() && stop_problems.is_empty() { State::Off } else { State::Failed };
            let problems = stop_problems.into_iter().chain(plan.obstacles).collect();
            let detail = failed.unwrap_or_else(|| "no tunnel".to_owned());
            return Outcome { changes, problems, ..Outcome::unchanged(state, detail) };
        };
        // If they hinder the start, that reports it as well.
        for problem in stop_problems {
            tracing::warn!(component = "wireguard", advice = %problem.advice, "{}", problem.what);
        }
        let Some(interface) = plan.interface else {
            let problems: Vec<Problem> = plan.obstacles.into_iter().chain(self.problems(tunnel)).collect();
            let detail = problems.first().map_or_else(String::new, |problem| problem.what.clone());
            return Outcome { changes, repaired: reaped, problems, ..Outcome::unchanged(State::Failed, detail) };
        };
        self.names.request(&config.peers.iter().filter_map(host).collect(), inputs.now);
        let repaired = reaped || interface.is_repair;
        let undecided = plan.obstacles;
        match self.converge(config, tunnel, inputs.now, observed, interface, &mut changes).await {
            Ok(after) => {
                self.is_reloaded = false;
                if undecided.is_empty() {
                    self.remember_key();
                }
                let problems: Vec<Problem> = undecided.into_iter().chain(self.problems(tunnel)).collect();
                let state = if problems.is_empty() { State::Ok } else { State::Waiting };
                let detail = detail(config, &after, SystemTime::now());
                Outcome { changes, repaired, problems, ..Outcome::unchanged(state, detail) }
            }
            Err(error) => {
                let mut failed = Outcome::failed(&error);
                failed.problems.extend(undecided);
                failed.problems.extend(self.problems(tunnel));
                Outcome { changes, repaired: reaped, ..failed }
            }
        }
    }

    /// Without rules none starts; one that runs continues, and is kept as configured.
    pub(super) async fn carry_out_without_start(
        &mut self,
        inputs: &Inputs<'_>,
        observed: Observed,
        plan: Plan,
        waits_for: ComponentName,
    ) -> Outcome {
        let start = plan.interface.as_ref().and_then(|interface| interface.start.as_ref());
        let Some(Start { interface, .. }) = start else { return self.carry_out(inputs, observed, plan).await };
        let detail = format!("{interface} waits for {waits_for}");
        let mut changes = Vec::new();
        let repaired = self.reap_missing_interface(&plan, &mut changes).await;
        Outcome { changes, repaired, ..Outcome::unchanged(State::HeldBack, detail) }
    }

    /// Remembers the public key that peers know, once nobody has to decide about it.
    fn remember_key(&self) {
        let key = self.running.as_ref().and_then(|running| running.key.as_ref());
        if let Some(public) = key.map(bastiond_tunnel::key::PrivateKey::public) {
            if self.known_key.read() != Some(public) {
                self.known_key.write(&public);
            }
        }
    }

    fn problems(&self, tunnel: &Tunnel) -> Vec<Problem> {
        let of_start = self.running.iter().flat_map(|running| &running.problems);
        tunnel.problems.iter().chain(of_start).cloned().chain(self.names.problems()).collect()
    }

    /// Ends the data plane of an interface that another program deleted, or whose process is gone; whether there was
    /// one.
    async fn reap_missing_interface(&mut self, plan: &Plan, changes: &mut Vec<String>) -> bool {
        let Some(mut running) = self.running.take_if(|running| Some(&running.interface) == plan.reap.as_ref()) else {
            return false;
        };
        self.kept = running.backend.held();
        let is_there = self.kept.has_interface(&running.interface);
        let what = if is_there { "the process of " } else { "" };
        changes.push(format!("{what}{} was gone", running.interface));
        // The data plane still knows its peers.
        if let Ok(snapshot) = running.backend.snapshot().await {
            running.active_peers.save(active_peers(&snapshot, SystemTime::now()));
        }
        // Err: there was nothing left to stop.
        let _ = running.backend.stop().await;
        true
    }

    /// Closes descriptors that no process works with; the service manager closes its copies.
    pub(super) fn release_inherited(&mut self) {
        self.unused_names.extend(self.inherited.drain(..).map(|(name, _)| name));
        self.kept = Held::default();
    }

    /// Stops the running interface, and removes those that former daemons left to the kernel.
    pub(super) async fn stop(&mut self, stop_running: bool, left: BTreeSet<InterfaceName>) -> Steps {
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        if let Some(running) = self.running.take_if(|_| stop_running) {
            let interface = running.interface;
            match running.backend.stop().await {
                // The service manager of a daemon of version 0.1.0 may still store the descriptors.
                Ok(()) => match remove_link(&interface).await {
                    Ok(()) => changes.push(format!("{interface} removed")),
                    Err(error) => problems.push(Problem::new(
                        "state-file-stays",
                        chain(&error),
                        "stop the daemon's unit: then it goes",
                    )),
                },
                Err(error) => problems.push(Problem::from_error(&error)),
            }
        }
        for interface in left {
            match kernel::remove(&interface).await {
                Ok(_) => changes.push(format!("{interface} removed")),
                Err(error) => problems.push(Problem::from_error(&error)),
            }
        }
        (changes, problems)
    }

    /// Makes the interface as planned; what it is afterwards.
    async fn converge(
        &mut self,
        config: &config::Wireguard,
        tunnel: &Tunnel,
        now: Instant,
        observed: Observed,
        plan: InterfacePlan,
        changes: &mut Vec<String>,
    ) -> Result<Snapshot, Error> {
        let InterfacePlan { make_key, start, mut update, update_described, set_up, initiate, mut desired, .. } = plan;
        if let Some(path) = make_key {
            let key = keyfile::make(&path)?;
            changes.push(format!("private key made in {}", path.display()));
            update.get_or_insert_default().private_key = Some(Some(key.clone()));
            desired.private_key = Some(key);
        }
        let mut before = observed.running.and_then(|RunningState { snapshot, .. }| snapshot.ok());
        if let Some(start) = start {
            before = None;
            self.running = Some(self.start(start, config, observed.last_seen, now).await?);
            changes.push(format!("{} made", config.interface));
        }
        let running = self.running.as_mut().expect("a plan without a start is made for a running interface");
        running.take_configuration(config, tunnel);
        running.settled = None;
        let is_changed = update.is_some();
        if let Some(update) = update {
            running.backend.set(update).await?;
            changes.extend(update_described);
        }
        if let Some(set_up) = set_up {
            self.set_up(set_up, changes).await?;
        }
        let running = self.running.as_mut().expect("nothing above stops it");
        if !initiate.is_empty() {
            changes.push(format!("handshakes initiated with {} peer(s) that were active", initiate.len()));
            running.backend.initiate_handshakes(initiate.into_iter().collect()).await?;
        }
        (running.last_seen, running.sessions_live) = (ActivePeers::new(), false);
        running.has_settled = true;
        running.configured = desired.endpoints();
        running.key.clone_from(&desired.private_key);
        running.settled = Some(desired);
        let after = match before {
            Some(before) if !is_changed => before,
            _ => running.backend.snapshot().await?,
        };
        running.active_peers.save(active_peers(&after, SystemTime::now()));
        Ok(after)
    }

    async fn start(
        &mut self,
        start: Start,
        config: &config::Wireguard,
        last_seen: ActivePeers,
        now: Instant,
    ) -> Result<Running, Error> {
        let interface = start.interface.clone();
        let (backend, problems) = match start.kind {
            BackendKind::Kernel => {
                self.release_inherited();
                let kernel = KernelInterface::start(interface.clone(), start.is_left_in_kernel).await?;
                (Box::new(kernel) as Box<dyn Backend>, Vec::new())
            }
            BackendKind::Userspace => {
                let (userspace, problems) = self.start_userspace(start).await?;
                (Box::new(userspace) as Box<dyn Backend>, problems)
            }
        };
        let mut running = self.running(interface, config.backend, backend, now);
        (running.problems, running.last_seen) = (problems, last_seen);
        Ok(running)
    }

    /// What is known of an interface that runs, before it is configured.
    pub(super) fn running(
        &self,
        interface: InterfaceName,
        choice: BackendChoice,
        backend: Box<dyn Backend>,
        now: Instant,
    ) -> Running {
        let active_peers = ActivePeersFile::load(&interface, &self.runtime_directory);
        Running {
            interface,
            choice,
            backend,
            problems: Vec::new(),
            mtu: 0,
            labels: BTreeMap::new(),
            expiries: BTreeMap::new(),
            out: Vec::new(),
            hosts: BTreeMap::new(),
            sites: BTreeSet::new(),
            watches: BTreeMap::new(),
            refused_log: RefusedLog::default(),
            configured: ConfiguredEndpoints::new(),
            settled: None,
            has_settled: false,
            key: None,
            last_seen: ActivePeers::new(),
            sessions_live: false,
            is_end_told: false,
            active_peers,
            next_check: now + CHECK_INTERVAL,
        }
    }

    async fn start_userspace(&mut self, start: Start) -> Result<(Userspace, Vec<Problem>), backend::Error> {
        let interface = start.interface.clone();
        if !self.inherited.is_empty() {
            // From now on this process holds them.
            self.unused_names.extend(self.inherited.iter().map(|(name, _)| name.clone()));
            self.kept = Held::stored(&interface, std::mem::take(&mut self.inherited));
        }
        let Started { userspace, problems } = Userspace::start(start, self.place.clone(), self.kept.copy()).await?;
        self.kept = Held::default();
        if let Err(error) = mark(&interface).await {
            // The next daemon would not know it. Err: it has ended already.
            let _ = Box::new(userspace).stop().await;
            return Err(error.into());
        }
        Ok((userspace, problems))
    }

    /// Sets the link up again, which another program may have changed.
    async fn set_up(&self, set_up: SetUp, changes: &mut Vec<String>) -> Result<(), backend::Error> {
        let Some(Running { interface, mtu, .. }) = &self.running else { return Ok(()) };
        let links = Links::open()?;
        // The next pass makes it again.
        let Some(link) = links.find(interface).await? else { return Ok(()) };
        links.set_up(interface, link.index, *mtu).await?;
        changes.extend(set_up.is_down.then(|| format!("{interface} set up")));
        changes.extend(set_up.wrong_mtu.map(|former| format!("{interface}: MTU {former} -> {mtu}")));
        Ok(())
    }
}

async fn remove_link(interface: &InterfaceName) -> Result<(), super::link::Error> {
    let links = Links::open()?;
    if let Some(link) = links.find(interface).await? {
        links.remove(interface, link.index).await?;
    }
    Ok(())
}
