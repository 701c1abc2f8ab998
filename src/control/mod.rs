//! The control socket: what `bastionctl` asks of the running daemon.
//!
//! A connection carries one request and one response, each a line of JSON. The modes of the sockets are the access
//! control: root and members of the daemon's group may connect to the one for every request, members of a monitoring
//! group to a second one, at which the status may be read and nothing else. Requests are passed to the event loop,
//! which decides.

pub(crate) mod client;
mod protocol;
mod server;

pub use protocol::Request;
pub use protocol::parse_request;
pub(crate) use protocol::{MAX_REQUEST, Plan, Response};
pub use server::read_request;
pub(crate) use server::{Access, Call, Error, LOOK_ONLY, Server};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The socket's name in the runtime directory.
pub(crate) const SOCKET: &str = "control.sock";

/// The socket for those who may only look. It is beside the runtime directory, which they may not enter:
/// `/run/bastiond-monitor/status.sock`. The package makes its directory, and gives it to the group.
pub(crate) fn monitor_socket(runtime_directory: &Path) -> PathBuf {
    let mut directory: OsString = runtime_directory.to_owned().into();
    directory.push("-monitor");
    Path::new(&directory).join("status.sock")
}
