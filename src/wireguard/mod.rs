//! The tunnel: one WireGuard interface, its peers, and the data plane that carries their packets.

pub mod device;
pub mod endpoint;
pub mod kernel;
pub mod key;
mod syntax;
