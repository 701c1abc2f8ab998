//! Reads what the tunnel consists of: the running interface, the links of the kernel, the private key.

use std::time::SystemTime;

use tokio::time::Instant;

use super::active_peers::{ActivePeers, ActivePeersFile, active_peers};
use super::held::Held;
use super::known_key::ObservedKey;
use super::link::{self, Link, Links, list_or_none, mark};
use super::userspace::{Left, Userspace};
use super::{Error, Wireguard, backend, held, kernel, keyfile};
use crate::config::{self, BackendChoice};
use crate::error::chain;
use crate::inputs::{Inputs, Tunnel};
use crate::net::InterfaceName;
use bastiond_tunnel::model::Snapshot;

/// The tunnel as it is.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The interface of this daemon, if one runs.
    pub(super) running: Option<RunningState>,
    /// All links of this network namespace.
    pub(super) links: Vec<Link>,
    /// Whether the kernel has WireGuard. Only asked when a data plane has to be chosen, since the question loads the
    /// module.
    pub(super) kernel_has_wireguard: bool,
    /// The interface that a former daemon left to the kernel, if it is wanted.
    pub(super) left_in_kernel: Option<Snapshot>,
    /// Whether descriptors of the wanted TUN interface are held without a process that works with them.
    pub(super) has_inherited_tun: bool,
    /// What is known about the interface's key; `None` if no tunnel is wanted.
    pub(super) key: Option<ObservedKey>,
    /// Endpoints of peers that were active before the interface starts.
    pub(super) last_seen: ActivePeers,
    /// The time by which handshakes are dated.
    pub(super) wall_clock: SystemTime,
}

/// The interface that runs.
#[derive(Debug)]
pub(super) struct RunningState {
    /// Whether another program deleted it, or a thread of it ended.
    pub(super) is_gone: bool,
    /// Its configuration and its peers.
    pub(super) snapshot: Result<Snapshot, backend::Error>,
}

async fn list_links() -> Result<Vec<Link>, link::Error> {
    Links::open()?.list().await
}

impl Wireguard {
    pub(super) async fn read(&mut self, inputs: &Inputs<'_>) -> Result<Observed, Error> {
        if self.running.is_none() {
            Box::pin(self.adopt_left(&list_or_none().await, inputs)).await;
        }
        let running = match &self.running {
            Some(running) => Some(RunningState {
                is_gone: running.backend.is_gone().await,
                snapshot: running.backend.snapshot().await,
            }),
            None => None,
        };
        let links = match list_links().await {
            Ok(links) => links,
            // Without a tunnel, only leftovers of a former one are missed.
            Err(_) if inputs.config.wireguard.is_none() && self.running.is_none() => Vec::new(),
            Err(error) => return Err(backend::Error::Link(error).into()),
        };
        let mut observed = Observed {
            running,
            links,
            kernel_has_wireguard: false,
            left_in_kernel: None,
            has_inherited_tun: false,
            key: None,
            last_seen: ActivePeers::new(),
            wall_clock: SystemTime::now(),
        };
        let Some((config, _)) = wanted(inputs) else { return Ok(observed) };
        observed.key = Some(self.read_key(config));
        observed.has_inherited_tun = held::has_tun(&config.interface, &self.inherited)
            || self.kept.has_interface(&config.interface)
            || self.has_ended_with(&config.interface, observed.running.as_ref());
        let is_kept = self.running.as_ref().zip(observed.running.as_ref()).is_some_and(|(running, state)| {
            !state.is_gone && running.interface == config.interface && running.choice == config.backend
        });
        if is_kept {
            return Ok(observed);
        }
        if config.backend != BackendChoice::Userspace {
            observed.kernel_has_wireguard = kernel::is_available().await.map_err(backend::Error::Kernel)?;
        }
        let is_left = observed.link(&config.interface).is_some_and(Link::is_left_by_us);
        if is_left && observed.kernel_has_wireguard {
            let left = kernel::snapshot(&config.interface).await.map_err(backend::Error::Kernel)?;
            observed.left_in_kernel = Some(left);
        }
        // The snapshot of an interface that was just deleted is newer than the file.
        observed.last_seen = match &observed.running {
            Some(RunningState { is_gone: true, snapshot: Ok(snapshot) }) => active_peers(snapshot, observed.wall_clock),
            _ => ActivePeersFile::load(&config.interface, &self.runtime_directory).peers(),
        };
        Ok(observed)
    }

    /// Whether the process of this interface has ended, and the interface has not.
    fn has_ended_with(&self, interface: &InterfaceName, state: Option<&RunningState>) -> bool {
        self.running.as_ref().zip(state).is_some_and(|(running, state)| {
            state.is_gone && running.interface == *interface && running.backend.held().has_interface(interface)
        })
    }

    /// Continues with the process that a former daemon left, if one of these links is its.
    pub(super) async fn adopt_left(&mut self, links: &[Link], inputs: &Inputs<'_>) {
        let wanted = wanted(inputs).map(|(config, _)| &config.interface);
        // A daemon that ended at once may not have marked its link.
        let is_wanted = |link: &Link| link.is_tun() && wanted.is_some_and(|wanted| link.name == wanted.as_str());
        if !links.iter().any(|link| link.is_of_our_process() || is_wanted(link)) {
            return;
        }
        match Userspace::left(self.place.clone()).await {
            Ok(Some(Left::Running(interface, userspace))) => {
                let mut running =
                    self.running(interface, BackendChoice::Userspace, Box::new(userspace), Instant::now());
                (running.has_settled, running.sessions_live) = (true, true);
                if let Ok(snapshot) = running.backend.snapshot().await {
                    running.last_seen = active_peers(&snapshot, SystemTime::now());
                }
                if let Err(error) = mark(&running.interface).await {
                    let interface = &running.interface;
                    tracing::warn!(component = "wireguard", error = %chain(&error), "{interface} is not marked");
                }
                tracing::info!(component = "wireguard", "{} goes on", running.interface);
                (self.running, self.kept) = (Some(running), Held::default());
            }
            Ok(Some(Left::Descriptors(descriptors))) => self.kept = descriptors,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(component = "wireguard", error = %chain(&error), "the former tunnel is not continued");
            }
        }
    }

    fn read_key(&self, config: &config::Wireguard) -> ObservedKey {
        let path = &config.private_key_file;
        ObservedKey {
            configured: config.private_key.clone(),
            path: path.clone(),
            file: if config.is_key_in_wg_file { Ok(config.private_key.clone()) } else { keyfile::read(path) },
            known: self.known_key.read(),
            known_path: self.known_key.path().to_owned(),
            is_reloaded: self.is_reloaded,
        }
    }
}

impl Observed {
    /// The link of this name, if there is one.
    pub(super) fn link(&self, name: &InterfaceName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name.as_str())
    }
}

/// The configured tunnel, unless its interface is another link of this server.
pub(super) fn wanted<'a>(inputs: &Inputs<'a>) -> Option<(&'a config::Wireguard, &'a Tunnel)> {
    inputs.config.wireguard.as_ref().zip(inputs.tunnel)
}
