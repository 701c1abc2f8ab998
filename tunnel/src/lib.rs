//! A WireGuard interface in userspace.
//!
//! A [`Device`] carries packets between a TUN interface and UDP sockets, around boringtun's protocol core; [`uapi`] is
//! the control socket that wg(8) uses; [`model`] holds the nouns of both: an [`Update`](model::Update) goes in, a
//! [`Snapshot`](model::Snapshot) comes out. [`mod@file`] reads the configuration files of wg(8) and wg-quick(8).
//! [`standalone`] is the program `bastiond-tunnel`, which does what `wireguard-go` does; [`private`] is the same
//! program as the data plane of a daemon, which gives it everything.
//!
//! This crate knows nothing of the daemon that uses it.

pub mod cli;
mod device;
pub mod endpoint;
pub mod error;
pub mod file;
pub mod inherited;
pub mod interface;
pub mod key;
pub mod model;
pub mod private;
pub mod standalone;
mod syntax;
mod sys;
pub mod uapi;
pub mod watch;

pub use device::{Device, Error as DeviceError, Features, packet, probes, queues_for, tun, udp};

/// What tests and fuzz targets use besides the interface of the crate. It may change at any time.
#[doc(hidden)]
pub mod internals {
    pub use crate::device::{clock, coalesce, ecn, icmp, message, packet, segment, simulation, table};
    pub use crate::uapi::answer::format_get;
    pub use crate::uapi::client::Reader;
    pub use crate::uapi::request::{Parser, Reason, Refused, Request, parse_set};
}
