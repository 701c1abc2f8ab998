//! The control socket of a WireGuard interface: the cross-platform configuration protocol that wg(8), wg-quick(8) and others
//! speak to a userspace implementation (<https://www.wireguard.com/xplatform/>).
//!
//! It owns the socket and the words on it, and decides nothing: a request that makes sense is one [`Update`] for the
//! [`Interface`], whole or not at all. Reading and writing the words is pure ([`request`], [`answer`]).
//!
//! The socket's mode, 0600, is all the access control there is: root and the socket's owner may speak, and whoever may
//! speak may read the private key. That is the protocol's own rule.

pub mod answer;
mod lines;
pub mod request;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use nix::errno::Errno;

pub use request::{Refused, parse_set};
pub use server::Server;
pub use socket::{DIRECTORY, Error, Watch, bind, discard};

use crate::model::{Snapshot, Update};

/// What the socket speaks for.
pub trait Interface: Send + Sync {
    /// Carries out a change; callers come from several threads. An error is told to the client by its number, and what was
    /// done until then stays, as in the kernel. A peer with the interface's own public key is passed over, as the kernel
    /// does it: wg(8) users share one file of peers among all of them.
    fn set(&self, update: Update) -> Result<(), Errno>;

    /// The interface as it is now.
    fn snapshot(&self) -> Snapshot;
}
