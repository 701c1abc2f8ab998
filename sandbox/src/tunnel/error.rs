//! Errors of WireGuard interfaces.

use std::io;
use std::path::PathBuf;

/// Why an interface does not exist or does not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("{} is not installed: {hint}", path.display())]
    Missing {
        /// The path of the program.
        path: PathBuf,
        /// How to install it.
        hint: &'static str,
    },
    /// A program cannot be started.
    #[error("failed to start {program}")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// The interface's process has ended, or does not listen.
    #[error("{interface} {what}; its log:\n{log}")]
    NotRunning {
        /// The name of the interface.
        interface: String,
        /// What is wrong.
        what: String,
        /// Everything that the process logged.
        log: String,
    },
    /// `wg` failed.
    #[error("wg {arguments}: {message}")]
    Refused {
        /// The arguments of `wg`.
        arguments: String,
        /// Its exit status and standard error.
        message: String,
    },
    /// The output of `wg show INTERFACE dump` cannot be parsed.
    #[error("cannot parse the output of wg: {line}")]
    UnreadableDump {
        /// The line, without the field that may be a private key.
        line: String,
    },
}
