//! The tunnel room's pass: key, interface, peers, link.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::carrier::{self, Beginning, Carrier};
use super::handover::{Handover, Kept, Ledger, Named};
use super::kernel;
use super::keyfile;
use super::link;
use super::memory::Memory;
use super::names::Names;
use super::plan::{self, Configured};
use super::running::{Running, detail, host, interface, private_key};
use super::status::TunnelReport;
use crate::config;
use crate::error::chain;
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::outcome::{Outcome, Problem, State};
use bastiond_tunnel::device::udp::UdpPair;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::Snapshot;

/// Between two looks at who is active and who does not answer.
const LOOK: Duration = Duration::from_secs(5);

/// Why there is no tunnel, or not the one that is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no private key.
    #[error(transparent)]
    Key(#[from] keyfile::Error),
    /// The data plane does not run, or refuses.
    #[error(transparent)]
    Carrier(#[from] carrier::Error),
    /// The link cannot be looked at or set.
    #[error(transparent)]
    Link(#[from] link::Error),
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Key(error) => error.advice(),
            Self::Carrier(error) => error.advice(),
            Self::Link(error) => error.advice(),
        }
    }
}

/// What happened beside the passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A name leads elsewhere, or does not resolve: it is time for a pass.
    Renamed,
    /// It is time to look at who is active.
    Look,
}

/// What the room keeps between passes.
#[derive(Debug)]
pub struct Wireguard {
    runtime_directory: PathBuf,
    running: Option<Running>,
    names: Names,
    /// What the service manager kept for us, until the interface is known that it may belong to.
    kept: Named,
    /// The sockets of an interface that was taken away, for the next one.
    spared: Vec<Arc<UdpPair>>,
    /// Names of what it kept and nobody needs.
    unused: Vec<String>,
    ledger: Ledger,
}

impl Wireguard {
    /// A room without an interface; what a daemon before this one knew of peers is in `runtime_directory`.
    pub fn remembered_in(runtime_directory: &Path) -> Self {
        Self {
            runtime_directory: runtime_directory.to_owned(),
            running: None,
            names: Names::of_system(),
            kept: Named::new(),
            spared: Vec::new(),
            unused: Vec::new(),
            ledger: Ledger::default(),
        }
    }

    /// Takes what the service manager kept of a former daemon's interface.
    pub fn take_over(&mut self, kept: Named) {
        self.kept = kept;
    }

    /// What the service manager is to be told, if anything has changed.
    pub fn handover(&mut self) -> Option<Handover> {
        let device = self.running.as_ref().and_then(|running| Some((&running.interface, running.carrier.device()?)));
        let news = self.ledger.update(device);
        let unused = std::mem::take(&mut self.unused);
        if news.is_none() && unused.is_empty() {
            return None;
        }
        let mut handover = news.unwrap_or_default();
        // What is of no use goes before something of the same name is kept.
        handover.forget.splice(0..0, unused);
        Some(handover)
    }

    /// Makes the tunnel as it is wanted. Without rules that stand (`may_start`) none is begun; one that runs goes on.
    pub async fn reconcile(
        &mut self,
        wanted: Option<(&config::Wireguard, &Tunnel)>,
        may_start: bool,
        now: Instant,
    ) -> Outcome {
        let Some((config, tunnel)) = wanted else {
            self.unused.extend(self.kept.drain(..).map(|(name, _)| name));
            let (changes, problems) = self.stop(None).await;
            let state = if problems.is_empty() { State::Off } else { State::Failed };
            return Outcome { changes, problems, ..Outcome::unchanged(state, "no tunnel") };
        };
        let mut changes = Vec::new();
        let repaired = self.bury(&mut changes).await;
        if self.running.is_none() && !may_start {
            let detail = format!("{} waits for the rules", config.interface);
            return Outcome { changes, ..Outcome::unchanged(State::HeldBack, detail) };
        }
        match self.converge(config, tunnel, now, &mut changes).await {
            Ok((snapshot, drifted)) => {
                let problems = self.problems(tunnel);
                let state = if problems.is_empty() { State::Ok } else { State::Waiting };
                let detail = detail(config, &snapshot, SystemTime::now());
                Outcome { changes, repaired: repaired || drifted, problems, ..Outcome::unchanged(state, detail) }
            }
            Err(error) => {
                let failed = Outcome::failed(&error, error.advice());
                let problems = failed.problems.into_iter().chain(self.problems(tunnel)).collect();
                Outcome { changes, repaired, problems, ..Outcome::unchanged(State::Failed, failed.detail) }
            }
        }
    }

