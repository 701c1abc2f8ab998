//! The kernel's own word that something changed: links, addresses, routes and settings by route netlink, rules by
//! nftables'.
//!
//! An event says that it is time to look, never what to do, so nothing is read out of it but whether it may concern us.
//! While nothing happens, nothing wakes up.

use std::io;
use std::time::Duration;

use futures::future::poll_fn;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::chain;
use crate::nat;

/// Multicast groups of `linux/rtnetlink.h`: `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`,
/// `RTNLGRP_IPV4_NETCONF`.
/// The last one tells of `ip_forward` and `rp_filter`.
const ROUTE_GROUPS: [u32; 4] = [1, 5, 7, 24];
/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const NFTABLES_GROUP: u32 = 7;
/// A rule set with thousands of elements comes in many datagrams; each fits into this (nft's own buffer is as large).
const BUFFER: usize = 64 * 1024;
/// Linux' number of "no buffer space available" (`asm-generic/errno.h`).
const ENOBUFS: i32 = 105;
/// Before a socket that failed is opened anew.
const REOPEN: Duration = Duration::from_secs(5);

/// How often each kind of thing changed since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Links, addresses, routes, settings.
    pub network: u64,
    /// Our table.
    pub rules: u64,
}

/// Why the kernel cannot be listened to.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot listen to {what} changes of the kernel")]
    Open { what: &'static str, source: io::Error },
}

/// Listens until dropped.
#[derive(Debug)]
pub(crate) struct KernelEvents {
    changes: watch::Receiver<Changes>,
    tasks: [JoinHandle<()>; 2],
}

impl KernelEvents {
    /// Starts to listen. What happens from now on is not missed.
    pub(crate) fn listen() -> Self {
        let (sender, changes) = watch::channel(Changes::default());
        let count_network = {
            let sender = sender.clone();
            move |_: &[u8]| sender.send_modify(|changes| changes.network += 1)
        };
        let count_rules = move |datagram: &[u8]| {
            if nat::concerns_our_table(datagram) {
                sender.send_modify(|changes| changes.rules += 1);
            }
        };
        let network = Source { what: "network", protocol: NETLINK_ROUTE, groups: &ROUTE_GROUPS };
        let rules = Source { what: "rule", protocol: NETLINK_NETFILTER, groups: &[NFTABLES_GROUP] };
        // Opened here, not in the tasks: whoever looks at the world after this call misses nothing.
        let tasks = [
            tokio::spawn(network.listen(network.open(), count_network)),
            tokio::spawn(rules.listen(rules.open(), count_rules)),
        ];
        Self { changes, tasks }
    }

    /// Changes wake this receiver.
    pub(crate) fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.clone()
    }
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

    /// Tells `changed` of every datagram, and of everything that was lost.
    async fn listen(self, mut socket: Result<TokioSocket, Error>, changed: impl Fn(&[u8])) {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut told = false;
        loop {
            match &mut socket {
                Ok(open) => {
                    told = false;
                    let error = read(open, &mut buffer, &changed).await;
                    tracing::warn!(component = "site", %error, "lost the kernel's {} events", self.what);
                    changed(&[]);
                }
                Err(error) if !told => {
                    told = true;
                    tracing::warn!(component = "site", error = %chain(error), "changes are found by the timer only");
                }
                Err(_) => {}
            }
            tokio::time::sleep(REOPEN).await;
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
            // The kernel had more to say than the socket could hold: something changed.
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => changed(&[]),
            Err(error) => return error,
        }
    }
}
