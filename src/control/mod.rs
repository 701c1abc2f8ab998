//! The control socket: what `bastionctl` asks of the running daemon.
//!
//! A connection carries one request and one response, each a line of JSON. The mode of the socket is the access
//! control: root and members of the daemon's group may connect. Requests are passed to the event loop, which decides.

pub(crate) mod client;
mod protocol;
mod server;

pub use protocol::parse_request;
pub(crate) use protocol::{MAX_REQUEST, Plan, Request, Response};
pub(crate) use server::{Call, Error, Server};

/// The socket's name in the runtime directory.
pub(crate) const SOCKET: &str = "control.sock";
