//! Our own data plane as a backend of the tunnel: a process of its own (`process.rs`), which gets descriptors by its
//! private socket, and everything that wg(8) can say by UAPI.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::backend::{Backend, Error, Start};
use super::held::Held;
use super::kernel;
use super::model::BackendKind;
use super::process::ProcessPlace;
use crate::error::chain;
use crate::net::InterfaceName;
use crate::outcome::Problem;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{Refused, Snapshot, Update};
use bastiond_tunnel::private::{self, Connection, Remote, RemoteError, State};
use bastiond_tunnel::probes::Probes;
use bastiond_tunnel::tun::TunInterface;
use bastiond_tunnel::udp::UdpPair;
use bastiond_tunnel::{Features, queues_for, uapi};

/// An interface of the tunnel's process.
#[derive(Debug)]
pub(super) struct Userspace(Arc<Process>);

/// The process, as this daemon sees it.
#[derive(Debug)]
struct Process {
    interface: InterfaceName,
    /// `None` once it was stopped.
    remote: Mutex<Option<Remote>>,
    client: Mutex<uapi::Client>,
    /// Copies of what the process works with. Those of the sockets change with the port.
    held: Arc<Mutex<Held>>,
    features: Mutex<Features>,
    /// Whether the process has ended, or cannot be spoken to any more.
    ended: watch::Sender<bool>,
}

/// The result of a start.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) userspace: Userspace,
    /// What else is wrong, such as a control socket that cannot be opened.
    pub(super) problems: Vec<Problem>,
}

/// What a former daemon left.
#[derive(Debug)]
pub(super) enum Left {
    /// A process that carries packets.
    Running(InterfaceName, Userspace),
    /// The descriptors of a process of another version, which has ended.
    Descriptors(Held),
}

impl Userspace {
    /// Makes the interface, or takes over the one of a former process.
    pub(super) async fn start(start: Start, place: ProcessPlace, held: Held) -> Result<Started, Error> {
        if start.is_left_in_kernel {
            kernel::remove(&start.interface).await?;
        }
        off_the_loop(move || start_blocking(&start, &place, &held)).await?
    }

    /// The process that a former daemon left, if it carries packets.
    pub(super) async fn left(place: ProcessPlace) -> Result<Option<Left>, Error> {
        off_the_loop(move || left_blocking(&place)).await?
    }
}

fn start_blocking(start: &Start, place: &ProcessPlace, held: &Held) -> Result<Started, Error> {
    let Start { interface, listen_port, fwmark, mtu, .. } = start;
    let (remote, client, supply, state) = attach(place)?;
    let tun = held.interface(interface);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let queues = tun.as_ref().map_or_else(|| queues_for(cores), |tun| tun.queues.len());
    // The port first: an interface without one is of no use.
    let sockets = match held.sockets_on(*listen_port, queues) {
        Some(sockets) => sockets,
        None => UdpPair::bind(*listen_port, *fwmark, queues)?,
    };
    sockets.iter().try_for_each(|pair| pair.set_fwmark(*fwmark))?;
    let tun = tun.map_or_else(|| TunInterface::open(interface.as_str(), queues), Ok)?;
    let bytes = usize::try_from(*mtu).unwrap_or(usize::MAX);
    let mtu_error = |source| Error::Mtu { interface: interface.clone(), mtu: *mtu, source };
    tun.set_mtu(bytes).map_err(mtu_error)?;
    tun.set_owner(state.user).map_err(|source| Error::Owner { interface: interface.clone(), source })?;
    let probes = Probes::open(*fwmark)?;
    let probes: Vec<BorrowedFd<'_>> = probes.iter().map(|probe| probe.as_fd()).collect();
    let queues: Vec<BorrowedFd<'_>> = tun.queues.iter().map(|queue| queue.as_fd()).collect();
    let passed: Vec<BorrowedFd<'_>> =
        sockets.iter().flat_map(|pair| pair.sockets()).map(|socket| socket.as_fd()).collect();
    remote.start(interface, &queues, &passed, &probes, *fwmark)?;
    let features = match state_of(&remote, interface) {
        Ok(features) => features,
        Err(error) => {
            // Otherwise it would carry packets without a daemon. Err: it has ended.
            let _ = remote.stop();
            return Err(error.into());
        }
    };
    let queues = queues.iter().map(BorrowedFd::try_clone_to_owned).collect::<Result<_, _>>().map_err(Error::Copy)?;
    let userspace = Userspace::new(interface.clone(), remote, client, supply, Held { queues, sockets }, features)?;
    let problems = userspace.0.serve_wg();
    Ok(Started { userspace, problems })
}

/// Connects to the process. One of another version is replaced.
fn attach(place: &ProcessPlace) -> Result<(Remote, uapi::Client, Connection, State), Error> {
    let remote = place.connect_or_start()?;
    let (client, supply, state) = remote.attach()?;
    if state.version == private::message::VERSION {
        return Ok((remote, client, supply, state));
    }
    remote.stop()?;
    let remote = place.connect_or_start()?;
    let (client, supply, state) = remote.attach()?;
    if state.version == private::message::VERSION { Ok((remote, client, supply, state)) } else { Err(Error::Version) }
}

fn left_blocking(place: &ProcessPlace) -> Result<Option<Left>, Error> {
    let Some(remote) = place.connect() else { return Ok(None) };
    let (client, supply, state) = remote.attach()?;
    let Some(interface) = state.interface.filter(|interface| !interface.is_gone) else { return Ok(None) };
    let held = Held::of_process(remote.descriptors(&interface.name)?);
    if state.version != private::message::VERSION {
        remote.stop()?;
        return Ok(Some(Left::Descriptors(held)));
    }
    let userspace = Userspace::new(interface.name.clone(), remote, client, supply, held, interface.features)?;
    Ok(Some(Left::Running(interface.name, userspace)))
}

