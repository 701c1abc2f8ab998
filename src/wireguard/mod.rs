//! The tunnel: one WireGuard interface and its peers.
//!
//! Owns the interface that the configuration names. It goes on when the daemon ends. Never touches a link of that name
//! that another program made; that is reported. Addresses and routes are the routes component's, rules the nat
//! component's. The configuration is the truth: what `wg set` changes is changed back by the next pass, except for a
//! peer's endpoint, which is the peer's own.
//!
//! A `backend` carries the packets: our own data plane (the crate `bastiond-tunnel`, in a process of its own) or the
//! kernel's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

mod active_peers;
mod apply;
mod backend;
pub(crate) mod held;
pub(crate) mod kernel;
mod kernel_backend;
mod keyfile;
mod known_key;
mod link;
mod model;
mod names;
mod observe;
mod plan;
mod process;
pub(crate) mod refused;
mod running;
pub(crate) mod status;
mod update;
mod userspace;

pub use model::BackendKind;

use crate::component::{Component, Steps};
use crate::inputs::Inputs;
use crate::net::InterfaceName;
use crate::outcome::{ComponentError, ComponentName, Outcome};
use active_peers::active_peers;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::watch;
use held::{Held, NamedFds};
use known_key::KnownKey;
use names::Names;
use observe::Observed;
use plan::Plan;
use process::ProcessPlace;
use refused::RefusedReport;
use running::Running;
use status::TunnelReport;

/// How often the peers are checked: which are active, and which do not answer.
const CHECK_INTERVAL: Duration = watch::INTERVAL;

/// Why the tunnel is not as configured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No private key can be made.
    #[error(transparent)]
    Key(#[from] keyfile::Error),
    /// The data plane does not run, or refuses a change.
    #[error(transparent)]
    Backend(#[from] backend::Error),
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Key(error) => error.code(),
            Self::Backend(error) => error.code(),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Key(error) => error.advice(),
            Self::Backend(error) => error.advice(),
        }
    }
}

/// What happens to the tunnel between passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The process of the data plane has ended: a pass is due.
    Ended,
    /// The address of an endpoint's name changed, or the name does not resolve: a pass is due.
    EndpointChanged,
    /// The peers are to be checked.
    CheckPeers,
}

/// What a check has seen of the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeersSeen {
    /// The tunnel's interface.
    pub interface: InterfaceName,
    /// Its UDP port.
    pub port: u16,
    /// Whether something authentic was received from any peer since the check before.
    pub is_heard: bool,
    /// The peers that should always answer: those with an endpoint and persistent keepalives.
    pub sites: Vec<Site>,
}

/// A peer that should always answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// Its label.
    pub name: String,
    /// Whether something was received from it since the check before.
    pub is_heard: bool,
    /// Whether it has left packets unanswered for 15 s.
    pub is_silent: bool,
}

impl PeersSeen {
    fn new(interface: &InterfaceName, port: u16) -> Self {
        Self { interface: interface.clone(), port, is_heard: false, sites: Vec::new() }
    }
}

/// The component.
#[derive(Debug)]
pub(crate) struct Wireguard {
    runtime_directory: PathBuf,
    known_key: KnownKey,
    /// Whether the configuration was reloaded since the tunnel was as configured last.
    is_reloaded: bool,
    running: Option<Running>,
    names: Names,
    /// Where the data plane's process is.
    place: ProcessPlace,
    /// Descriptors that the service manager stored for a daemon of version 0.1.0, until the interface that they may
    /// belong to is known.
    inherited: NamedFds,
    /// The descriptors of a process that has ended, for the next one.
    kept: Held,
    /// Names under which the service manager stores what it need not store any more.
    unused_names: Vec<String>,
}

impl Component for Wireguard {
    const NAME: ComponentName = ComponentName::Wireguard;
    type Observed = Observed;
    type Plan = Plan;
    type Error = Error;

    async fn observe(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Error> {
        self.read(inputs).await
    }

    fn plan(&self, inputs: &Inputs<'_>, observed: &Observed) -> Plan {
        self.plan_pass(inputs, observed)
    }

    async fn apply(&mut self, inputs: &Inputs<'_>, observed: Observed, plan: Plan) -> Outcome {
        self.carry_out(inputs, observed, plan).await
    }

    async fn down(&mut self, inputs: &Inputs<'_>) -> Steps {
        if self.running.is_none() {
            Box::pin(self.adopt_left(&link::list_or_none().await, inputs)).await;
        }
        self.release_inherited();
        if let Some(running) = &mut self.running {
            running.active_peers.remove();
        }
        self.names.request(&BTreeSet::new(), inputs.now);
        let left = link::left_by_us().await.unwrap_or_default();
        self.stop(true, left).await
    }

    async fn hold_back(&mut self, inputs: &Inputs<'_>, waits_for: ComponentName) -> Outcome {
        match self.read(inputs).await {
            Ok(observed) => {
                let plan = self.plan_pass(inputs, &observed);
                self.carry_out_without_start(inputs, observed, plan, waits_for).await
            }
            Err(error) => Outcome::failed(&error),
        }
    }
}

impl Wireguard {
    /// A component without an interface. The endpoints that a former daemon knew are in `runtime_directory`, its public
    /// key is in `state_directory`.
    /// `unit` listens for connections to the data plane's process; without one, this daemon starts the process.
    pub(crate) fn load(runtime_directory: &Path, state_directory: &Path, unit: Option<String>) -> Self {
        Self {
            runtime_directory: runtime_directory.to_owned(),
            known_key: KnownKey::in_directory(state_directory),
            is_reloaded: false,
            running: None,
            names: Names::with_system_resolver(),
            place: ProcessPlace::new(runtime_directory, unit),
            inherited: NamedFds::new(),
            kept: Held::default(),
            unused_names: Vec::new(),
        }
    }

