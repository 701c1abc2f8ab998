//! Our own data plane as a backend of the tunnel, with its descriptors from the service manager and its control socket.

use std::path::Path;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};

use super::backend::{Backend, Error, Start};
use super::fd_store::InheritedFds;
use super::kernel;
use super::model::BackendKind;
use crate::error::chain;
use crate::outcome::Problem;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{Refused, Snapshot, Update};
use bastiond_tunnel::tun::TunInterface;
use bastiond_tunnel::uapi;
use bastiond_tunnel::udp::UdpPair;
use bastiond_tunnel::{Device, queues_for};

/// A device in threads of this process, and the socket that wg(8) uses.
#[derive(Debug)]
pub(super) struct Userspace {
    #[expect(dead_code, reason = "dropped first, so that wg(8) does not ask for an interface that ends")]
    control: Option<uapi::Server>,
    device: Arc<Device>,
}

/// The result of a start.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) userspace: Userspace,
    /// What else is wrong, such as a control socket that cannot be opened.
    pub(super) problems: Vec<Problem>,
    /// Whether interface and sockets are those that the service manager stored.
    pub(super) is_inherited: bool,
}

impl Userspace {
    /// Makes the interface, or takes over the one that the service manager stored.
    pub(super) async fn start(start: Start, mut inherited: InheritedFds) -> Result<Started, Error> {
        let tun = inherited.take_tun(&start.interface);
        if start.is_left_in_kernel {
            kernel::remove(&start.interface).await?;
        }
        off_the_loop(move || start_blocking(&start, inherited, tun)).await?
    }
}

fn start_blocking(start: &Start, mut inherited: InheritedFds, tun: Option<TunInterface>) -> Result<Started, Error> {
    let Start { interface, listen_port, fwmark, mtu, .. } = start;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let queues = tun.as_ref().map_or_else(|| queues_for(cores), |tun| tun.queues.len());
    let inherited_sockets = inherited.take_sockets(*listen_port, queues);
    let is_inherited = tun.is_some() && inherited_sockets.is_some();
    // The port first: an interface without one is of no use.
    let sockets = inherited_sockets.map_or_else(|| UdpPair::bind(*listen_port, *fwmark, queues), Ok)?;
    let tun = tun.map_or_else(|| TunInterface::open(interface.as_str(), queues), Ok)?;
    let bytes = usize::try_from(*mtu).unwrap_or(usize::MAX);
    tun.set_mtu(bytes).map_err(|source| Error::Mtu { interface: interface.clone(), mtu: *mtu, source })?;
    let device = Arc::new(Device::start(tun, sockets)?);
    device.set(Update { fwmark: Some(*fwmark), ..Update::default() })?;
    let served = Arc::clone(&device) as Arc<dyn uapi::Interface>;
    let (control, problems) = match uapi::Server::bind(Path::new(uapi::DIRECTORY), interface, served) {
        Ok(control) => (Some(control), Vec::new()),
        Err(error) => {
            let advice =
                "packets pass, but wg(8) cannot connect to the interface; the daemon retries when it starts next";
            (None, vec![Problem::new("uapi-socket-failed", chain(&error), advice)])
        }
    };
    Ok(Started { userspace: Userspace { control, device }, problems, is_inherited })
}

impl Backend for Userspace {
    fn kind(&self) -> BackendKind {
        BackendKind::Userspace
    }

    fn set(&self, update: Update) -> BoxFuture<'_, Result<(), Error>> {
        let device = Arc::clone(&self.device);
        async move { Ok(off_the_loop(move || device.set(update)).await??) }.boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, Error>> {
        let device = Arc::clone(&self.device);
        off_the_loop(move || device.snapshot()).boxed()
    }

    fn refused(&self) -> BoxFuture<'_, Result<Option<Refused>, Error>> {
        let device = Arc::clone(&self.device);
        off_the_loop(move || Some(device.refused())).boxed()
    }

    fn initiate_handshakes(&self, peers: Vec<PublicKey>) -> BoxFuture<'_, Result<(), Error>> {
        let device = Arc::clone(&self.device);
        off_the_loop(move || peers.into_iter().for_each(|peer| device.initiate(peer))).boxed()
    }

    fn is_gone(&self) -> BoxFuture<'_, bool> {
        std::future::ready(self.device.is_gone()).boxed()
    }

    fn features(&self) -> Vec<String> {
        let features = self.device.features();
        let listed = |name: &str, list: &[(bool, &str)]| {
            let there: Vec<&str> = list.iter().filter(|(is_there, _)| *is_there).map(|(_, name)| *name).collect();
            format!("{name}: {}", if there.is_empty() { "none".to_owned() } else { there.join(", ") })
        };
        let (tun, udp) = (features.tun, features.udp);
        let queues = if features.queues == 1 { "1 queue".to_owned() } else { format!("{} queues", features.queues) };
        vec![
            "userspace".to_owned(),
            queues,
            listed("tun", &[(tun.tso, "tso"), (tun.uso, "uso")]),
            listed("udp", &[(udp.gso, "gso"), (udp.gro, "gro"), (udp.v4, "ipv4"), (udp.v6, "ipv6")]),
        ]
    }

    fn device(&self) -> Option<&Device> {
        Some(&self.device)
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        off_the_loop(move || drop(self)).boxed()
    }
}

/// Runs what may take long without blocking the loop: it takes half a second to make 10 000 peers.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Panicked)
}
