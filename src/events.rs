//! Change notifications of the kernel: links, addresses, routes and settings by route netlink, rules by nftables'
//! group.
//!
//! An event only starts a pass, which observes everything again. So nothing is read from it but whether it may concern
//! this daemon. Without events the tasks sleep.

use std::io;
use std::time::Duration;

use futures::future::poll_fn;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::libc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::chain;
use crate::nat;

/// Multicast groups of route netlink. The last but one announces changes of `ip_forward` and `rp_filter`, the last one
/// those of filters at links, where the fast path stands.
const ROUTE_GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV4_NETCONF,
    libc::RTNLGRP_TC,
];
/// The multicast group of nftables.
const NFTABLES_GROUPS: [u32; 1] = [libc::NFNLGRP_NFTABLES.unsigned_abs()];
/// Size of the receive buffer, in bytes, like nft's own. A large rule set arrives in many datagrams, each smaller.
const BUFFER_SIZE: usize = 64 * 1024;
/// How long to wait before a failed socket is opened again.
const REOPEN_DELAY: Duration = Duration::from_secs(5);

/// The number of changes of each kind since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Changes of links, addresses, routes and settings.
    pub network: u64,
    /// Changes of `table inet bastiond`.
    pub rules: u64,
    /// Changes of filters at links and of rules in other tables, by whatever program. They concern the fast path in BPF
    /// only, which passes by both.
    pub bypassed: u64,
}

/// Why kernel events cannot be received.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot subscribe to the kernel's {what} events")]
    Open { what: &'static str, source: io::Error },
}

/// Receives kernel events until it is dropped.
#[derive(Debug)]
pub(crate) struct KernelEvents {
    changes: watch::Receiver<Changes>,
    tasks: [JoinHandle<()>; 2],
}

impl KernelEvents {
    /// Subscribes. No change after this call is missed.
    pub(crate) fn listen() -> Self {
        let (sender, changes) = watch::channel(Changes::default());
        let count_network = {
            let sender = sender.clone();
            move |datagram: &[u8]| {
                let is_of_filters = is_of_filters(datagram);
                sender.send_modify(|changes| {
                    let count = if is_of_filters { &mut changes.bypassed } else { &mut changes.network };
                    *count += 1;
                });
            }
        };
        let count_rules = move |datagram: &[u8]| {
            if nat::concerns_our_table(datagram) {
                sender.send_modify(|changes| changes.rules += 1);
            } else if nat::changes_rules(datagram) {
                sender.send_modify(|changes| changes.bypassed += 1);
            }
        };
        let network = Source { what: "network", protocol: NETLINK_ROUTE, groups: &ROUTE_GROUPS };
        let rules = Source { what: "rule", protocol: NETLINK_NETFILTER, groups: &NFTABLES_GROUPS };
        // Opened here, not in the tasks: a pass that observes the world after this call misses no later change.
        let tasks = [
            tokio::spawn(network.listen(network.open(), count_network)),
            tokio::spawn(rules.listen(rules.open(), count_rules)),
        ];
        Self { changes, tasks }
    }

    /// A receiver that is woken by each change.
    pub(crate) fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }
}

/// Whether a datagram is about filters at links, and the queueing disciplines that hold them, and about nothing else.
/// The kernel sends each group its own datagrams.
fn is_of_filters(datagram: &[u8]) -> bool {
    // Of `struct nlmsghdr`, after the length.
    let kind = datagram.get(4..6).and_then(|bytes| bytes.first_chunk()).map(|bytes| u16::from_ne_bytes(*bytes));
    let filters = [libc::RTM_NEWQDISC, libc::RTM_DELQDISC, libc::RTM_NEWTFILTER, libc::RTM_DELTFILTER];
    kind.is_some_and(|kind| filters.contains(&kind))
}

impl Drop for KernelEvents {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[derive(Clone, Copy)]
struct Source {
    what: &'static str,
    protocol: isize,
    groups: &'static [u32],
}

impl Source {
    fn open(self) -> Result<TokioSocket, Error> {
        let failed = |source| Error::Open { what: self.what, source };
        let mut socket = TokioSocket::new(self.protocol).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        for &group in self.groups {
            socket.socket_mut().add_membership(group).map_err(failed)?;
        }
        Ok(socket)
    }

    /// Calls `changed` with every datagram, and with an empty one when events were lost.
    async fn listen(self, mut socket: Result<TokioSocket, Error>, changed: impl Fn(&[u8])) {
        let mut buffer = Vec::with_capacity(BUFFER_SIZE);
        let mut is_reported = false;
        loop {
            match &mut socket {
                Ok(open) => {
                    is_reported = false;
                    let error = read(open, &mut buffer, &changed).await;
                    let what = self.what;
                    tracing::warn!(component = "site", %error, "the socket of the kernel's {what} events failed");
                    changed(&[]);
                }
                Err(error) if !is_reported => {
                    is_reported = true;
                    let error = chain(error);
                    tracing::warn!(component = "site", error, "changes are found by the regular pass only");
                }
                Err(_) => {}
            }
            tokio::time::sleep(REOPEN_DELAY).await;
            socket = self.open();
        }
    }
}

/// Reads until the socket fails.
async fn read(socket: &mut TokioSocket, buffer: &mut Vec<u8>, changed: impl Fn(&[u8])) -> io::Error {
    loop {
        buffer.clear();
        match poll_fn(|context| socket.poll_recv(context, buffer)).await {
            Ok(()) => changed(buffer),
            // Events were lost because the receive buffer was full.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed(&[]),
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_filters_are_told_from_those_of_links_and_lost_events_may_be_anything() {
        let datagram = |kind: u16| [&20_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 14]].concat();
        assert!(is_of_filters(&datagram(libc::RTM_NEWTFILTER)) && is_of_filters(&datagram(libc::RTM_DELQDISC)));
        assert!(!is_of_filters(&datagram(libc::RTM_NEWLINK)) && !is_of_filters(&datagram(libc::RTM_DELROUTE)));
        assert!(!is_of_filters(&[]));
    }
}