    fn problems(&self, tunnel: &Tunnel) -> Vec<Problem> {
        let of_start = self.running.iter().flat_map(|running| &running.problems);
        tunnel.problems.iter().chain(of_start).cloned().chain(self.names.problems()).collect()
    }

    /// Ends an interface that somebody else has taken away; whether there was such a one.
    async fn bury(&mut self, changes: &mut Vec<String>) -> bool {
        let is_gone = match &self.running {
            Some(running) => running.carrier.is_gone().await,
            None => false,
        };
        if let Some(mut running) = self.running.take_if(|_| is_gone) {
            changes.push(format!("{} was gone", running.interface));
            // What it knew of its peers is there yet.
            if let Ok(snapshot) = running.carrier.snapshot().await {
                running.memory.keep(&snapshot, SystemTime::now());
            }
            self.spared = running.carrier.device().map(|device| device.sockets().to_vec()).unwrap_or_default();
            // Err: there was nothing left to end.
            let _ = running.carrier.end().await;
        }
        is_gone
    }

    /// Ends an interface that is not the wanted one, once nothing is known to be in the wanted one's way.
    async fn make_room(&mut self, config: &config::Wireguard, changes: &mut Vec<String>) -> Result<(), Error> {
        if let Some(running) = &mut self.running {
            if running.backend != config.backend && running.carrier.choice() == carrier::choose(config.backend).await? {
                running.backend = config.backend;
            }
            let is_renamed = running.interface != config.interface;
            if is_renamed {
                carrier::left_for_us(&config.interface).await?;
            }
            if !is_renamed && running.backend == config.backend {
                return Ok(());
            }
        }
        let (ended, problems) = self.stop(Some(&config.interface)).await;
        changes.extend(ended);
        // The start that they hinder tells it as well.
        for problem in problems {
            tracing::warn!(component = "wireguard", advice = %problem.advice, "{}", problem.what);
        }
        Ok(())
    }

    /// The interface as it is afterwards, and whether somebody else had changed it.
    async fn converge(
        &mut self,
        config: &config::Wireguard,
        tunnel: &Tunnel,
        now: Instant,
        changes: &mut Vec<String>,
    ) -> Result<(Snapshot, bool), Error> {
        let private_key = private_key(config, changes)?;
        self.make_room(config, changes).await?;
        self.names.want(&config.peers.iter().filter_map(host).collect(), now);
        let (mut running, is_new) = match self.running.take() {
            Some(running) => (running, false),
            None => (self.start(config, tunnel, now).await?, true),
        };
        if is_new {
            changes.push(format!("{} made", config.interface));
        }
        running.describe(config, tunnel);
        let desired = interface(config, private_key, &self.names);
        let converged = running.converge(desired, changes).await;
        // Whatever failed, the packets of the peers that are there pass on.
        self.running = Some(running);
        converged
    }

    async fn start(&mut self, config: &config::Wireguard, tunnel: &Tunnel, now: Instant) -> Result<Running, Error> {
        let interface = config.interface.clone();
        let had_kept: Vec<String> = self.kept.iter().map(|(name, _)| name.clone()).collect();
        let (kept, rest) = Kept::of(&interface, std::mem::take(&mut self.kept));
        let beginning = Beginning {
            interface: interface.clone(),
            listen_port: config.listen_port,
            fwmark: config.fwmark,
            mtu: tunnel.mtu,
            backend: config.backend,
        };
        let kept = kept.with_sockets(std::mem::take(&mut self.spared));
        let started = Carrier::start(beginning, kept).await;
        let is_kept = started.as_ref().is_ok_and(|started| started.is_kept);
        self.unused.extend(if is_kept { rest } else { had_kept });
        let carrier::Started { carrier, problems, .. } = started?;
        if let (true, Some(device)) = (is_kept, carrier.device()) {
            self.ledger.took_over(&interface, device);
        }
        let (memory, remembered) = Memory::of(&interface, &self.runtime_directory);
        Ok(Running {
            interface,
            backend: config.backend,
            carrier,
            problems,
            memory,
            remembered,
            look_at: now + LOOK,
            mtu: 0,
            labels: BTreeMap::new(),
            named: BTreeMap::new(),
            configured: Configured::new(),
            stood: None,
            stood_once: false,
            vigils: BTreeMap::new(),
        })
    }

