//! Reads what the tunnel consists of: the running interface, the links of the kernel, the private key.

use std::time::SystemTime;

use super::active_peers::{ActivePeers, ActivePeersFile, active_peers};
use super::known_key::ObservedKey;
use super::link::{self, Link, Links};
use super::{Error, Wireguard, backend, fd_store, kernel, keyfile};
use crate::config::{self, BackendChoice};
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
    /// Whether the service manager stored the wanted TUN interface.
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
        observed.has_inherited_tun = fd_store::has_tun(&config.interface, &self.inherited);
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
