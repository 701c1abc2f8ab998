//! The control socket: what `bastionctl` asks of the running daemon.
//!
//! One request and one response a connection, each a line of JSON. The socket's mode is all the access control there is
//! (root and the daemon's own group), so it decides nothing: it hands requests to the loop.

pub(crate) mod client;
mod protocol;
mod server;

pub use protocol::parse_request;
pub(crate) use protocol::{Request, Response};
pub(crate) use server::{Call, Error, Server};

/// The socket's name in the runtime directory.
pub(crate) const SOCKET: &str = "control.sock";
