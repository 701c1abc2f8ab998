//! The tunnel: one WireGuard interface, its peers, and the data plane that carries their packets.

pub mod device;
pub mod endpoint;
pub mod file;
pub mod kernel;
pub mod key;
pub mod model;
pub mod standalone;
mod syntax;
