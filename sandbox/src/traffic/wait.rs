//! Blocking sockets that return now and then, so that their threads can see that they should stop.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long a thread waits for packets before it checks whether it should stop.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Limits every wait on a socket, `accept` included, to [`POLL_INTERVAL`].
pub(super) fn set_poll_interval(socket: &impl AsFd) -> io::Result<()> {
    let timeout = TimeVal::milliseconds(i64::try_from(POLL_INTERVAL.as_millis()).expect("50 ms fit into 64 bits"));
    Ok(setsockopt(socket, sockopt::ReceiveTimeout, &timeout)?)
}

/// Gives a receiver room for what arrives while its thread waits for a processor: 16 MiB, or as much as the machine's
/// limit allows.
pub(super) fn widen_receive_buffer(socket: &impl AsFd) -> io::Result<()> {
    const SIZE: usize = 16 << 20;
    // Refused without CAP_NET_ADMIN over the machine.
    if setsockopt(socket, sockopt::RcvBufForce, &SIZE).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &SIZE)?;
    }
    Ok(())
}

/// Whether a wait ended only because [`POLL_INTERVAL`] was over.
pub(super) fn is_poll_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
