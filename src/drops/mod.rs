//! Dropped packets in the log: the rules send a few of each reason to our nflog group, and this component logs each on
//! a line.
//!
//! The rules limit how many there are (`nat::desired`); nothing is held back or added here. Where the configuration
//! wants another group, or no log, nothing listens. While nothing is dropped, nothing wakes up.

mod message;

use std::io;
use std::time::Duration;

use futures::future::poll_fn;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, Timeout, config_request};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::libc;
use nix::net::if_::if_indextoname;
use tokio::task::JoinHandle;

use crate::config::LogDrops;
use crate::error::chain;
use crate::inputs::JOURNAL_GROUP;

pub use message::{Dropped, read};

/// How long the kernel collects packets before it wakes us; its default is a second.
const COLLECTED: Duration = Duration::from_millis(100);
/// Bytes of the receive buffer. The kernel collects packets into a page; a larger packet would come alone, but the
/// rules cut packets off.
const BUFFER: usize = 64 * 1024;
/// How many datagrams with packets may come before the answer to the request that asked for them.
const MAX_BEFORE_ANSWER: usize = 16;

/// Why dropped packets are not logged.
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
                "another program listens to that group: stop it, then reload; drops are counted in any case"
            }
            Self::Open(_) | Self::Listen(_) => {
                "it needs CAP_NET_ADMIN and a kernel with nfnetlink_log; drops are counted in any case, and \
                 firewall.log_drops = false ends this message"
            }
        }
    }
}

/// Logs dropped packets while the configuration wants the daemon to.
#[derive(Debug, Default)]
pub(crate) struct DropLog {
    task: Option<JoinHandle<()>>,
}

impl DropLog {
    /// Starts or stops listening as the configuration wants. A failure is logged and nothing else: the gateway works
    /// without this.
    pub(crate) async fn follow(&mut self, log_drops: LogDrops) {
        let listens = self.task.as_ref().is_some_and(|task| !task.is_finished());
        match log_drops {
            LogDrops::Journal if listens => {}
            LogDrops::Journal => match listen().await {
                Ok(socket) => self.task = Some(tokio::spawn(log_packets(socket))),
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
                    // Err: it was aborted. The socket is closed now, and the group is free for other programs.
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

/// A socket that receives what the rules log.
async fn listen() -> Result<TokioSocket, Error> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER).map_err(Error::Open)?;
    let own = socket.socket_mut();
    own.bind_auto().map_err(Error::Open)?;
    // A connected netlink socket receives messages from the kernel only.
    own.connect(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
    // The rules decide how much of a packet is copied.
    let wanted = vec![ConfigCmd::Bind.into(), ConfigMode::PACKET_MAX.into(), Timeout::from(COLLECTED).into()];
    let request = config_request(NetfilterProtoFamily::Unspec, JOURNAL_GROUP, wanted);
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes).await.map_err(Error::Listen)?;
    for _ in 0..MAX_BEFORE_ANSWER {
        let (datagram, _) = socket.recv_from_full().await.map_err(Error::Listen)?;
        if let Some(answer) = message::answer(&datagram) {
            return answer.map(|()| socket).map_err(Error::Listen);
        }
    }
    Err(Error::Listen(io::ErrorKind::InvalidData.into()))
}

/// Logs what comes, until the socket fails.
async fn log_packets(socket: TokioSocket) {
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        buffer.clear();
        match poll_fn(|context| socket.poll_recv(context, &mut buffer)).await {
            Ok(()) => read(&buffer).iter().for_each(log),
            // The socket was full; the lost packets are counted only.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => {
                tracing::warn!(component = "nat", %error, "no dropped packet is logged until the next reload");
                return;
            }
        }
    }
}

fn log(dropped: &Dropped) {
    let (interface, out) = (dropped.from.map(interface_name), dropped.to.map(interface_name));
    let word =
        |word: &str, name: &Option<String>| name.as_ref().map_or_else(String::new, |name| format!(" {word} {name}"));
    let interfaces = word("by", &interface) + &word("out of", &out);
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
        "{dropped}{interfaces}"
    );
}

/// An interface's name, or its index if the interface is gone.
fn interface_name(index: u32) -> String {
    if_indextoname(index).map_or_else(|_| index.to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
