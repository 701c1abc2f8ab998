//! The tunnel room's pass: key, interface, peers, link.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::carrier::{self, Beginning, Carrier};
use super::device::model::Snapshot;
use super::endpoint::EndpointName;
use super::handover::{Handover, Kept, Ledger, Named};
use super::key::{PrivateKey, PublicKey};
use super::keyfile;
use super::link;
use super::memory::{Active, Memory};
use super::model::Tunnel;
use super::names::{Host, Names, Vigil};
use super::plan::{self, Configured, Interface};
use super::status::TunnelReport;
use crate::config;
use crate::net::InterfaceName;
use crate::report::{Outcome, Problem, State, chain};

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
    /// Somebody else has an interface of that name.
    #[error("there is an interface {interface} already{}, which is not bastiond's", kind.as_ref().map_or_else(String::new, |kind| format!(" (a {kind} one)")))]
    Foreign {
        /// The name.
        interface: InterfaceName,
        /// What it is.
        kind: Option<String>,
    },
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Key(error) => error.advice(),
            Self::Carrier(error) => error.advice(),
            Self::Link(_) => "the daemon needs a route netlink socket and CAP_NET_ADMIN; tried again by itself",
            Self::Foreign { .. } => {
                "end whoever made it (wg-quick down, systemctl disable wg-quick@), or choose another wireguard.interface"
            }
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
    /// Names of what it kept and nobody needs.
    unused: Vec<String>,
    ledger: Ledger,
}

/// An interface at work.
#[derive(Debug)]
struct Running {
    interface: InterfaceName,
    backend: config::Backend,
    carrier: Carrier,
    /// What its start left to be told.
    problems: Vec<Problem>,
    mtu: u32,
    /// Names of the peers that have one.
    labels: BTreeMap<PublicKey, String>,
    /// Peers whose endpoints are names.
    named: BTreeMap<PublicKey, Host>,
    vigils: BTreeMap<PublicKey, Vigil>,
    /// Endpoints as they were configured when they were set last.
    configured: Configured,
    /// What stood after the last pass: if it differs later, somebody changed it.
    stood: Option<Interface>,
    /// Whether it ever stood: before that nobody knows its port.
    stood_once: bool,
    memory: Memory,
    /// Who was active before, until they are called upon.
    remembered: Active,
    look_at: Instant,
}