fn state_of(remote: &Remote, interface: &InterfaceName) -> Result<Features, RemoteError> {
    let state = remote.state()?;
    let running = state.interface.filter(|running| running.name == *interface);
    running.map(|running| running.features).ok_or(RemoteError::Nonsense)
}

impl Userspace {
    fn new(
        interface: InterfaceName,
        remote: Remote,
        client: uapi::Client,
        supply: Connection,
        held: Held,
        features: Features,
    ) -> Result<Self, Error> {
        let (held, (ended, _)) = (Arc::new(Mutex::new(held)), watch::channel(false));
        let (kept, end) = (Arc::clone(&held), ended.clone());
        let supplier = std::thread::Builder::new().name("tunnel-supply".to_owned());
        let started = supplier.spawn(move || {
            private::answer(&supply, |sockets| kept.lock().sockets = sockets);
            // The connection ends with the process.
            end.send_replace(true);
        });
        started.map_err(Error::Copy)?;
        let (remote, client, features) = (Mutex::new(Some(remote)), Mutex::new(client), Mutex::new(features));
        Ok(Self(Arc::new(Process { interface, remote, client, held, features, ended })))
    }
}

impl Process {
    /// Has the process serve the socket of wg(8); the problems.
    fn serve_wg(&self) -> Vec<Problem> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let advice =
                "packets pass, but wg(8) cannot connect to the interface; the daemon retries when it starts next";
            vec![Problem::new("uapi-socket-failed", chain(error), advice)]
        };
        match uapi::bind(Path::new(uapi::DIRECTORY), &self.interface) {
            Ok(listener) => match self.ask(|remote| remote.serve(listener.as_fd())) {
                Ok(()) => Vec::new(),
                Err(error) => {
                    uapi::discard(&listener);
                    failed(&error)
                }
            },
            Err(error) => failed(&error),
        }
    }

    fn ask<T>(&self, ask: impl FnOnce(&Remote) -> Result<T, RemoteError>) -> Result<T, Error> {
        let place = self.remote.lock();
        let remote = place.as_ref().ok_or(Error::Ended)?;
        Ok(ask(remote).inspect_err(|error| {
            if !matches!(error, RemoteError::Failed { .. }) {
                self.ended.send_replace(true);
            }
        })?)
    }

    fn speak<T>(&self, speak: impl FnOnce(&mut uapi::Client) -> Result<T, uapi::ClientError>) -> Result<T, Error> {
        Ok(speak(&mut self.client.lock()).inspect_err(|error| {
            if error.is_fatal() {
                // What comes later would be taken for the answer to another request.
                self.ended.send_replace(true);
            }
        })?)
    }

    fn is_gone(&self) -> bool {
        if *self.ended.borrow() {
            return true;
        }
        match self.ask(Remote::state) {
            Ok(State { interface: Some(running), .. }) if running.name == self.interface => {
                *self.features.lock() = running.features;
                running.is_gone
            }
            Ok(_) => true,
            Err(error) => {
                let error = chain(&error);
                tracing::debug!(component = "wireguard", error, "the tunnel's process does not answer");
                true
            }
        }
    }

    fn stop(&self) -> Result<(), Error> {
        let remote = self.remote.lock().take();
        let stopped = match remote {
            Some(remote) if !*self.ended.borrow() => remote.stop(),
            _ => Ok(()),
        };
        *self.held.lock() = Held::default();
        // Its process has no file, and the socket refuses from now on.
        let socket = Path::new(uapi::DIRECTORY).join(format!("{}.sock", self.interface));
        if let Err(error) = uapi::remove_stale(&socket) {
            tracing::debug!(error = %chain(&error), "{} stays", socket.display());
        }
        Ok(stopped?)
    }
}

impl Backend for Userspace {
    fn kind(&self) -> BackendKind {
        BackendKind::Userspace
    }

    fn set(&self, update: Update) -> BoxFuture<'_, Result<(), Error>> {
        let process = Arc::clone(&self.0);
        async move { off_the_loop(move || process.speak(|client| client.set(&update))).await? }.boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, Error>> {
        let process = Arc::clone(&self.0);
        async move { off_the_loop(move || process.speak(uapi::Client::get)).await? }.boxed()
    }

    fn refused(&self) -> BoxFuture<'_, Result<Option<Refused>, Error>> {
        let process = Arc::clone(&self.0);
        async move { off_the_loop(move || process.ask(Remote::refused).map(Some)).await? }.boxed()
    }

    fn initiate_handshakes(&self, peers: Vec<PublicKey>) -> BoxFuture<'_, Result<(), Error>> {
        let process = Arc::clone(&self.0);
        async move { off_the_loop(move || process.ask(|remote| remote.initiate(&peers))).await? }.boxed()
    }

    fn is_gone(&self) -> BoxFuture<'_, bool> {
        let process = Arc::clone(&self.0);
        async move { off_the_loop(move || process.is_gone()).await.unwrap_or(true) }.boxed()
    }

    fn features(&self) -> Vec<String> {
        let features = *self.0.features.lock();
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

    fn held(&self) -> Held {
        self.0.held.lock().copy()
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        let mut ended = self.0.ended.subscribe();
        async move {
            // Err: this backend has been dropped.
            let _ = ended.wait_for(|ended| *ended).await;
        }
        .boxed()
    }

    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>> {
        async move { off_the_loop(move || self.0.stop()).await? }.boxed()
    }
}

/// Runs what may take long without blocking the loop: it takes half a second to make 10 000 peers.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Panicked)
}
