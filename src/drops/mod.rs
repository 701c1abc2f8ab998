//! Dropped packets in the log: the rules send a few of each reason to an nflog group of ours, and here they are told, a line each.
//!
//! How many there may be is the rules' business (`nat::desired`): nothing is held back here, and nothing added. Where the
//! configuration wants the account elsewhere, or nowhere, nobody listens. While nothing is dropped, nothing wakes up.

mod message;

use std::io;
use std::time::Duration;

use futures::future::poll_fn;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, Timeout, config_request};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::net::if_::if_indextoname;
use tokio::task::JoinHandle;

use crate::config::LogDrops;
use crate::error::chain;
use crate::inputs::JOURNAL_GROUP;

pub use message::{Dropped, read};

/// The kernel collects packets for so long before it wakes us, instead of a second.
const COLLECTED: Duration = Duration::from_millis(100);
/// The kernel collects into a page; a packet that is larger comes alone, and ours are cut off by the rules.
const BUFFER: usize = 64 * 1024;
/// Packets may come before the answer to the question that asked for them.
const BEFORE_ANSWER: usize = 16;
/// Linux' number of "no buffer space available" (`asm-generic/errno.h`).
const ENOBUFS: i32 = 105;

/// Why dropped packets are not told.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot open a netlink socket for dropped packets")]
    Open(#[source] io::Error),
    #[error("cannot listen to nflog group {JOURNAL_GROUP}")]
    Listen(#[source] io::Error),
}

impl Error {
    fn advice(&self) -> &'static str {
        match self {
            Self::Listen(source) if source.kind() == io::ErrorKind::ResourceBusy => {
                "another program listens to that group: end it, then reload; drops are counted all the same"
            }
            Self::Open(_) | Self::Listen(_) => {
                "it needs CAP_NET_ADMIN and a kernel with nfnetlink_log; drops are counted all the same, and \
                 firewall.log_drops = false ends this message"
            }
        }
    }
}

/// Tells of dropped packets while the configuration wants it so.
#[derive(Debug, Default)]
pub struct DropLog {
    task: Option<JoinHandle<()>>,
}

impl DropLog {
    /// Begins to listen, goes on, or ends. That it cannot be is no reason not to be a gateway: it is told once.
    pub async fn follow(&mut self, log_drops: LogDrops) {
        let listens = self.task.as_ref().is_some_and(|task| !task.is_finished());
        match log_drops {
            LogDrops::Journal if listens => {}
            LogDrops::Journal => match listen().await {
                Ok(socket) => self.task = Some(tokio::spawn(tell(socket))),
                Err(error) => {
                    tracing::warn!(
                        component = "nat",
                        advice = error.advice(),
                        "dropped packets are not logged: {}",
                        chain(&error)
                    );
                }
            },
            LogDrops::Group(_) | LogDrops::Off => {
                if let Some(task) = self.task.take() {
                    task.abort();
                    // Err: it was broken off, as it should. The socket is closed now, and the group free for others.
                    let _ = task.await;
                }
            }
        }
    }
}

impl Drop for DropLog {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A socket that gets what the rules log.
async fn listen() -> Result<TokioSocket, Error> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER).map_err(Error::Open)?;
    let own = socket.socket_mut();
    own.bind_auto().map_err(Error::Open)?;
    // A connected netlink socket hears nobody but the kernel.
    own.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
    // How much of a packet is copied is said by the rules.
    let wanted = vec![ConfigCmd::Bind.into(), ConfigMode::PACKET_MAX.into(), Timeout::from(COLLECTED).into()];
    let request = config_request(NetfilterProtoFamily::Unspec, JOURNAL_GROUP, wanted);
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes).await.map_err(Error::Listen)?;
    for _ in 0..BEFORE_ANSWER {
        let (datagram, _) = socket.recv_from_full().await.map_err(Error::Listen)?;
        if let Some(answer) = message::answer(&datagram) {
            return answer.map(|()| socket).map_err(Error::Listen);
        }
    }
    Err(Error::Listen(io::ErrorKind::InvalidData.into()))
}

async fn tell(socket: TokioSocket) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        match poll_fn(|context| socket.poll_recv(context, &mut buffer)).await {
            Ok(()) => read(&buffer).iter().for_each(log),
            // More than the socket could hold: those are counted only.
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => {}
            Err(error) => {
                tracing::warn!(component = "nat", %error, "dropped packets are not logged any more, until the next reload");
                return;
            }
        }
    }
}

fn log(dropped: &Dropped) {
    let (interface, out) = (dropped.from.map(name), dropped.to.map(name));
    let word =
        |word: &str, name: &Option<String>| name.as_ref().map_or_else(String::new, |name| format!(" {word} {name}"));
    let ways = word("by", &interface) + &word("out of", &out);
    tracing::info!(
        component = "nat",
        reason = dropped.reason,
        interface,
        out,
        source = dropped.source.map(tracing::field::display),
        destination = dropped.destination.map(tracing::field::display),
        protocol = dropped.protocol.map(message::protocol_name).as_deref(),
        source_port = dropped.ports.map(|(source, _)| source),
        destination_port = dropped.ports.map(|(_, destination)| destination),
        "{dropped}{ways}"
    );
}

/// An interface's name; its number, if it has gone meanwhile.
fn name(index: u32) -> String {
    if_indextoname(index).map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