impl Wireguard {
    /// A room without an interface; what a daemon before this one knew of peers is in `runtime_directory`.
    pub fn remembered_in(runtime_directory: &Path) -> Self {
        Self {
            runtime_directory: runtime_directory.to_owned(),
            running: None,
            names: Names::of_system(),
            kept: Named::new(),
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
        let device = self.running.as_ref().map(|running| (&running.interface, running.carrier.device()));
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
            let changes = self.stop().await;
            return Outcome { changes, ..Outcome::unchanged(State::Off, "no tunnel") };
        };
        let mut changes = Vec::new();
        let repaired = self.make_way(config, &mut changes).await;
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

    /// Ends an interface that cannot become the wanted one; whether somebody else had taken it away.
    async fn make_way(&mut self, config: &config::Wireguard, changes: &mut Vec<String>) -> bool {
        let Some(running) = &self.running else { return false };
        let is_gone = running.carrier.is_gone();
        if is_gone {
            changes.push(format!("{} was gone", running.interface));
            if let Some(mut running) = self.running.take() {
                // What it knew of its peers is there yet.
                if let Ok(snapshot) = running.carrier.snapshot().await {
                    running.memory.keep(&snapshot, SystemTime::now());
                }
                running.carrier.end().await;
            }
        } else if running.interface != config.interface || running.backend != config.backend {
            changes.extend(self.stop().await);
        }
        is_gone
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
        let (mut kept, rest) = Kept::of(&interface, std::mem::take(&mut self.kept));
        let tun = kept.take_tun(&interface);
        let foreign = if tun.is_some() { None } else { link::observe(&interface).await? };
        if let Some(link) = foreign {
            self.unused.extend(had_kept);
            return Err(Error::Foreign { interface, kind: link.kind });
        }
        let beginning = Beginning {
            interface: interface.clone(),
            listen_port: config.listen_port,
            fwmark: config.fwmark,
            mtu: tunnel.mtu,
            backend: config.backend,
        };
        let started = Carrier::start(beginning, kept, tun).await;
        let is_kept = started.as_ref().is_ok_and(|started| started.is_kept);
        self.unused.extend(if is_kept { rest } else { had_kept });
        let carrier::Started { carrier, problems, .. } = started?;
        if is_kept {
            self.ledger.took_over(&interface, carrier.device());
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

    /// Ends the interface, if there is one; what was done.
    async fn stop(&mut self) -> Vec<String> {
        self.names.want(&BTreeSet::new(), Instant::now());
        let Some(running) = self.running.take() else { return Vec::new() };
        let interface = running.interface.clone();
        running.carrier.end().await;
        // The service manager may keep it yet.
        if let Err(error) = link::remove(&interface).await {
            tracing::warn!(room = "wireguard", error = %chain(&error), "{interface} stays until the daemon's unit is stopped");
        }
        vec![format!("{interface} removed")]
    }

    /// Whether there is an interface of ours.
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.carrier.is_gone())
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
    pub async fn remove(&mut self) -> Vec<String> {
        if let Some(running) = &mut self.running {
            running.memory.forget();
        }
        self.stop().await
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
            Err(error) => return tracing::debug!(room = "wireguard", %error, "no look at the tunnel"),
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

impl Running {
    /// Takes over what only people and look-ups need.
    fn describe(&mut self, config: &config::Wireguard, tunnel: &Tunnel) {
        self.mtu = tunnel.mtu;
        self.labels = config.peers.iter().filter_map(|peer| Some((peer.public_key, peer.name.clone()?))).collect();
        self.named = config.peers.iter().filter_map(|peer| Some((peer.public_key, host(peer)?))).collect();
        self.vigils.retain(|key, _| self.named.contains_key(key));
    }

    async fn converge(&mut self, mut desired: Interface, changes: &mut Vec<String>) -> Result<(Snapshot, bool), Error> {
        let configured: Configured =
            desired.peers.iter().filter_map(|(key, peer)| Some((*key, peer.endpoint?))).collect();
        let remembered = std::mem::take(&mut self.remembered);
        for (key, peer) in &mut desired.peers {
            // Where it was last heard is a better guess than where it was once configured to be.
            peer.endpoint = remembered.get(key).copied().or(peer.endpoint);
        }
        let before = self.carrier.snapshot().await?;
        let update = plan::plan(&desired, &before, &self.configured);
        let drifted = update.is_some() && self.stood.as_ref() == Some(&desired);
        self.stood = None;
        let mut callees: Vec<PublicKey> = remembered.into_keys().collect();
        if let Some(update) = update {
            let label = |key: &PublicKey| self.labels.get(key).cloned().unwrap_or_else(|| key.to_string());
            let told = plan::told(&update, &before, label);
            if update.listen_port.is_some() && self.stood_once {
                // They know the former port. A packet from the new one tells them, where no NAT is in its way.
                let now = SystemTime::now();
                callees.extend(before.peers.iter().filter(|peer| peer.is_active(now)).map(|peer| peer.public_key));
            }
            self.carrier.set(update).await?;
            changes.extend(told);
        }
        self.set_link(changes).await?;
        callees.retain(|key| desired.peers.contains_key(key));
        if !callees.is_empty() {
            changes.push(format!("{} peer(s) that were active are called upon", callees.len()));
            self.carrier.initiate(callees).await?;
        }
        self.stood_once = true;
        self.configured = configured;
        self.stood = Some(desired);
        let after = self.carrier.snapshot().await?;
        self.memory.keep(&after, SystemTime::now());
        Ok((after, drifted))
    }

    /// Somebody may have set it down, or changed its MTU.
    async fn set_link(&self, changes: &mut Vec<String>) -> Result<(), Error> {
        let Some(link) = link::observe(&self.interface).await? else { return Ok(()) }; // the next pass makes it anew
        if link.up && link.mtu == self.mtu {
            return Ok(());
        }
        link::set(&self.interface, link.index, self.mtu).await?;
        if !link.up {
            changes.push(format!("{} set up", self.interface));
        }
        if link.mtu != self.mtu {
            changes.push(format!("{}: MTU {} -> {}", self.interface, link.mtu, self.mtu));
        }
        Ok(())
    }
}

/// The configured key, or that of the file, which is made if it is missing.
fn private_key(config: &config::Wireguard, changes: &mut Vec<String>) -> Result<PrivateKey, Error> {
    if let Some(key) = &config.private_key {
        return Ok(key.clone());
    }
    let (key, is_new) = keyfile::read_or_make(&config.private_key_file)?;
    if is_new {
        changes.push(format!("private key made in {}", config.private_key_file.display()));
    }
    Ok(key)
}

fn host(peer: &config::Peer) -> Option<Host> {
    match peer.endpoint.as_ref()? {
        EndpointName::Name { host, port } => Some((host.clone(), *port)),
        EndpointName::Address(_) => None,
    }
}

fn interface(config: &config::Wireguard, private_key: PrivateKey, names: &Names) -> Interface {
    let endpoint = |peer: &config::Peer| match peer.endpoint.as_ref()? {
        EndpointName::Address(address) => Some(*address),
        EndpointName::Name { host, port } => names.address(&(host.clone(), *port)),
    };
    let peer = |peer: &config::Peer| {
        let desired = plan::Peer {
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: peer.allowed_ips.iter().copied().collect(),
            endpoint: endpoint(peer),
            persistent_keepalive: peer.persistent_keepalive.unwrap_or(0),
        };
        (peer.public_key, desired)
    };
    let peers = config.peers.iter().map(peer).collect();
    Interface { private_key, listen_port: config.listen_port, fwmark: config.fwmark, peers }
}

/// The line of the status table.
fn detail(config: &config::Wireguard, snapshot: &Snapshot, now: SystemTime) -> String {
    let active = snapshot.peers.iter().filter(|peer| peer.is_active(now)).count();
    let public_key = snapshot.private_key.as_ref().map_or_else(String::new, |key| format!("; {}", key.public()));
    format!(
        "{} on UDP {}: {} peer(s), {active} active{public_key}",
        config.interface,
        snapshot.listen_port,
        snapshot.peers.len()
    )
}
