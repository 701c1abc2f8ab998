//! Whether traffic flows: probes through the real paths of the gateway.
//!
//! The components keep rules, settings and routes as configured; this layer proves by packets that traffic gets through
//! them. It changes nothing that a component owns.
//!
//! [`engine`] decides when which path is probed and what its state is; it knows neither sockets nor clocks. To add a
//! kind of probe: a variant of [`Path`], and a task that runs a round for each path that the engine starts.

mod engine;
mod memory;
mod path;

pub use engine::{Change, Engine, INTERVAL, MISSES, Now, Outcome, RETRY_INTERVAL, ROUND_TIMEOUT, WantedPath};
pub use memory::Proven;
pub use path::{Path, PathReport, PathState};
