//! The data plane as a program: it does what `wireguard-go wg0` does, with its command line and its environment, so
//! that wg-quick(8) can run it in its place.
//!
//! ```text
//! foreground      opens the interface and its control socket, and reports what is wrong
//! └─ background   the same program again, with these descriptors: it carries packets, and reports when it does
//! ```
//!
//! It is started again, not forked: a forked process has only one of its threads.

mod background;
mod end;
mod environment;
mod log;
mod peers;
mod privileges;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread;

pub use environment::{Descriptors, Environment};

use crate::cli::BastiondTunnel;
use crate::device::tun::{self, TunInterface};
use crate::device::{self, Device, queues_for};
use crate::interface::InterfaceName;
use crate::private;
use crate::uapi;
use background::Ready;
use end::End;
use peers::PeerLog;
use tracing::Level;

/// The MTU, in bytes, until wg-quick(8) or `ip link` changes it: a path of 1500 bytes, less the headers of IPv6, UDP
/// and WireGuard (80). wireguard-go starts with the same.
const MTU: usize = 1420;

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable of the environment has a wrong value.
    #[error("{variable} is `{value}`, which is not {expected}")]
    Variable {
        /// The variable's name.
        variable: &'static str,
        /// The value that it has.
        value: String,
        /// What it has to be.
        expected: &'static str,
    },
    /// A descriptor that the environment names is not open, or not handed over.
    #[error("{variable} names a descriptor that is not open")]
    Descriptor {
        /// The variable's name.
        variable: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A descriptor that the environment names is no control socket.
    #[error("{variable} names {found}; it has to be a listening Unix socket (or unset: then one is made)")]
    ControlDescriptor {
        /// The variable's name.
        variable: &'static str,
        /// What it is instead.
        found: &'static str,
    },
    /// The descriptors that the environment names are not the interface.
    #[error(
        "WG_TUN_FD has to name the queues of a TUN interface with the tunnel's name (or be unset: then one is made)"
    )]
    TunDescriptor(#[source] tun::Error),
    /// There is no TUN interface.
    #[error("no interface ({})", .0.advice())]
    Tun(#[source] tun::Error),
    /// There is no control socket.
    #[error(transparent)]
    Control(#[from] uapi::Error),
    /// The data plane does not start.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The daemon's tunnel ends.
    #[error(transparent)]
    Controlled(#[from] private::Error),
    /// An event that ends the tunnel cannot be watched.
    #[error("cannot watch the {what}")]
    Watch {
        /// `signals`, `control socket` or `interface`.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It cannot be started again in the background.
    #[error("cannot go to the background")]
    Background {
        /// The kernel's reason.
        source: io::Error,
    },
    /// It was started in the background, and ended there.
    #[error("in the background: {reason}")]
    BackgroundFailed {
        /// The error message of the background process.
        reason: String,
    },
}

/// Runs the tunnel to its end, or starts it in the background and returns when it runs there.
pub fn run(arguments: &BastiondTunnel, environment: Environment) -> Result<(), Error> {
    let Environment { foreground, log_level, descriptors } = environment;
    let Some(interface) = &arguments.interface else { return run_controlled(log_level) };
    let Descriptors { tun, control, ready } = descriptors;
    if let Some(level) = log_level {
        log::start(level);
    }
    let ready = Ready::new(ready)?;
    let started = open(interface, tun, control).and_then(|(tun, listener)| {
        if foreground || arguments.foreground || ready.is_background() {
            serve(tun, listener, &ready)
        } else {
            background::start(&tun, &listener).inspect_err(|_| uapi::discard(&listener))
        }
    });
    started.inspect_err(|error| ready.failed(error))
}

/// Carries the packets of a daemon's tunnel. The private socket is standard input, as systemd passes a socket
/// (`StandardInput=socket`).
fn run_controlled(log_level: Option<Level>) -> Result<(), Error> {
    if let Some(level) = log_level {
        log::start(level);
    }
    privileges::give_up().map_err(private::Error::Kernel)?;
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(private::Error::Listener)?;
    Ok(private::run(&listener)?)
}

/// Opens the interface first: one process has its name, so that no other one uses its socket.
fn open(
    name: &InterfaceName,
    tun: Vec<OwnedFd>,
    control: Option<UnixListener>,
) -> Result<(TunInterface, UnixListener), Error> {
    let tun = if tun.is_empty() {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let tun = TunInterface::open(name.as_str(), queues_for(cores)).map_err(Error::Tun)?;
        if let Err(error) = tun.set_mtu(MTU) {
            tracing::warn!(%error, "{name} keeps the MTU that the kernel gave it");
        }
        tun
    } else {
        TunInterface::adopt(name.as_str(), tun).map_err(Error::TunDescriptor)?
    };
    let listener = match control {
        Some(listener) => listener,
        None => uapi::bind(Path::new(uapi::DIRECTORY), name)?,
    };
    Ok((tun, listener))
}

/// Carries packets until something ends it.
fn serve(tun: TunInterface, listener: UnixListener, ready: &Ready) -> Result<(), Error> {
    let started = End::watch(&listener).and_then(|end| Ok((end, Device::start(tun)?)));
    let (end, device) = started.inspect_err(|_| uapi::discard(&listener))?;
    let device = Arc::new(device);
    let server = uapi::Server::from_listener(listener, Arc::<Device>::clone(&device))?;
    ready.report_running();
    tracing::info!(features = ?device.features(), "{} runs", device.name());
    let mut peers = PeerLog::default();
    let reason = end.wait(&device, || peers.check(&device))?;
    tracing::info!("{} ends: {reason}", device.name());
    drop(server);
    Ok(())
}
