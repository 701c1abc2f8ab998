//! Whether traffic flows: probes through the real paths of the gateway.
//!
//! The components keep rules, settings and routes as configured; this layer proves by packets that traffic gets through
//! them. It changes nothing that a component owns.
//!
//! [`engine`] decides when which path is probed and what its state is; it knows neither sockets nor clocks. [`prober`]
//! is the thread that sends what the engine asks for. [`tunnel_path`] sends nothing: it reads what the tunnel's peers
//! and counters tell. To add a kind of probe: a variant of [`Path`], and a module that
//! runs one round of it, as [`nat_path`] does.

mod blame;
mod engine;
mod interface;
mod link_path;
mod memory;
mod nat_path;
mod orders;
mod packet;
mod path;
mod prober;
mod targets;
mod tunnel_path;

pub use engine::{
    Change, Engine, INTERVAL, MISSES, Now, Outcome, PROMPT_TURNS, RETRY_INTERVAL, ROUND_TIMEOUT, TURN, WantedPath,
};
pub use memory::Proven;
pub(crate) use orders::Orders;
pub use path::{Path, PathReport, PathState};
pub(crate) use prober::Prober;
pub(crate) use tunnel_path::TunnelPaths;
