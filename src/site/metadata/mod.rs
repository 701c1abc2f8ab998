//! The server's metadata service: the private networks that this server is attached to, and its number.
//!
//! The list changes at run time: a network that is attached later appears in it. A separate task polls the service, so
//! that a service that hangs never delays a repair. The last answer stays valid until the next one.

mod client;
mod watcher;

#[cfg(test)]
pub(crate) use client::Metadata;
pub use client::parse_private_networks;
pub(crate) use client::{Doubt, Failure, MetadataView, PrivateNetwork};
pub(crate) use watcher::Watcher;
