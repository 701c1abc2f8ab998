//! Dropped packets in the log: the rules send a few of each reason to our nflog group, and this component logs each on
//! a line.
//!
//! The rules limit how many there are (`nat::desired`); nothing is held back or added here. Where the configuration
//! wants another group, or no log, nothing listens. While nothing is dropped, nothing wakes up.

mod message;
mod tally;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_sys::TokioSocket;
use nix::net::if_::if_indextoname;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::config::{Config, LogDrops};
use crate::error::chain;
use crate::inputs::{JOURNAL_GROUP, PeerNames};
use crate::nflog::{self, Delivery};

pub use message::{Dropped, read};
use tally::Tally;

/// How long the kernel collects packets before it wakes us; its default is a second.
const COLLECTED: Duration = Duration::from_millis(100);
/// The counter of what lists of peers refuse.
const REFUSED_BY_LISTS: &str = "dropped_access";

/// What helps against an error.
fn advice(error: &nflog::Error) -> &'static str {
    match error {
        nflog::Error::Listen { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
            "another program listens to that group: stop it, then reload; drops are counted in any case"
        }
        nflog::Error::Open(_) | nflog::Error::Listen { .. } => {
            "it needs CAP_NET_ADMIN and a kernel with nfnetlink_log; drops are counted in any case, and \
             firewall.log_drops = false ends this message"
        }
    }
}

/// Logs dropped packets while the configuration wants the daemon to.
#[derive(Debug, Default)]
pub(crate) struct DropLog {
    task: Option<JoinHandle<()>>,
    tally: Arc<Mutex<Tally>>,
    names: Arc<Mutex<PeerNames>>,
}

impl DropLog {
    /// Starts or stops listening as the configuration wants, and names peers as it does. A failure is logged and nothing
    /// else: the gateway works without this.
    pub(crate) async fn follow(&mut self, config: &Config) {
        let names = PeerNames::new(config);
        *self.names.lock() = names;
        self.listen(config.firewall.log_drops).await;
    }

    async fn listen(&mut self, log_drops: LogDrops) {
        let listens = self.task.as_ref().is_some_and(|task| !task.is_finished());
        match log_drops {
            LogDrops::Journal if listens => {}
            LogDrops::Journal => match nflog::listen(JOURNAL_GROUP, Delivery::Collected(COLLECTED)).await {
                Ok(socket) => {
                    self.task =
                        Some(tokio::spawn(log_packets(socket, Arc::clone(&self.tally), Arc::clone(&self.names))));
                }
                Err(error) => {
                    tracing::warn!(
                        component = "nat",
                        advice = advice(&error),
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

impl DropLog {
    /// The interfaces of which packets to be forwarded were dropped again and again in the last minutes, because no
    /// rule lets them pass. Nothing is known where the configuration logs no drops here.
    pub(crate) fn refused_interfaces(&self) -> Vec<String> {
        self.tally.lock().interfaces(Instant::now())
    }
}

impl Drop for DropLog {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Logs what comes, until the socket fails.
async fn log_packets(socket: TokioSocket, tally: Arc<Mutex<Tally>>, names: Arc<Mutex<PeerNames>>) {
    let log_all = |datagram: &[u8]| {
        for dropped in read(datagram) {
            let peer = refused_peer(&dropped, &names.lock());
            log(&dropped, peer.as_deref(), &tally);
        }
    };
    let error = nflog::receive(&socket, log_all).await;
    tracing::warn!(component = "nat", %error, "no dropped packet is logged until the next reload");
}

/// The peer whose lists refused a packet: who sent it, or to whom it was sent.
fn refused_peer(dropped: &Dropped, names: &PeerNames) -> Option<String> {
    if dropped.reason != REFUSED_BY_LISTS {
        return None;
    }
    let ends = [dropped.source, dropped.destination];
    ends.into_iter().flatten().find_map(|end| names.at(end)).map(str::to_owned)
}

fn log(dropped: &Dropped, peer: Option<&str>, tally: &Mutex<Tally>) {
    let (interface, out) = (dropped.from.map(interface_name), dropped.to.map(interface_name));
    if let (Some(from), Some(to)) = (&interface, &out) {
        tally.lock().add(&dropped.reason, from, to, Instant::now());
    }
    let word =
        |word: &str, name: &Option<String>| name.as_ref().map_or_else(String::new, |name| format!(" {word} {name}"));
    let of_peer = peer.map_or_else(String::new, |peer| format!(" of peer {peer:?}"));
    let interfaces = of_peer + &word("by", &interface) + &word("out of", &out);
    tracing::info!(
        component = "nat",
        reason = dropped.reason,
        peer,
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
