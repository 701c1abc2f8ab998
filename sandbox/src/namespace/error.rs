//! Errors of operations in a namespace.

use std::io;
use std::net::SocketAddr;

/// Why an operation in a namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process is not isolated, so the machine's own mounts would change.
    #[error("cannot create the namespace {name}: the process is not isolated; call isolation::enter() first")]
    NotIsolated {
        /// The name of the namespace.
        name: String,
    },
    /// The namespace could not be created or named.
    #[error("failed to {operation} the namespace {name}")]
    Create {
        /// The name of the namespace.
        name: String,
        /// The step that failed.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A program did not start.
    #[error("failed to start {program} in {namespace}")]
    Start {
        /// The namespace.
        namespace: String,
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// A program exited with an error.
    #[error("{program} failed in {namespace}: {stderr}\nits input was:\n{input}")]
    Refused {
        /// The namespace.
        namespace: String,
        /// The program.
        program: String,
        /// The program's standard input.
        input: String,
        /// The program's standard error.
        stderr: String,
    },
    /// The output of a program could not be parsed.
    #[error("the output of {program} in {namespace} is not the expected JSON")]
    Answer {
        /// The namespace.
        namespace: String,
        /// The program.
        program: String,
        /// Where parsing failed.
        source: serde_json::Error,
    },
    /// A sysctl could not be read or written.
    #[error("failed to {operation} the sysctl {key} in {namespace}")]
    Sysctl {
        /// The namespace.
        namespace: String,
        /// The sysctl's key.
        key: String,
        /// `read` or `write`.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A socket could not be bound.
    #[error("failed to listen on {address} in {namespace}")]
    Listen {
        /// The namespace.
        namespace: String,
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}