    /// Notes that a person has reloaded the configuration: a new key in it is intended.
    pub(crate) fn note_reload(&mut self) {
        self.is_reloaded = true;
    }

    /// Takes the descriptors that the service manager stored for a former daemon.
    pub(crate) fn take_over(&mut self, inherited: NamedFds) {
        self.inherited = inherited;
    }

    /// Names of descriptors that the service manager need not store any more.
    pub(crate) fn unused_names(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unused_names)
    }

    /// Whether there are descriptors that no process works with.
    fn holds_descriptors(&self) -> bool {
        !self.inherited.is_empty() || !self.kept.is_empty()
    }

    /// Whether an interface of ours runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Waits until something happens between passes; for ever without an interface. Cancel-safe.
    pub(crate) async fn event(&mut self) -> Event {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        tokio::select! {
            () = self.names.changed() => Event::EndpointChanged,
            () = sleep_until(running.next_check) => Event::CheckPeers,
            // Told once: a pass that fails is repeated by its own timer.
            () = running.backend.ended(), if !running.is_end_told => {
                running.is_end_told = true;
                Event::Ended
            }
        }
    }

    /// Writes down which peers are active, and resolves names again whose peers do not answer.
    /// What was seen of them; `None`: nothing is known.
    pub(crate) async fn check_peers(&mut self, now: Instant) -> Option<PeersSeen> {
        let running = self.running.as_mut()?;
        running.next_check = now + CHECK_INTERVAL;
        let snapshot = match running.backend.snapshot().await {
            Ok(snapshot) => snapshot,
            // The next pass reports it.
            Err(error) => {
                tracing::debug!(component = "wireguard", %error, "the peers cannot be checked");
                return None;
            }
        };
        let wall_clock = SystemTime::now();
        running.active_peers.save(active_peers(&snapshot, wall_clock));
        if let Ok(Some(refused)) = running.backend.refused().await {
            let label = |key: &PublicKey| running.labels.get(key).cloned();
            running.refused_log.note(&RefusedReport::new(&refused, label));
        }
        let mut seen = PeersSeen::new(&running.interface, snapshot.listen_port);
        for peer in &snapshot.peers {
            let watch = running.watches.entry(peer.public_key).or_default();
            let is_heard = watch.is_heard(peer);
            let change = watch.check(peer, wall_clock, now.into_std());
            let is_silent = watch.is_silent();
            seen.is_heard |= is_heard;
            if running.sites.contains(&peer.public_key) {
                let name = running.label(&peer.public_key);
                seen.sites.push(Site { name, is_heard, is_silent });
            }
            if let Some(change) = change {
                running.log_change(peer, change);
            }
            let Some(host) = running.hosts.get(&peer.public_key) else { continue };
            let age = peer.last_handshake.and_then(|then| wall_clock.duration_since(then).ok());
            if is_silent {
                self.names.note_unanswered(host, now);
            } else if change.is_some() || age.is_some_and(|age| age < CHECK_INTERVAL) {
                self.names.note_answered(host);
            }
        }
        // Names that did not resolve are tried again when they are due.
        self.names.request(&running.hosts.values().cloned().collect(), now);
        Some(seen)
    }

    /// The tunnel's part of the status.
    pub(crate) async fn report(&self) -> Option<TunnelReport> {
        let running = self.running.as_ref()?;
        let snapshot = running.backend.snapshot().await.ok()?;
        let refused = running.backend.refused().await.ok()?;
        let label = |key: &PublicKey| running.labels.get(key).cloned();
        let refused = refused.map(|refused| RefusedReport::new(&refused, label));
        let features = running.backend.features();
        let mut report = TunnelReport::new(&running.interface, running.mtu, features, &snapshot, refused, label);
        for peer in &mut report.peers {
            peer.expires_unix = running.expiries.get(&peer.public_key).copied();
        }
        report.out.clone_from(&running.out);
        Some(report)
    }
}
