//! The other data plane: the kernel's own WireGuard, where there is one.
//!
//! The same nouns as [`device`](bastiond_tunnel::device), and the same meaning of a change, but nothing of ours runs: the kernel has the
//! interface and its peers, and keeps them when the daemon ends. Links are made and removed by rtnetlink (`link`), all else
//! is said in the WireGuard family of generic netlink ([`message`], [`socket`]); [`plan`] puts what the kernel would
//! understand otherwise into other words. Addresses, routes and whether the interface is up are not this module's.

use std::io;

use nix::errno::Errno;

use crate::config::BackendChoice;
use crate::net::InterfaceName;
use bastiond_tunnel::model::{Snapshot, Update};

mod link;
pub mod message;
pub mod plan;
pub mod socket;
#[cfg(test)]
mod tests;

use link::Links;
use plan::Removal;
use socket::Conversation;

/// Why the kernel's WireGuard does not do what it shall.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("this kernel has no WireGuard")]
    Unavailable,
    /// The kernel cannot be asked whether there is one.
    #[error("cannot ask the kernel for its WireGuard")]
    Ask(#[source] socket::Error),
    /// There is no socket to ask for links.
    #[error("cannot open a route netlink socket")]
    Open(#[source] io::Error),
    /// A link cannot be made, looked for or removed.
    #[error("cannot {step} the interface {interface}")]
    Link {
        /// `make`, `look for` or `remove`.
        step: &'static str,
        /// Which.
        interface: InterfaceName,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// The name belongs to something else.
    #[error("{interface} is there, but no WireGuard interface of the kernel's: its kind is {kind}")]
    OtherKind {
        /// The name.
        interface: InterfaceName,
        /// What it is, as `ip link add` calls it.
        kind: String,
    },
    /// There is no WireGuard interface of this name.
    #[error("there is no WireGuard interface {interface} in the kernel")]
    Absent {
        /// The name.
        interface: InterfaceName,
    },
    /// A change failed. What stood before the failing part in it has been carried out.
    #[error("cannot change the WireGuard interface {interface}")]
    Change {
        /// Which.
        interface: InterfaceName,
        /// Why.
        source: socket::Error,
    },
    /// The interface cannot be read.
    #[error("cannot read the WireGuard interface {interface}")]
    Read {
        /// Which.
        interface: InterfaceName,
        /// Why.
        source: socket::Error,
    },
}

impl Error {
    /// What the operator can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Unavailable => {
                "load the kernel's `wireguard` module (modprobe wireguard; Linux has it since 5.6), or set \
                 wireguard.backend = \"userspace\""
            }
            Self::OtherKind { .. } => {
                "another program made it, or our own data plane before: remove it (ip link del), or choose another name \
                 in wireguard.interface"
            }
            Self::Absent { .. } => "somebody removed it; made again by itself",
            _ => match self.errno() {
                Some(Errno::EPERM) => "the daemon needs CAP_NET_ADMIN",
                Some(Errno::EADDRINUSE) => {
                    "another program has this UDP port: stop it, or change wireguard.listen_port"
                }
                _ => "tried again by itself; if it stays, set wireguard.backend = \"userspace\"",
            },
        }
    }

    /// The kernel's reason, if it was the kernel who refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Unavailable => Some(Errno::EOPNOTSUPP),
            Self::Absent { .. } => Some(Errno::ENODEV),
            Self::OtherKind { .. } => Some(Errno::EEXIST),
            Self::Open(source) => source.raw_os_error().map(Errno::from_raw),
            Self::Link { source, .. } => link::errno(source),
            Self::Ask(source) | Self::Change { source, .. } | Self::Read { source, .. } => source.errno(),
        }
    }
}

/// Which data plane carries the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Our own, [`device`](bastiond_tunnel::device).
    Userspace,
    /// The kernel's.
    Kernel,
}

