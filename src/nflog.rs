//! Packets that rules log to an nflog group, as the kernel sends them to a socket of ours.

use std::io;
use std::time::Duration;

use futures::future::poll_fn;
use netlink_packet_core::{NetlinkBuffer, ParseableParametrized};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{
    ConfigCmd, ConfigMode, ConfigNla, PacketNla, Timeout, ULogMessage, config_request,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::libc;

/// Of `struct nfgenmsg`, which comes before the attributes, in bytes (`linux/netfilter/nfnetlink.h`).
const NFGENMSG: usize = 4;
/// Bytes of the receive buffer. The kernel collects packets into a page; a larger packet would come alone, but the
/// rules cut packets off.
pub(crate) const BUFFER: usize = 64 * 1024;
/// How many datagrams with packets may come before the answer to the request that asked for them.
const MAX_BEFORE_ANSWER: usize = 16;

/// Why a group cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No socket.
    #[error("cannot open a netlink socket for logged packets")]
    Open(#[source] io::Error),
    /// The kernel refuses.
    #[error("cannot listen to nflog group {group}")]
    Listen {
        /// The group.
        group: u16,
        /// Why; `ResourceBusy` if another program listens to it.
        source: io::Error,
    },
}

/// When the kernel passes logged packets on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Delivery {
    /// Each packet at once.
    Immediate,
    /// After this time, or when many are collected. The kernel's default is a second.
    Collected(Duration),
}

/// A packet that a rule logged. Nothing in it is trusted: unknown senders decide what it holds.
#[derive(Debug)]
pub(crate) struct Logged {
    /// The text of the rule, which other programs' rules can have too.
    pub prefix: Vec<u8>,
    /// The index of the interface by which it came in.
    pub from: Option<u32>,
    /// The index of the interface by which it would leave.
    pub to: Option<u32>,
    /// The packet from its IP header on, as far as the rule has it logged.
    pub bytes: Vec<u8>,
}

/// A socket that receives what rules log to `group`.
pub(crate) async fn listen(group: u16, delivery: Delivery) -> Result<TokioSocket, Error> {
    let failed = |source| Error::Listen { group, source };
    let mut socket = TokioSocket::new(NETLINK_NETFILTER).map_err(Error::Open)?;
    let own = socket.socket_mut();
    own.bind_auto().map_err(Error::Open)?;
    // A connected netlink socket receives messages from the kernel only.
    own.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
    let delivery = match delivery {
        Delivery::Immediate => ConfigNla::QThresh(1),
        Delivery::Collected(time) => Timeout::from(time).into(),
    };
    // The rules decide how much of a packet is copied.
    let wanted = vec![ConfigCmd::Bind.into(), ConfigMode::PACKET_MAX.into(), delivery];
    let request = config_request(NetfilterProtoFamily::Unspec, group, wanted);
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes).await.map_err(failed)?;
    for _ in 0..MAX_BEFORE_ANSWER {
        let (datagram, _) = socket.recv_from_full().await.map_err(failed)?;
        if let Some(answer) = answer(&datagram) {
            return answer.map(|()| socket).map_err(failed);
        }
    }
    Err(failed(io::ErrorKind::InvalidData.into()))
}

/// Calls `take` with each datagram until the socket fails; why it failed. Cancel-safe.
pub(crate) async fn receive(socket: &TokioSocket, mut take: impl FnMut(&[u8])) -> io::Error {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        match poll_fn(|context| socket.poll_recv(context, &mut buffer)).await {
            Ok(()) => take(&buffer),
            // The socket was full, and packets are lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return error,
        }
    }
}

/// The logged packets in a datagram. What cannot be read is left out.
pub(crate) fn packets(datagram: &[u8]) -> impl Iterator<Item = Logged> {
    messages(datagram).filter_map(|message| packet(&message))
}

/// The kernel's answer to a request, if the datagram has one.
pub(crate) fn answer(datagram: &[u8]) -> Option<io::Result<()>> {
    messages(datagram).filter(|message| libc::c_int::from(message.message_type()) == libc::NLMSG_ERROR).find_map(
        |message| {
            let code = i32::from_ne_bytes(*message.payload().first_chunk()?);
            // 0 confirms the request.
            Some(if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) })
        },
    )
}

fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(datagram).ok()?.length() as usize;
        let message = NetlinkBuffer::new_checked(datagram.get(..length)?).ok()?;
        // Messages start at multiples of four; a length is never below the header's.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

fn packet(message: &NetlinkBuffer<&[u8]>) -> Option<Logged> {
    let [subsystem, kind] = message.message_type().to_be_bytes();
    // Only nflog's own messages are given to the crate: its parsers of others panic on some bytes.
    if libc::c_int::from(subsystem) != libc::NFNL_SUBSYS_ULOG {
        return None;
    }
    let attributes = message.payload().get(NFGENMSG..)?;
    let Ok(ULogMessage::Packet(attributes)) = ULogMessage::parse_with_param(attributes, kind) else { return None };
    let mut logged = Logged { prefix: Vec::new(), from: None, to: None, bytes: Vec::new() };
    for attribute in attributes {
        match attribute {
            PacketNla::Prefix(prefix) => logged.prefix = prefix.into_bytes(),
            PacketNla::IfIndexInDev(index) => logged.from = Some(index),
            PacketNla::IfIndexOutDev(index) => logged.to = Some(index),
            PacketNla::Payload(payload) => logged.bytes = payload,
            _ => {}
        }
    }
    Some(logged)
}
