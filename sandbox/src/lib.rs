//! A world of network namespaces shaped like a Hetzner network, with a fake Hetzner Cloud whose routes steer the packets.

pub mod cloud;
pub mod daemon;
pub mod isolation;
pub mod namespace;
pub mod star;
pub mod timeouts;
pub mod traffic;
pub mod tunnel;
pub mod world;