/// Chooses by the configuration and by whether the kernel has WireGuard. `auto` takes the kernel's where there is one, since
/// then fewer parts have to run; `kernel` on a kernel without is an error, not a silent change of data planes.
pub fn choose(wanted: BackendChoice, available: bool) -> Result<Choice, Error> {
    match (wanted, available) {
        (BackendChoice::Userspace, _) | (BackendChoice::Auto, false) => Ok(Choice::Userspace),
        (BackendChoice::Auto | BackendChoice::Kernel, true) => Ok(Choice::Kernel),
        (BackendChoice::Kernel, false) => Err(Error::Unavailable),
    }
}

/// Whether this kernel has WireGuard. Asking makes it load the module, if there is one.
pub async fn is_available() -> Result<bool, Error> {
    Conversation::open().await.map(|conversation| conversation.is_some()).map_err(Error::Ask)
}

/// Whether an interface had to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was.
    New,
    /// It was there, with all that was configured in it.
    Found,
}

/// Makes the interface, down and without a key, unless it is there.
pub async fn make(interface: &InterfaceName) -> Result<Made, Error> {
    let links = Links::open().map_err(Error::Open)?;
    let failed = |step, source| Error::Link { step, interface: interface.clone(), source };
    match links.add(interface).await {
        Ok(()) => Ok(Made::New),
        Err(refusal) => match link::errno(&refusal) {
            Some(Errno::EEXIST) => match links.find(interface).await.map_err(|source| failed("look for", source))? {
                Some(found) if found.is_wireguard() => Ok(Made::Found),
                Some(found) => Err(Error::OtherKind { interface: interface.clone(), kind: found.kind() }),
                // Gone again since.
                None => Err(failed("make", refusal)),
            },
            Some(Errno::EOPNOTSUPP) => Err(Error::Unavailable),
            _ => Err(failed("make", refusal)),
        },
    }
}

/// Removes the interface with all that is configured in it; whether it was there. A link of another kind is left alone.
pub async fn remove(interface: &InterfaceName) -> Result<bool, Error> {
    let links = Links::open().map_err(Error::Open)?;
    let failed = |step, source| Error::Link { step, interface: interface.clone(), source };
    match links.find(interface).await.map_err(|source| failed("look for", source))? {
        None => Ok(false),
        Some(found) if found.is_wireguard() => {
            // A link that goes with its peers waits a whole RCU grace period for each (`netif_napi_del`, without the lock that
            // makes `synchronize_net` hurry): three minutes for 10 000. Without peers it goes at once. If they cannot be taken
            // away, the link still can.
            let emptied = set(interface, Update { replace_peers: true, ..Update::default() }).await;
            if let Err(error) = emptied {
                tracing::debug!(%interface, error = %crate::error::chain(&error), "the peers go with the link");
            }
            links.remove(&found).await.map_err(|source| failed("remove", source))
        }
        Some(found) => Err(Error::OtherKind { interface: interface.clone(), kind: found.kind() }),
    }
}

/// Carries out a change, as [`Device::set`](bastiond_tunnel::device::Device::set) does. The mark and the port come first: if the port
/// cannot be bound, no peer has changed. A port is bound when the interface goes up.
pub async fn set(interface: &InterfaceName, update: Update) -> Result<(), Error> {
    let mut conversation = open().await?;
    let removal = Removal::of_release(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default());
    let update = if plan::wants_a_look(&update, removal) {
        let observed = conversation.snapshot(interface).await.map_err(|source| read_error(interface, source))?;
        plan::plan(update, &observed, removal)
    } else {
        update
    };
    for message in message::changes(interface, &update, message::LIMIT) {
        conversation.change(&message).await.map_err(|source| match absent(interface, &source) {
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

async fn open() -> Result<Conversation, Error> {
    Conversation::open().await.map_err(Error::Ask)?.ok_or(Error::Unavailable)
}

fn read_error(interface: &InterfaceName, source: socket::Error) -> Error {
    absent(interface, &source).unwrap_or_else(|| Error::Read { interface: interface.clone(), source })
}

/// No link of the name, or one of another kind (`lookup_interface` in drivers/net/wireguard/netlink.c).
fn absent(interface: &InterfaceName, error: &socket::Error) -> Option<Error> {
    let is_absent = matches!(error.errno(), Some(Errno::ENODEV | Errno::EOPNOTSUPP));
    is_absent.then(|| Error::Absent { interface: interface.clone() })
}
