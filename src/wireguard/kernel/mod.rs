//! The WireGuard of the kernel, where it has one.
//!
//! It has the same nouns as the data plane in userspace (`bastiond_tunnel::model`), and a change means the same, but
//! nothing of ours runs: the kernel has the interface and its peers, and keeps them when the daemon ends. Links are
//! made and removed by rtnetlink (`link.rs`), everything else goes through the WireGuard family of generic
//! netlink ([`message`], [`socket`]); [`translate`] rewrites what the kernel would understand differently. Addresses,
//! routes and whether the interface is up are not this module's.

use nix::errno::Errno;

use super::link::{self, Links};
use super::model::BackendKind;
use crate::config::BackendChoice;
use crate::net::InterfaceName;
use crate::outcome::ComponentError;
use bastiond_tunnel::model::{Snapshot, Update};

pub(crate) mod message;
pub(crate) mod socket;
#[cfg(test)]
mod tests;
pub(crate) mod translate;

use socket::Connection;
use translate::Removal;

/// Why the kernel's WireGuard does not do what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This kernel has none.
    #[error("this kernel has no WireGuard")]
    Unavailable,
    /// The kernel does not say whether it has WireGuard.
    #[error("cannot ask the kernel for its WireGuard")]
    Ask(#[source] socket::Error),
    /// A link cannot be made, found or removed.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The name belongs to a link of another kind.
    #[error("{interface} is there, but no WireGuard interface of the kernel's: its kind is {kind}")]
    OtherKind {
        /// The interface name.
        interface: InterfaceName,
        /// What `ip link add` calls it.
        kind: String,
    },
    /// There is no WireGuard interface of this name.
    #[error("there is no WireGuard interface {interface} in the kernel")]
    Absent {
        /// The name that was looked up.
        interface: InterfaceName,
    },
    /// A change failed. The parts of it before the failing one have been carried out.
    #[error("cannot change the WireGuard interface {interface}")]
    Change {
        /// The interface name.
        interface: InterfaceName,
        /// The kernel's reason.
        source: socket::Error,
    },
    /// The interface cannot be read.
    #[error("cannot read the WireGuard interface {interface}")]
    Read {
        /// The interface name.
        interface: InterfaceName,
        /// The kernel's reason.
        source: socket::Error,
    },
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Unavailable => "kernel-wireguard-missing",
            Self::OtherKind { .. } => "interface-not-ours",
            Self::Link(error) => error.code(),
            _ if self.errno() == Some(Errno::EADDRINUSE) => "port-in-use",
            _ => "tunnel-failed",
        }
    }

    fn advice(&self) -> String {
        let advice = match self {
            Self::Unavailable => {
                "load the kernel's `wireguard` module (modprobe wireguard; Linux has it since 5.6), or set \
                 wireguard.backend = \"userspace\""
            }
            Self::OtherKind { .. } => {
                "another program made it, or our own data plane before: remove it (ip link del), or choose another \
                 name in wireguard.interface"
            }
            Self::Absent { .. } => "another program removed it; the daemon makes it again by itself",
            Self::Link(error) => return error.advice(),
            _ => match self.errno() {
                Some(Errno::EPERM) => "the daemon needs CAP_NET_ADMIN",
                Some(Errno::EADDRINUSE) => {
                    "another program has this UDP port: stop it, or change wireguard.listen_port"
                }
                _ => "the daemon retries by itself; if this persists, set wireguard.backend = \"userspace\"",
            },
        };
        advice.to_owned()
    }
}

impl Error {
    /// The kernel's reason, if the kernel refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Unavailable => Some(Errno::EOPNOTSUPP),
            Self::Absent { .. } => Some(Errno::ENODEV),
            Self::OtherKind { .. } => Some(Errno::EEXIST),
            Self::Link(source) => source.errno(),
            Self::Ask(source) | Self::Change { source, .. } | Self::Read { source, .. } => source.errno(),
        }
    }
}

/// Chooses by the configuration and by whether the kernel has WireGuard. `auto` takes the kernel's where there is one,
/// since then fewer parts have to run; `kernel` on a kernel without it is an error, not a silent change of data planes.
pub fn choose(wanted: BackendChoice, is_available: bool) -> Result<BackendKind, Error> {
    match (wanted, is_available) {
        (BackendChoice::Userspace, _) | (BackendChoice::Auto, false) => Ok(BackendKind::Userspace),
        (BackendChoice::Auto | BackendChoice::Kernel, true) => Ok(BackendKind::Kernel),
        (BackendChoice::Kernel, false) => Err(Error::Unavailable),
    }
}

