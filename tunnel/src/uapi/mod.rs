//! The control socket of a WireGuard interface: the cross-platform configuration protocol that wg(8), wg-quick(8) and
//! others use with a userspace implementation (<https://www.wireguard.com/xplatform/>).
//!
//! It owns the socket and the protocol, and makes no decisions: a valid request becomes one [`Update`] for the
//! [`Interface`], completely or not at all. Parsing and formatting are pure (`request`, `answer`).
//!
//! The socket's mode, 0600, is the only access control: root and the socket's owner may connect, and every client may
//! read the private key. That is the protocol's own rule.

pub(crate) mod answer;
pub(crate) mod client;
mod clients;
mod lines;
pub(crate) mod request;
mod server;
mod socket;
#[cfg(test)]
mod tests;

use nix::errno::Errno;

pub use client::{Client, Error as ClientError};
pub use request::{Refused, parse_set};
pub use server::{Server, serve_stream};
pub use socket::{DIRECTORY, Error, Watch, bind, discard, remove_stale};

use crate::model::{Snapshot, Update};

/// The interface behind the socket.
pub trait Interface: Send + Sync {
    /// Carries out a change; several threads call it. The client gets the number of an error, and what was changed
    /// before it stays, as in the kernel. A peer with the interface's own public key is skipped, as the kernel does:
    /// users of wg(8) share one file of peers among all of them.
    fn set(&self, update: Update) -> Result<(), Errno>;

    /// The interface as it is now.
    fn snapshot(&self) -> Snapshot;

    /// The number of a network interface: wg(8) writes the scope of a link-local endpoint by name.
    fn scope_of(&self, interface: &str) -> Option<u32> {
        nix::net::if_::if_nametoindex(interface).ok()
    }
}
