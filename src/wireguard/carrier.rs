//! Who carries the tunnel's packets: our own data plane, in threads of this process.

use std::path::Path;
use std::sync::Arc;

use super::device::model::{Snapshot, Update};
use super::device::tun::TunInterface;
use super::device::udp::UdpPair;
use super::device::{self, Device, queues_for, tun, uapi, udp};
use super::handover::Kept;
use super::key::PublicKey;
use crate::config::Backend;
use crate::net::InterfaceName;
use crate::report::{Problem, chain};

/// Why nobody carries packets, or a change is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no TUN interface.
    #[error(transparent)]
    Tun(#[from] tun::Error),
    /// Its MTU cannot be set.
    #[error("cannot set the MTU of {interface} to {mtu}")]
    Mtu {
        /// The interface.
        interface: InterfaceName,
        /// In bytes.
        mtu: u32,
        /// Why not.
        source: std::io::Error,
    },
    /// There are no sockets.
    #[error(transparent)]
    Socket(#[from] udp::Error),
    /// The data plane does not run, or refuses a change.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The kernel's data plane is wanted.
    #[error("wireguard.backend = \"kernel\" is not supported yet")]
    NoKernel,
    /// It broke off: a bug.
    #[error("the tunnel's work broke off")]
    Panicked(#[source] tokio::task::JoinError),
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        let in_use = |error: &udp::Error| match error {
            udp::Error::Bind { source, .. } => source.kind() == std::io::ErrorKind::AddrInUse,
            udp::Error::NoFamily | udp::Error::Option { .. } => false,
        };
        match self {
            Self::Tun(error) => error.advice(),
            Self::Socket(error) | Self::Device(device::Error::Socket(error)) if in_use(error) => {
                "another program has this port (ss -ulnp): stop it, or choose another wireguard.listen_port"
            }
            Self::Mtu { .. } | Self::Socket(_) | Self::Device(_) => {
                "the daemon needs CAP_NET_ADMIN; tried again by itself"
            }
            Self::NoKernel => "write \"userspace\"",
            Self::Panicked(_) => "this is a bug; tried again by itself",
        }
    }
}

/// What a data plane needs from its first moment on.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Its interface.
    pub interface: InterfaceName,
    /// Its UDP port: if it cannot be had, nothing starts.
    pub listen_port: u16,
    /// The mark of its packets.
    pub fwmark: u32,
    /// The interface's MTU, in bytes.
    pub mtu: u32,
    /// Which one is wanted.
    pub backend: Backend,
}

/// What a start came to.
#[derive(Debug)]
pub struct Started {
    /// The data plane.
    pub carrier: Carrier,
    /// What else is wrong, such as a control socket that cannot be had.
    pub problems: Vec<Problem>,
    /// Whether interface and sockets are those that the service manager kept.
    pub is_kept: bool,
}

/// A data plane at work. The interface goes when it is dropped.
#[derive(Debug)]
pub struct Carrier {
    #[expect(dead_code, reason = "held for its socket, which ends first: nobody is to ask for an interface that goes")]
    control: Option<uapi::Server>,
    device: Arc<Device>,
}

impl Carrier {
    /// Makes the interface, or goes on with the one that was kept, and starts its threads.
    pub async fn start(beginning: Beginning, kept: Kept, tun: Option<TunInterface>) -> Result<Started, Error> {
        if beginning.backend == Backend::Kernel {
            return Err(Error::NoKernel);
        }
        off_the_loop(move || start(&beginning, kept, tun)).await?
    }

    /// The data plane, for those who keep its descriptors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Carries out a change.
    pub async fn set(&self, update: Update) -> Result<(), Error> {
        let device = Arc::clone(&self.device);
        Ok(off_the_loop(move || device.set(update)).await??)
    }

    /// The interface as it is.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let device = Arc::clone(&self.device);
        off_the_loop(move || device.snapshot()).await
    }

    /// Starts handshakes with these peers.
    pub async fn initiate(&self, peers: Vec<PublicKey>) -> Result<(), Error> {
        let device = Arc::clone(&self.device);
        off_the_loop(move || peers.into_iter().for_each(|peer| device.initiate(peer))).await
    }

    /// Whether the interface was deleted, or a thread died.
    pub fn is_gone(&self) -> bool {
        self.device.is_gone()
    }

    /// Which data plane it is, and what the kernel does for it: `userspace`, `tun: tso, uso`, `udp: gso, gro`.
    pub fn features(&self) -> Vec<String> {
        let features = self.device.features();
        let listed = |name: &str, list: &[(bool, &str)]| {
            let there: Vec<&str> = list.iter().filter(|(is_there, _)| *is_there).map(|(_, name)| *name).collect();
            format!("{name}: {}", if there.is_empty() { "none".to_owned() } else { there.join(", ") })
        };
        vec![
            "userspace".to_owned(),
            format!("{} queue(s)", features.queues),
            listed("tun", &[(features.tun.tso, "tso"), (features.tun.uso, "uso")]),
            listed(
                "udp",
                &[
                    (features.udp.gso, "gso"),
                    (features.udp.gro, "gro"),
                    (features.udp.v4, "ipv4"),
                    (features.udp.v6, "ipv6"),
                ],
            ),
        ]
    }

    /// Ends it; the interface is gone when this returns.
    pub async fn end(self) {
        // Err: it panicked, which its own thread has told; the interface is gone as well.
        let _ = off_the_loop(move || drop(self)).await;
    }
}

fn start(beginning: &Beginning, mut kept: Kept, tun: Option<TunInterface>) -> Result<Started, Error> {
    let Beginning { interface, listen_port, fwmark, mtu, .. } = beginning;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let queues = tun.as_ref().map_or_else(|| queues_for(cores), |tun| tun.queues.len());
    let kept_sockets = kept.take_sockets(*listen_port, queues);
    let is_kept = tun.is_some() && kept_sockets.is_some();
    // The port first: an interface without one would be there for nothing.
    let sockets = kept_sockets.map_or_else(|| UdpPair::bind(*listen_port, *fwmark, queues), Ok)?;
    let tun = tun.map_or_else(|| TunInterface::open(interface.as_str(), queues), Ok)?;
    let bytes = usize::try_from(*mtu).unwrap_or(usize::MAX);
    tun.set_mtu(bytes).map_err(|source| Error::Mtu { interface: interface.clone(), mtu: *mtu, source })?;
    let device = Arc::new(Device::start(tun, sockets)?);
    device.set(Update { fwmark: Some(*fwmark), ..Update::default() })?;
    let speaks_for = Arc::clone(&device) as Arc<dyn uapi::Interface>;
    let (control, problems) = match uapi::Server::bind(Path::new(uapi::DIRECTORY), interface, speaks_for) {
        Ok(control) => (Some(control), Vec::new()),
        Err(error) => {
            let advice = "packets pass, but wg(8) cannot speak to the interface; it is tried again with the next start";
            (None, vec![Problem::new(chain(&error), advice)])
        }
    };
    Ok(Started { carrier: Carrier { control, device }, problems, is_kept })
}

/// What may take its time must not hold up the loop: ten thousand peers are made in half a second.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Panicked)
}
