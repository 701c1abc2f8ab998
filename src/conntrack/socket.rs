//! Requests to the kernel's connection tracking table over netlink, on a thread that may block.
//!
//! Own code on `netlink-sys` sockets: the crates for asynchronous netlink (`netlink-proto` and what builds on it)
//! collect an answer as a list of parsed messages, and a table with a million flows is to be read without keeping them.

use std::io;
use std::ops::ControlFlow;
use std::time::Duration;

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc::MSG_TRUNC;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::model::{Flow, Tuple};
use super::wire::{self, Message, Request};
use crate::outcome::ComponentError;

/// How long the kernel may take for the next part of an answer. It answers at once, but may load a module first.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel puts at most 32 KiB of an answer into one datagram (`netlink_dump` in `net/netlink/af_netlink.c`).
const BUFFER_SIZE: usize = 64 * 1024;

/// Why flows cannot be listed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a netlink socket or one of its options.
    #[error("cannot open a netlink socket to the kernel's connection tracking")]
    Open(#[source] io::Error),
    /// Sending on the socket or receiving from it failed.
    #[error("the netlink socket to the kernel's connection tracking failed")]
    Socket(#[source] io::Error),
    /// The kernel did not answer in time.
    #[error("the kernel's connection tracking did not answer within {} s", RECEIVE_TIMEOUT.as_secs())]
    Timeout,
    /// The kernel's answer is malformed.
    #[error("the answer of the kernel's connection tracking cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The kernel refused to list flows or counters.
    #[error("the kernel refused to list its flows")]
    List(#[source] io::Error),
    /// The kernel refused to delete flows.
    #[error("the kernel refused to delete {count} flows")]
    Delete {
        /// How many flows it refused to delete.
        count: u64,
        /// Why it refused the first of them.
        source: io::Error,
    },
    /// The thread that read the flows panicked or was cancelled.
    #[error("reading the kernel's flows was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl ComponentError for Error {
    fn code(&self) -> &'static str {
        match self {
            Self::List(_) => "conntrack-module-missing",
            _ => "conntrack-failed",
        }
    }

    fn advice(&self) -> String {
        let advice = match self {
            Self::Open(_) | Self::Socket(_) => "the daemon needs CAP_NET_ADMIN and netlink sockets (AF_NETLINK)",
            Self::Timeout | Self::Decode(_) | Self::Interrupted(_) => "the daemon retries by itself",
            Self::List(_) => "the kernel needs its module nf_conntrack_netlink (modprobe nf_conntrack_netlink)",
            Self::Delete { .. } => {
                "the daemon retries by itself; `conntrack -D` of the package conntrack deletes flows by hand"
            }
        };
        advice.to_owned()
    }
}

/// A netlink socket to the connection tracking of the network namespace of the thread that opened it.
pub(super) struct ConntrackSocket {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl ConntrackSocket {
    pub(super) fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(Error::Open)?;
        // A connected netlink socket receives from the kernel alone (`netlink_getsockbyportid` in
        // net/netlink/af_netlink.c).
        socket.bind_auto().and_then(|_| socket.connect(&SocketAddr::new(0, 0))).map_err(Error::Open)?;
        let timeout =
            TimeVal::milliseconds(i64::try_from(RECEIVE_TIMEOUT.as_millis()).expect("a few seconds fit into i64"));
        setsockopt(&socket, sockopt::ReceiveTimeout, &timeout).map_err(|errno| Error::Open(errno.into()))?;
        // Acknowledgements do not repeat the request.
        socket.set_cap_ack(true).map_err(Error::Open)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_SIZE] })
    }

    /// Requests a listing and calls `handle` with each part of it as it arrives.
    pub(super) fn list(
        mut self,
        request: Request,
        mut handle: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.list_part(request, &[], |body| handle(body).map(ControlFlow::Continue))
    }

    /// Requests the flows of a listing that the attributes select, until `handle` has had enough. The rest of the
    /// listing ends with the socket.
    pub(super) fn list_selected(
        mut self,
        attributes: &[u8],
        handle: impl FnMut(&[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        self.list_part(Request::ListFlows, attributes, handle)
    }

    /// Requests the flows of IPv4 and IPv6 and calls `handle` with each of them as it arrives.
    pub(super) fn list_both_families(
        mut self,
        mut handle: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.list_part(Request::ListFlowsOfBothFamilies, &[], |body| handle(body).map(ControlFlow::Continue))
    }

    fn list_part(
        &mut self,
        request: Request,
        attributes: &[u8],
        handle: impl FnMut(&[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let code = self.send_request(request, NLM_F_DUMP, attributes, handle)?;
        if code < 0 { Err(Error::List(io::Error::from_raw_os_error(code.saturating_neg()))) } else { Ok(()) }
    }

    /// Requests the flow with this first packet; `None` if there is none.
    pub(super) fn get(&mut self, original: &Tuple) -> Result<Option<Flow>, Error> {
        let mut found = None;
        let code = self.send_request(Request::ListFlows, NLM_F_ACK, &wire::name_flow(original), |body| {
            found = wire::parse_flow(body)?;
            Ok(ControlFlow::Continue(()))
        })?;
        match Errno::from_raw(code.saturating_neg()) {
            Errno::ENOENT => Ok(None),
            errno if code < 0 => Err(Error::List(errno.into())),
            _ => Ok(found),
        }
    }

    /// Requests a change. The inner error is the kernel's refusal of it.
    pub(super) fn execute(&mut self, request: Request, attributes: &[u8]) -> Result<Result<(), Errno>, Error> {
        let code = self.send_request(request, NLM_F_ACK, attributes, |_| Ok(ControlFlow::Continue(())))?;
        Ok(if code < 0 { Err(Errno::from_raw(code.saturating_neg())) } else { Ok(()) })
    }

    /// Sends a request and receives the answer up to its end, or until `handle` has had enough. Returns the code that
    /// the answer ends with: 0, or a negative errno.
    fn send_request(
        &mut self,
        request: Request,
        flags: u16,
        attributes: &[u8],
        mut handle: impl FnMut(&[u8]) -> Result<ControlFlow<()>, Error>,
    ) -> Result<i32, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = wire::encode_request(request, flags, self.sequence, attributes);
        self.socket.send(&message, 0).map_err(Error::Socket)?;
        let mut end = None;
        while end.is_none() {
            let length = self.receive()?;
            wire::for_each_message::<Error>(&self.buffer[..length], self.sequence, |message| {
                match message {
                    Message::Part(_) if end.is_some() => {}
                    Message::Part(body) if handle(body)?.is_break() => end = Some(0),
                    Message::Part(_) => {}
                    Message::End(code) => end = end.or(Some(code)),
                }
                Ok(())
            })?;
        }
        Ok(end.unwrap_or_default())
    }

    /// Receives the next datagram into the buffer and returns its length.
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            match self.socket.recv(&mut self.buffer.as_mut_slice(), MSG_TRUNC) {
                Ok(length) if length > BUFFER_SIZE => return Err(DecodeError::from("a datagram was truncated").into()),
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Error::Timeout);
                }
                Err(error) => return Err(Error::Socket(error)),
            }
        }
    }
}
