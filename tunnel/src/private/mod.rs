//! The data plane as a process with nothing: no file, no capability, no network of its own. A daemon makes the
//! interface and the sockets, and passes them on by a private socket; keys and peers come by UAPI, as they do from
//! wg(8).
//!
//! ```text
//! daemon                                          bastiond-tunnel --controlled
//!   ├─ private socket: Request ──► Answer ──────────┤  what UAPI has not: descriptors, whom it refuses, handshakes
//!   ├─ UAPI stream ─────────────────────────────────┤  private keys, peers, port, mark
//!   └─ supply:         Given ◄── Ask ───────────────┘  sockets for another port or mark
//! ```
//!
//! The daemon connects to the private socket and sends the far ends of the other two ([`Request::Attach`]). When it
//! ends, however that happens, the process carries packets on, and the next daemon connects again.
//!
//! The parsers of both sides are in [`message`]; the daemon's side of the connections is [`Remote`], the process is
//! [`run`].

mod connection;
pub mod message;
mod process;
mod remote;
mod supply;
#[cfg(test)]
mod tests;

pub use connection::{Connection, listen_at};
pub use message::{Answer, Ask, Given, Request, State};
pub use process::{Error, run};
pub use remote::{Descriptors, Remote, RemoteError};
pub use supply::answer;