/// Whether this kernel has WireGuard. The question makes it load the module, if there is one.
pub async fn is_available() -> Result<bool, Error> {
    Connection::open().await.map(|connection| connection.is_some()).map_err(Error::Ask)
}

/// Whether an interface had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is new, and has no configuration.
    New,
    /// It was there, with its configuration.
    Found,
}

/// Makes the interface, down and without a key, unless it is there.
pub async fn make(interface: &InterfaceName) -> Result<Made, Error> {
    let links = Links::open()?;
    let Err(refusal) = links.add_wireguard(interface).await else { return Ok(Made::New) };
    match refusal.errno() {
        Some(Errno::EEXIST) => match links.find(interface).await? {
            Some(found) if found.is_wireguard() => Ok(Made::Found),
            Some(found) => Err(other_kind(interface, &found)),
            // It was removed in between.
            None => Err(refusal.into()),
        },
        Some(Errno::EOPNOTSUPP) => Err(Error::Unavailable),
        _ => Err(refusal.into()),
    }
}

/// Removes the interface with its configuration; whether it was there. A link of another kind stays.
pub async fn remove(interface: &InterfaceName) -> Result<bool, Error> {
    let links = Links::open()?;
    match links.find(interface).await? {
        None => Ok(false),
        Some(found) if found.is_wireguard() => {
            // A link that goes with its peers waits a whole RCU grace period for each (`netif_napi_del`, without the
            // lock that makes `synchronize_net` hurry): three minutes for 10 000. Without peers it goes at once. If
            // they cannot be removed, the link still can.
            let emptied = set(interface, Update { replace_peers: true, ..Update::default() }).await;
            if let Err(error) = emptied {
                tracing::debug!(%interface, error = %crate::error::chain(&error), "the link is removed with its peers");
            }
            Ok(links.remove(interface, found.index).await?)
        }
        Some(found) => Err(other_kind(interface, &found)),
    }
}

fn other_kind(interface: &InterfaceName, found: &link::Link) -> Error {
    let kind = found.kind.clone().unwrap_or_else(|| "hardware".to_owned());
    Error::OtherKind { interface: interface.clone(), kind }
}

/// Carries out a change, with the meaning of [`Device::set`](bastiond_tunnel::Device::set). The mark and the
/// port come first: if the port cannot be bound, no peer has changed. A port is bound when the interface goes up.
pub async fn set(interface: &InterfaceName, update: Update) -> Result<(), Error> {
    let mut connection = open().await?;
    let removal = Removal::from_release(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default());
    let update = if translate::needs_snapshot(&update, removal) {
        let observed = connection.snapshot(interface).await.map_err(|source| read_error(interface, source))?;
        translate::translate(update, &observed, removal)
    } else {
        update
    };
    for message in message::changes(interface, &update, message::LIMIT) {
        connection.change(&message).await.map_err(|source| match absent(interface, &source) {
            Some(error) => error,
            None => Error::Change { interface: interface.clone(), source },
        })?;
    }
    Ok(())
}

/// The interface as it is.
pub async fn snapshot(interface: &InterfaceName) -> Result<Snapshot, Error> {
    open().await?.snapshot(interface).await.map_err(|source| read_error(interface, source))
}

async fn open() -> Result<Connection, Error> {
    Connection::open().await.map_err(Error::Ask)?.ok_or(Error::Unavailable)
}

fn read_error(interface: &InterfaceName, source: socket::Error) -> Error {
    absent(interface, &source).unwrap_or_else(|| Error::Read { interface: interface.clone(), source })
}

/// `Absent` if there is no link of the name, or one of another kind (`lookup_interface` in
/// drivers/net/wireguard/netlink.c).
fn absent(interface: &InterfaceName, error: &socket::Error) -> Option<Error> {
    let is_absent = matches!(error.errno(), Some(Errno::ENODEV | Errno::EOPNOTSUPP));
    is_absent.then(|| Error::Absent { interface: interface.clone() })
}