    /// Ends the interface, and those that former daemons left to the kernel under another name than `but`: what was done, and
    /// what could not be.
    async fn stop(&mut self, but: Option<&InterfaceName>) -> (Vec<String>, Vec<Problem>) {
        self.names.want(&BTreeSet::new(), Instant::now());
        let (mut changes, mut problems) = (Vec::new(), Vec::new());
        if let Some(running) = self.running.take() {
            let interface = running.interface;
            match running.carrier.end().await {
                // The service manager may keep ours yet.
                Ok(()) => match link::remove(&interface).await {
                    Ok(()) => changes.push(format!("{interface} removed")),
                    Err(error) => problems.push(Problem::new(chain(&error), "stop the daemon's unit: then it goes")),
                },
                Err(error) => problems.push(Problem::new(chain(&error), error.advice())),
            }
        }
        // Err: whoever needs netlink next tells it.
        for left in link::marked().await.unwrap_or_default().iter().filter(|left| Some(*left) != but) {
            match kernel::remove(left).await {
                Ok(_) => changes.push(format!("{left} removed")),
                Err(error) => problems.push(Problem::new(chain(&error), error.advice())),
            }
        }
        (changes, problems)
    }

    /// Whether there is an interface of ours.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What the next pass would do.
    pub async fn preview(&self, wanted: Option<(&config::Wireguard, &Tunnel)>) -> Vec<String> {
        let (config, running) = match (wanted, &self.running) {
            (None, None) => return Vec::new(),
            (None, Some(running)) => return vec![format!("remove {}", running.interface)],
            (Some((config, _)), None) => {
                return vec![format!("make {} with {} peer(s)", config.interface, config.peers.len())];
            }
            (Some((config, _)), Some(running)) => (config, running),
        };
        let private_key =
            config.private_key.clone().or_else(|| running.stood.as_ref().map(|it| it.private_key.clone()));
        let Some((private_key, snapshot)) = private_key.zip(running.carrier.snapshot().await.ok()) else {
            return Vec::new();
        };
        let desired = interface(config, private_key, &self.names);
        let labels: BTreeMap<PublicKey, String> =
            config.peers.iter().map(|peer| (peer.public_key, peer.label())).collect();
        let label = |key: &PublicKey| labels.get(key).cloned().unwrap_or_else(|| key.to_string());
        let update = plan::plan(&desired, &snapshot, &running.configured);
        update.map(|update| plan::told(&update, &snapshot, label)).unwrap_or_default()
    }

    /// Takes the tunnel away for good.
    pub async fn remove(&mut self) -> (Vec<String>, Vec<Problem>) {
        if let Some(running) = &mut self.running {
            running.memory.forget();
        }
        self.stop(None).await
    }

    /// Waits until something happens beside the passes; without an interface, for ever. Cancel-safe.
    pub async fn event(&mut self) -> Event {
        let Some(running) = &self.running else { return std::future::pending().await };
        tokio::select! {
            () = self.names.changed() => Event::Renamed,
            () = sleep_until(running.look_at) => Event::Look,
        }
    }

    /// Looks at who is active, which is worth remembering, and at whose name is to be looked up again.
    pub async fn look(&mut self, now: Instant) {
        let Some(running) = &mut self.running else { return };
        running.look_at = now + LOOK;
        let snapshot = match running.carrier.snapshot().await {
            Ok(snapshot) => snapshot,
            // The next pass tells it.
            Err(error) => return tracing::debug!(component = "wireguard", %error, "no look at the tunnel"),
        };
        let clock = SystemTime::now();
        running.memory.keep(&snapshot, clock);
        for peer in &snapshot.peers {
            let Some(host) = running.named.get(&peer.public_key) else { continue };
            let age = peer.last_handshake.and_then(|then| clock.duration_since(then).ok());
            let vigil = running.vigils.entry(peer.public_key).or_default();
            if vigil.is_unanswered(peer, age, now) {
                self.names.unanswered(host, now);
            } else if age.is_some_and(|age| age < LOOK) {
                self.names.answered(host);
            }
        }
        let hosts = running.named.values().cloned().collect();
        // Those that did not resolve, when their time has come.
        self.names.want(&hosts, now);
    }

    /// Writes down who is active, before the daemon ends.
    pub async fn farewell(&mut self) {
        self.look(Instant::now()).await;
    }

    /// The tunnel's part of the status.
    pub async fn account(&self) -> Option<TunnelReport> {
        let running = self.running.as_ref()?;
        let snapshot = running.carrier.snapshot().await.ok()?;
        let label = |key: &PublicKey| running.labels.get(key).cloned();
        let features = running.carrier.features();
        Some(TunnelReport::of(&running.interface, running.mtu, features, &snapshot, label))
    }
}
