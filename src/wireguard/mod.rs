//! The tunnel: one WireGuard interface and its peers.
//!
//! Owns the interface that the configuration names, for as long as the daemon runs. Never touches a link of that name
//! that another program made; that is reported. Addresses and routes are the routes component's, rules the nat
//! component's. The configuration is the truth: what `wg set` changes is changed back by the next pass, except for a
//! peer's endpoint, which is the peer's own.
//!
//! A `backend` carries the packets: our own data plane (the crate `bastiond-tunnel`) or the kernel's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

mod active_peers;
mod apply;
mod backend;
pub(crate) mod fd_store;
pub(crate) mod kernel;
mod kernel_backend;
mod keyfile;
mod known_key;
mod link;
mod model;
mod names;
mod observe;
mod plan;
pub(crate) mod refused;
mod running;
pub(crate) mod status;
mod update;
mod userspace;

pub use model::BackendKind;

use crate::component::{Component, Steps};
use crate::inputs::Inputs;
use crate::outcome::{ComponentError, ComponentName, Outcome};
use active_peers::active_peers;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::udp::UdpPair;
use bastiond_tunnel::watch;
use fd_store::{FdStore, Handover, NamedFds};
use known_key::KnownKey;
use names::Names;
use observe::Observed;
use plan::Plan;
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
    /// The address of an endpoint's name changed, or the name does not resolve: a pass is due.
    EndpointChanged,
    /// The peers are to be checked.
    CheckPeers,
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
    /// Descriptors that the service manager stored, until the interface that they may belong to is known.
    inherited: NamedFds,
    /// The sockets of an interface that another program deleted, for the next one.
    reaped_sockets: Vec<Arc<UdpPair>>,
    /// Names of stored descriptors that are of no use.
    unused_names: Vec<String>,
    fd_store: FdStore,
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
    pub(crate) fn load(runtime_directory: &Path, state_directory: &Path) -> Self {
        Self {
            runtime_directory: runtime_directory.to_owned(),
            known_key: KnownKey::in_directory(state_directory),
            is_reloaded: false,
            running: None,
            names: Names::with_system_resolver(),
            inherited: NamedFds::new(),
            reaped_sockets: Vec::new(),
            unused_names: Vec::new(),
            fd_store: FdStore::default(),
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

    /// What the service manager's store has to change, if anything.
    pub(crate) fn handover(&mut self) -> Option<Handover> {
        let device = self.running.as_ref().and_then(|running| Some((&running.interface, running.backend.device()?)));
        let change = self.fd_store.update(device);
        let unused = std::mem::take(&mut self.unused_names);
        if change.is_none() && unused.is_empty() {
            return None;
        }
        let mut handover = change.unwrap_or_default();
        // Useless descriptors go before others are stored under the same name.
        handover.forget.splice(0..0, unused);
        Some(handover)
    }

    /// Whether an interface of ours runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Waits until something happens between passes; for ever without an interface. Cancel-safe.
    pub(crate) async fn event(&mut self) -> Event {
        let Some(running) = &self.running else { return std::future::pending().await };
        tokio::select! {
            () = self.names.changed() => Event::EndpointChanged,
            () = sleep_until(running.next_check) => Event::CheckPeers,
        }
    }

    /// Writes down which peers are active, and resolves names again whose peers do not answer.
    pub(crate) async fn check_peers(&mut self, now: Instant) {
        let Some(running) = &mut self.running else { return };
        running.next_check = now + CHECK_INTERVAL;
        let snapshot = match running.backend.snapshot().await {
            Ok(snapshot) => snapshot,
            // The next pass reports it.
            Err(error) => return tracing::debug!(component = "wireguard", %error, "the peers cannot be checked"),
        };
        let wall_clock = SystemTime::now();
        running.active_peers.save(active_peers(&snapshot, wall_clock));
        if let Ok(Some(refused)) = running.backend.refused().await {
            let label = |key: &PublicKey| running.labels.get(key).cloned();
            running.refused_log.note(&RefusedReport::new(&refused, label));
        }
        for peer in &snapshot.peers {
            let watch = running.watches.entry(peer.public_key).or_default();
            let change = watch.check(peer, wall_clock, now.into_std());
            let is_silent = watch.is_silent();
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
    }

    /// The tunnel's part of the status.
    pub(crate) async fn report(&self) -> Option<TunnelReport> {
        let running = self.running.as_ref()?;
        let snapshot = running.backend.snapshot().await.ok()?;
        let refused = running.backend.refused().await.ok()?;
        let label = |key: &PublicKey| running.labels.get(key).cloned();
        let refused = refused.map(|refused| RefusedReport::new(&refused, label));
        let features = running.backend.features();
        Some(TunnelReport::new(&running.interface, running.mtu, features, &snapshot, refused, label))
    }
}
