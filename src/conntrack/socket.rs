//! A conversation with the kernel's flow table, on a thread that may block.

use std::io;
use std::time::Duration;

use netlink_packet_core::{DecodeError, NLM_F_ACK, NLM_F_DUMP};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc::MSG_TRUNC;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire::{self, Message, Question};

/// How long the kernel may take for the next part of an answer. It answers at once, but may load a module first.
const PATIENCE: Duration = Duration::from_secs(5);
/// The kernel puts at most 32 KiB of an answer into one datagram (`netlink_dump` in `net/netlink/af_netlink.c`).
const BUFFER: usize = 64 * 1024;

/// Why flows cannot be listed or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel cannot be asked.
    #[error("cannot open a netlink socket to the kernel's flow table")]
    Open(#[source] io::Error),
    /// It cannot be asked any more.
    #[error("cannot speak with the kernel's flow table")]
    Socket(#[source] io::Error),
    /// It said nothing.
    #[error("the kernel's flow table did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// What it said makes no sense.
    #[error("the kernel's answer about its flow table cannot be read")]
    Unreadable(#[from] DecodeError),
    /// It refused to list.
    #[error("the kernel did not list its flows")]
    List(#[source] io::Error),
    /// It refused to end flows.
    #[error("{count} flows could not be ended")]
    End {
        /// How many.
        count: u64,
        /// Why the first one could not.
        source: io::Error,
    },
    /// The thread that asked is gone.
    #[error("the look at the kernel's flow table was broken off")]
    BrokenOff(#[source] tokio::task::JoinError),
}

impl Error {
    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Open(_) | Self::Socket(_) => "the daemon needs CAP_NET_ADMIN and netlink sockets (AF_NETLINK)",
            Self::Silent | Self::Unreadable(_) | Self::BrokenOff(_) => "tried again by itself",
            Self::List(_) => "the kernel needs its module nf_conntrack_netlink (modprobe nf_conntrack_netlink)",
            Self::End { .. } => "tried again by itself; `conntrack -D` of the package conntrack ends them by hand",
        }
    }
}

/// A socket that speaks with the flow table of the calling thread's network namespace.
pub(super) struct Conversation {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Conversation {
    pub(super) fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(Error::Open)?;
        // A connected netlink socket hears nobody but the kernel (`netlink_getsockbyportid` in
        // net/netlink/af_netlink.c).
        socket.bind_auto().and_then(|_| socket.connect(&SocketAddr::new(0, 0))).map_err(Error::Open)?;
        let patience = TimeVal::milliseconds(i64::try_from(PATIENCE.as_millis()).expect("some seconds fit"));
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).map_err(|errno| Error::Open(errno.into()))?;
        // An acknowledgement without a copy of the question.
        socket.set_cap_ack(true).map_err(Error::Open)?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Has something listed, and hands every part of the answer on as it comes.
    pub(super) fn list(
        &mut self,
        question: Question,
        mut hear: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let code = self.ask(question, NLM_F_DUMP, &[], |body| hear(body))?;
        if code < 0 { Err(Error::List(refusal(code))) } else { Ok(()) }
    }

    /// Has something done; why not, if it was refused.
    pub(super) fn order(&mut self, question: Question, attributes: &[u8]) -> Result<Result<(), Errno>, Error> {
        let code = self.ask(question, NLM_F_ACK, attributes, |_| Ok(()))?;
        Ok(if code < 0 { Err(Errno::from_raw(code.saturating_neg())) } else { Ok(()) })
    }

    /// Puts a question, and hears the answer to its end; the code that it ends with.
    fn ask(
        &mut self,
        question: Question,
        flags: u16,
        attributes: &[u8],
        mut hear: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<i32, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = wire::question(question, flags, self.sequence, attributes);
        self.socket.send(&message, 0).map_err(Error::Socket)?;
        let mut end = None;
        while end.is_none() {
            let length = self.receive()?;
            wire::messages::<Error>(&self.buffer[..length], self.sequence, |message| match message {
                Message::Part(body) => hear(body),
                Message::End(code) => {
                    end = Some(code);
                    Ok(())
                }
            })?;
        }
        Ok(end.unwrap_or_default())
    }

    /// Waits for the next datagram; how long it is.
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            match self.socket.recv(&mut self.buffer.as_mut_slice(), MSG_TRUNC) {
                Ok(length) if length > BUFFER => return Err(DecodeError::from("a datagram was cut off").into()),
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(Error::Silent);
                }
                Err(error) => return Err(Error::Socket(error)),
            }
        }
    }
}

fn refusal(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_neg())
}
