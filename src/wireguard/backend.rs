//! What carries the tunnel's packets, behind one interface: our own data plane in a process of its own, or the
//! WireGuard of the kernel. Both outlive the daemon.

use std::fmt;

use futures::future::BoxFuture;
use nix::errno::Errno;

use super::held::Held;
use super::kernel;
use super::link;
use super::model::BackendKind;
use super::process;
use crate::config::BackendChoice;
use crate::net::InterfaceName;
use crate::outcome::ComponentError;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::{Refused, Snapshot, Update};
use bastiond_tunnel::private::RemoteError;
use bastiond_tunnel::{tun, uapi, udp};

/// An interface that carries packets.
pub(super) trait Backend: fmt::Debug + Send + Sync {
    /// Which data plane it is.
    fn kind(&self) -> BackendKind;

    /// Carries out a change.
    fn set(&self, update: Update) -> BoxFuture<'_, Result<(), Error>>;

    /// The interface as it is.
    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, Error>>;

    /// What was refused from the outside; `None` if the data plane does not tell.
    fn refused(&self) -> BoxFuture<'_, Result<Option<Refused>, Error>>;

    /// Starts handshakes with these peers, if sessions end with the data plane's process.
    fn initiate_handshakes(&self, peers: Vec<PublicKey>) -> BoxFuture<'_, Result<(), Error>>;

    /// Whether the interface was deleted, or a thread ended.
    fn is_gone(&self) -> BoxFuture<'_, bool>;

    /// The data plane and what the kernel does for it, for the status: `userspace`, `tun: tso, uso`, `udp: gso, gro`.
    fn features(&self) -> Vec<String>;

    /// Copies of the descriptors with which another process can go on; none if the kernel has the interface.
    fn held(&self) -> Held;

    /// Waits for the end of the data plane's process; for ever if it has none.
    fn ended(&self) -> BoxFuture<'static, ()>;

    /// Ends it. The interface is gone when this returns, unless something else holds its descriptors.
    fn stop(self: Box<Self>) -> BoxFuture<'static, Result<(), Error>>;
}

/// What a data plane needs to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// The interface that it creates.
    pub interface: InterfaceName,
    /// Which data plane starts.
    pub kind: BackendKind,
    /// Its UDP port, from 1. If it is not free, nothing starts.
    pub listen_port: u16,
    /// The mark of its packets (`SO_MARK`); 0 is none.
    pub fwmark: u32,
    /// The interface's MTU, in bytes.
    pub mtu: u32,
    /// Whether a former daemon left the interface to the kernel. Then the kernel's data plane continues with it, and
    /// our own replaces it.
    pub is_left_in_kernel: bool,
}

/// The choice of the configuration, which another kernel may decide differently.
pub(super) fn choose(wanted: BackendChoice, kernel_has_wireguard: bool) -> Result<BackendKind, Error> {
    Ok(kernel::choose(wanted, kernel_has_wireguard)?)
}

/// Why no data plane carries packets, or a change is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no TUN interface.
    #[error(transparent)]
    Tun(#[from] tun::Error),
    /// Its MTU cannot be set.
    #[error("cannot set the MTU of {interface} to {mtu}")]
    Mtu {
        interface: InterfaceName,
        mtu: u32,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// There are no sockets.
    #[error(transparent)]
    Socket(#[from] udp::Error),
    /// The interface gets no owner.
    #[error("cannot give {interface} to the user of the tunnel's process")]
    Owner {
        interface: InterfaceName,
        /// The kernel's reason.
        source: std::io::Error,
    },
    /// There is no process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The process does not do what is wanted.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// It does not take a change, or does not tell what it has.
    #[error(transparent)]
    Uapi(#[from] uapi::ClientError),
    /// It is of another version, also after a new start.
    #[error("the program bastiond-tunnel is of another version than bastiond")]
    Version,
    /// It was stopped.
    #[error("the tunnel's process has ended")]
    Ended,
    /// A descriptor cannot be copied, or a thread not be started.
    #[error("the kernel gives no descriptor or thread")]
    Copy(#[source] std::io::Error),
    /// The kernel's data plane refuses.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The link cannot be read, marked or set up.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// A task panicked: a bug.
    #[error("a task of the tunnel panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            _ if self.is_port_in_use() => "port-in-use",
            Self::Kernel(error) => error.code(),
            Self::Link(error) => error.code(),
            _ => "tunnel-failed",
        }
    }

    fn advice(&self) -> String {
        let advice = match self {
            Self::Tun(error) => error.advice(),
            _ if self.is_port_in_use() => {
                "another program has this port (ss -ulnp): stop it, or choose another wireguard.listen_port"
            }
            Self::Mtu { .. } | Self::Owner { .. } | Self::Socket(_) => {
                "the daemon needs CAP_NET_ADMIN; it retries by itself"
            }
            Self::Process(error) => return error.advice(),
            Self::Version => "install bastiond and bastiond-tunnel of one version",
            Self::Remote(_) | Self::Uapi(_) | Self::Ended | Self::Copy(_) => {
                "the daemon retries by itself; journalctl -u bastiond-tunnel has the process's own words"
            }
            Self::Kernel(error) => return error.advice(),
            Self::Link(error) => return error.advice(),
            Self::Panicked(_) => "this is a bug; the daemon retries by itself",
        };
        advice.to_owned()
    }
}

impl Error {
    fn is_port_in_use(&self) -> bool {
        match self {
            Self::Socket(udp::Error::Bind { source, .. }) => source.kind() == std::io::ErrorKind::AddrInUse,
            Self::Uapi(error) => error.errno() == Some(Errno::EADDRINUSE),
            _ => false,
        }
    }
}
