//! Network namespaces connected like a Hetzner network, and a fake Hetzner Cloud whose routes the packets follow.

pub mod cloud;
pub mod daemon;
pub mod isolation;
pub mod namespace;
pub mod star;
pub mod timeouts;
pub mod traffic;
pub mod tunnel;
pub mod world;
