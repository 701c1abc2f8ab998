//! The tunnel: one WireGuard interface, its peers, and the data plane that carries their packets.
//!
//! Ours is the interface that the configuration names, for as long as the daemon runs: a link of that name that somebody else
//! made is left alone, and told. Its addresses and routes are the routes room's, its rules the nat room's. The configuration is
//! the truth: what `wg set` changes is changed back by the next pass, but where a peer is, is the peer's own business.

pub mod carrier;
pub mod handover;
pub mod kernel;
pub mod keyfile;
pub mod link;
pub mod memory;
pub mod names;
pub mod plan;
mod room;
mod running;
pub mod status;

pub use room::{Error, Event, Wireguard};
