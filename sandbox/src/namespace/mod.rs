//! One network namespace: create it, run programs in it, configure it with `ip`, `nft` and sysctls.
//!
//! Inside the isolation it has the path `/run/netns/<name>`, so `ip netns exec <name>` works.

mod command;
mod enter;
mod error;
mod links;
mod netns;

pub use command::Command;
pub use error::Error;
pub use links::Link;
pub use netns::Namespace;
