//! WireGuard interfaces that are programs: ours and other people's, started in a namespace, and told what to do and asked how
//! they are by the real `wg`.

mod interface;
mod program;
mod shown;

use std::io;
use std::path::PathBuf;

pub use interface::Interface;
pub use program::Program;
pub use shown::{InterfaceStatus, Peer};

/// Why there is no interface, or it does not do as it is told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("there is no {}: {hint}", path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// How to get it.
        hint: &'static str,
    },
    /// A program cannot be started.
    #[error("failed to start {program}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The interface's process has ended, or does not listen.
    #[error("{interface} {what}; its last words:\n{log}")]
    Dead {
        /// Which interface.
        interface: String,
        /// What is wrong.
        what: String,
        /// What it said.
        log: String,
    },
    /// `wg` refused.
    #[error("wg {arguments}: {complaint}")]
    Refused {
        /// What it was told.
        arguments: String,
        /// What it said.
        complaint: String,
    },
    /// `wg` printed something that is not understood.
    #[error("wg printed something strange: {line}")]
    Strange {
        /// What.
        line: String,
    },
}
