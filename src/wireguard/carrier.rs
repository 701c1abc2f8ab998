//! Who carries the tunnel's packets: our own data plane, in threads of this process, or the kernel's.

use std::path::Path;
use std::sync::Arc;

use super::handover::Kept;
use super::kernel::{self, Choice};
use super::link;
use crate::config::BackendChoice;
use crate::error::chain;
use crate::net::InterfaceName;
use crate::outcome::Problem;
use bastiond_tunnel::device::tun::TunInterface;
use bastiond_tunnel::device::udp::UdpPair;
use bastiond_tunnel::device::{self, Device, queues_for, tun, udp};
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{Snapshot, Update};
use bastiond_tunnel::uapi;

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
    /// The kernel's data plane refuses.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The link cannot be looked at or marked.
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
            Self::Kernel(error) => error.advice(),
            Self::Link(error) => error.advice(),
            Self::Foreign { .. } => {
                "end whoever made it (wg-quick down, systemctl disable wg-quick@), or choose another wireguard.interface"
            }
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
    pub backend: BackendChoice,
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

/// A data plane at work.
#[derive(Debug)]
pub enum Carrier {
    /// Our own. The interface goes when it is dropped.
    Userspace(Userspace),
    /// The kernel's. It goes on when the daemon ends.
    Kernel(InterfaceName),
}

/// Our own data plane, and the socket that wg(8) speaks to.
#[derive(Debug)]
pub struct Userspace {
    #[expect(dead_code, reason = "held for its socket, which ends first: nobody is to ask for an interface that goes")]
    control: Option<uapi::Server>,
    device: Arc<Device>,
}

impl Started {
    fn with_the_kernel(interface: InterfaceName) -> Self {
        Self { carrier: Carrier::Kernel(interface), problems: Vec::new(), is_kept: false }
    }
}

impl Carrier {
    /// Makes the interface, or goes on with the one that the service manager kept or a former daemon left to the kernel.
    pub async fn start(beginning: Beginning, mut kept: Kept) -> Result<Started, Error> {
        let interface = beginning.interface.clone();
        let choice = choose(beginning.backend).await?;
        let tun = if choice == Choice::Userspace { kept.take_tun(&interface) } else { None };
        if tun.is_none() {
            match (left_for_us(&interface).await?, choice) {
                (true, Choice::Kernel) => return Ok(Started::with_the_kernel(interface)),
                (false, Choice::Kernel) => {
                    kernel::make(&interface).await?;
                    let made = link::observe(&interface).await?;
                    let index = made.ok_or(kernel::Error::Absent { interface: interface.clone() })?.index;
                    link::mark(&interface, index).await?;
                    return Ok(Started::with_the_kernel(interface));
                }
                (true, Choice::Userspace) => {
                    kernel::remove(&interface).await?;
                }
                (false, Choice::Userspace) => {}
            }
        }
        off_the_loop(move || start(&beginning, kept, tun)).await?
    }

    /// Our own data plane, for those who keep its descriptors.
    pub fn device(&self) -> Option<&Device> {
        match self {
            Self::Userspace(userspace) => Some(&userspace.device),
            Self::Kernel(_) => None,
        }
    }

    /// Which one this is.
    pub fn choice(&self) -> Choice {
        match self {
            Self::Userspace(_) => Choice::Userspace,
            Self::Kernel(_) => Choice::Kernel,
        }
    }

    /// Carries out a change.
    pub async fn set(&self, update: Update) -> Result<(), Error> {
        match self {
            Self::Userspace(Userspace { device, .. }) => {
                let device = Arc::clone(device);
                Ok(off_the_loop(move || device.set(update)).await??)
            }
            Self::Kernel(interface) => Ok(kernel::set(interface, update).await?),
        }
    }

    /// The interface as it is.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        match self {
            Self::Userspace(Userspace { device, .. }) => {
                let device = Arc::clone(device);
                off_the_loop(move || device.snapshot()).await
            }
            Self::Kernel(interface) => Ok(kernel::snapshot(interface).await?),
        }
    }

    /// Starts handshakes with these peers. The kernel's sessions outlive us, so nobody has to be called upon there.
    pub async fn initiate(&self, peers: Vec<PublicKey>) -> Result<(), Error> {
        match self {
            Self::Userspace(Userspace { device, .. }) => {
                let device = Arc::clone(device);
                off_the_loop(move || peers.into_iter().for_each(|peer| device.initiate(peer))).await
            }
            Self::Kernel(_) => Ok(()),
        }
    }

    /// Whether the interface was deleted, or a thread died.
    pub async fn is_gone(&self) -> bool {
        match self {
            Self::Userspace(Userspace { device, .. }) => device.is_gone(),
            Self::Kernel(interface) => matches!(link::observe(interface).await, Ok(None)),
        }
    }

    /// Which data plane it is, and what the kernel does for it: `userspace`, `tun: tso, uso`, `udp: gso, gro`.
    pub fn features(&self) -> Vec<String> {
        let features = match self {
            Self::Userspace(Userspace { device, .. }) => device.features(),
            Self::Kernel(_) => return vec!["kernel".to_owned()],
        };
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

    /// Ends it; the interface is gone when this returns.
    pub async fn end(self) -> Result<(), Error> {
        match self {
            Self::Userspace(userspace) => off_the_loop(move || drop(userspace)).await,
            Self::Kernel(interface) => Ok(kernel::remove(&interface).await.map(drop)?),
        }
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
    let carrier = Carrier::Userspace(Userspace { control, device });
    Ok(Started { carrier, problems, is_kept })
}

/// Which data plane a wish comes to on this kernel.
pub async fn choose(wanted: BackendChoice) -> Result<Choice, Error> {
    // The kernel is asked only where it matters: asking makes it load its module.
    let available = wanted != BackendChoice::Userspace && kernel::is_available().await?;
    Ok(kernel::choose(wanted, available)?)
}

/// Whether a former daemon left the interface to the kernel. One that is somebody else's is an error.
pub async fn left_for_us(interface: &InterfaceName) -> Result<bool, Error> {
    match link::observe(interface).await? {
        None => Ok(false),
        Some(link) if link.ours && link.kind.as_deref() == Some("wireguard") => Ok(true),
        Some(link) => Err(Error::Foreign { interface: interface.clone(), kind: link.kind }),
    }
}

/// What may take its time must not hold up the loop: ten thousand peers are made in half a second.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(Error::Panicked)
}
