//! The one socket by which the kernel tells of flows that are born and that end. Blocking, for a thread of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::counts::{Counts, FlowEvent, Happened};
use super::message;
use crate::conntrack::socket::{ConntrackSocket, Error};

/// The multicast groups: births and ends. Not `NFNLGRP_CONNTRACK_UPDATE`: each flow has several of these.
const GROUPS: [i32; 2] = [libc::NFNLGRP_CONNTRACK_NEW, libc::NFNLGRP_CONNTRACK_DESTROY];
/// Bytes that may wait to be read. An event takes a kilobyte there, so a thread that is held up for a tenth of a second
/// misses nothing at half a million flows a second.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Bytes of one event, and more: the kernel sends each in a datagram of its own.
const DATAGRAM: usize = 16 * 1024;
/// How many events are taken before decisions are made.
const BATCH: usize = 20_000;

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// Nothing more waits.
    All,
    /// More waits.
    Some,
    /// Events were lost, because the buffer was full.
    Lost,
}

/// A socket with both groups.
pub(super) struct Listener {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Listener {
    /// Subscribes. The kernel loads its module if it has to.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // A connected netlink socket receives messages from the kernel only.
        socket.connect(&SocketAddr::new(0, 0))?;
        // In a container the size is limited by net.core.rmem_max.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        for group in GROUPS {
            socket.add_membership(group.unsigned_abs())?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Waits until an event waits, or `wake` can be read, for so long at most. Returns which of them.
    pub(super) fn wait(&self, wake: BorrowedFd<'_>, time: Duration) -> io::Result<(bool, bool)> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN), PollFd::new(wake, PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok((is_ready(&fds[0]), is_ready(&fds[1])))
    }

    /// Takes the events that wait.
    pub(super) fn drain(&mut self, mut take: impl FnMut(FlowEvent)) -> io::Result<Drained> {
        for _ in 0..BATCH {
            match self.socket.recv(&mut self.buffer.as_mut_slice(), 0) {
                Ok(length) => {
                    let read = message::for_each_event(&self.buffer[..length], &mut take);
                    read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Drained::All),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Drained::Lost),
                Err(error) => return Err(error),
            }
        }
        Ok(Drained::Some)
    }
}

/// The counts by the table itself. To be called while a listener keeps what happens meanwhile.
pub(super) fn list() -> Result<Counts, Error> {
    let mut counts = Counts::for_listing();
    ConntrackSocket::open()?.list_both_families(|body| {
        if let Some(event) = message::parse(Happened::Lives, body)? {
            counts.apply(event);
        }
        Ok(())
    })?;
    Ok(counts)
}
