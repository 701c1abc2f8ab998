//! WireGuard interfaces that programs in userspace run: ours and those of other projects. A test starts them in a
//! namespace, and configures and inspects them with the standard tool `wg`.

mod error;
mod interface;
mod program;
mod status;

pub use error::Error;
pub use interface::Interface;
pub use program::Program;
pub use status::{InterfaceStatus, Peer};
