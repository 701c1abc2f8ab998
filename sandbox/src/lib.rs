//! A world of network namespaces shaped like a Hetzner network, with a fake Hetzner Cloud whose routes steer the packets.

pub mod cloud;
pub mod daemon;
pub mod enclave;
pub mod namespace;
pub mod patience;
pub mod star;
pub mod traffic;
pub mod tunnel;
pub mod world;
