//! The data plane: everything between the TUN interface and the UDP sockets, around boringtun's protocol core
//! ([`boringtun::noise::Tunn`]).
//!
//! ```text
//! TUN queue ──► outbound: read 64 KiB, segment, seal ──► UDP_SEGMENT ──► socket
//! TUN queue ◄── writev ◄── coalesce, open :inbound ◄── UDP_GRO, recvmmsg ◄── socket
//!                          protocol: handshakes, cookies, timers
//! ```
//!
//! One thread carries a packet from end to end: no packet passes from thread to thread, so the order within a flow is
//! kept and no queue grows. Each queue has one thread for both directions, and a second one that takes over the
//! direction to the outside under load. The kernel keeps a flow on one TUN queue and a peer on one socket.
//! [`transport`] is the interface to the outside world, [`simulation`] implements it for tests.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use crate::key::{self, PresharedKey, PublicKey};

pub(crate) mod allowed_ips;
pub(crate) mod checksum;
pub mod clock;
pub mod coalesce;
mod control;
pub mod ecn;
pub mod icmp;
pub(crate) mod identity;
pub(crate) mod inbound;
mod kernel_icmp;
pub mod message;
pub(crate) mod outbound;
pub mod packet;
pub(crate) mod peer;
pub mod probes;
pub(crate) mod protocol;
mod rate;
pub(crate) mod refused;
pub(crate) mod run;
pub mod segment;
pub(crate) mod shared;
pub mod simulation;
pub(crate) mod socket;
pub(crate) mod socket_source;
pub mod table;
mod threads;
pub(crate) mod transport;
pub mod tun;
pub mod udp;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

#[cfg(all(feature = "virtual-clock", not(any(test, clippy))))]
compile_error!("virtual-clock is for unit tests: with it the protocol's timers never run");

use crate::model::{Refused, Snapshot, Update};
use crate::sys;
use shared::{MAX_QUEUED_HANDSHAKES, Shared};
use socket_source::{OwnSockets, SocketSource};
use threads::ThreadContext;
use tun::{TunFeatures, TunInterface};
use udp::{UdpFeatures, UdpPair};

/// Why an interface does not run, or does not take a change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket.
    #[error(transparent)]
    Socket(#[from] udp::Error),
    /// A thread cannot be started.
    #[error("cannot start the threads of {interface}")]
    Thread {
        /// The name of the interface.
        interface: String,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The closest error number.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Socket(error) => error.errno(),
            Self::Thread { source, .. } => Errno::from_raw(source.raw_os_error().unwrap_or(nix::libc::EAGAIN)),
        }
    }
}

/// What the kernel does for an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// For its inside.
    pub tun: TunFeatures,
    /// For its outside.
    pub udp: UdpFeatures,
    /// How many queues there are, of two threads each.
    pub queues: usize,
}

/// Queues for a machine with so many cores: two threads each, so that sealing and opening do not share a core.
pub fn queues_for(cores: usize) -> usize {
    // Beyond eight pairs the kernel's side of TUN and UDP is what limits.
    (cores / 2).clamp(1, 8)
}

/// A running WireGuard interface. It ends when it is dropped.
pub struct Device {
    context: Arc<ThreadContext>,
    tun_features: TunFeatures,
    fwmark: AtomicU32,
    source: Box<dyn SocketSource>,
    threads: Vec<JoinHandle<()>>,
}

impl Device {
    /// Starts an interface on these queues, with sockets of this process's own on any port.
    pub fn start(tun: TunInterface) -> Result<Self, Error> {
        let sockets = UdpPair::bind(0, 0, tun.queues.len())?;
        Self::start_with(tun, sockets, 0, Box::new(OwnSockets))
    }

    /// Starts an interface on these queues and sockets: one pair per queue, or others are taken from the source.
    /// `fwmark` is the mark that they have.
    ///
    /// # Panics
    /// If the kernel gives no random numbers, which Linux does not do once it has booted.
    pub fn start_with(
        tun: TunInterface,
        sockets: Vec<Arc<UdpPair>>,
        fwmark: u32,
        source: Box<dyn SocketSource>,
    ) -> Result<Self, Error> {
        let queues = tun.queues.len();
        let sockets = if sockets.len() == queues { sockets } else { source.bind(0, fwmark, queues)? };
        let (events, received_events) = mpsc::sync_channel(MAX_QUEUED_HANDSHAKES);
        let mut random = [0; 4];
        ring::rand::SystemRandom::new().fill(&mut random).expect("the kernel gives random numbers");
        let shared = Arc::new(Shared::new(u32::from_ne_bytes(random), 1420, events));
        let thread_error = |source| Error::Thread { interface: tun.name.clone(), source };
        let context = ThreadContext::new(tun.name.clone(), shared, tun.queues, tun.features.offloads(), sockets.into());
        let context = Arc::new(context.map_err(thread_error)?);
        let fwmark = AtomicU32::new(fwmark);
        let mut device = Self { context, tun_features: tun.features, fwmark, source, threads: Vec::new() };
        let mut spawn = |name: String, body: Box<dyn FnOnce(&ThreadContext) + Send>| {
            let context = Arc::clone(&device.context);
            let thread = std::thread::Builder::new().name(name).spawn(move || body(&context)).map_err(thread_error)?;
            device.threads.push(thread);
            Ok::<(), Error>(())
        };
        for queue in 0..queues {
            // The kernel shows 15 bytes of a thread's name.
            spawn(format!("wg-help-{queue}"), Box::new(move |context| threads::helper_thread(context, queue)))?;
            spawn(format!("wg-carry-{queue}"), Box::new(move |context| threads::packet_thread(context, queue)))?;
        }
        spawn("wg-protocol".to_owned(), Box::new(move |context| threads::protocol_thread(context, &received_events)))?;
        Ok(device)
    }

    /// Carries out a change. The port is bound first: if that fails, nothing has changed.
    pub fn set(&self, update: Update) -> Result<(), Error> {
        let fwmark = update.fwmark.unwrap_or_else(|| self.fwmark.load(Ordering::Relaxed));
        let sockets = Arc::clone(&self.context.sockets.read());
        let port = sockets.first().map_or(0, |pair| pair.port());
        if let Some(wanted) = update.listen_port.filter(|wanted| *wanted != port) {
            let bound = self.source.bind(wanted, fwmark, self.context.queues.len())?;
            *self.context.sockets.write() = bound.into();
            self.context.wake();
        } else if update.fwmark.is_some() {
            self.source.mark(&sockets, fwmark)?;
        }
        self.fwmark.store(fwmark, Ordering::Relaxed);
        let shared = &self.context.shared;
        let mut kept = HashSet::new();
        {
            let mut table = shared.table.write();
            if let Some(key) = update.private_key {
                table.set_private_key(key);
            }
            if update.replace_peers {
                kept = table.retain(&update.peers.iter().map(|peer| peer.public_key).collect());
            }
        }
        for mut peer in update.peers {
            if kept.remove(&peer.public_key) {
                // Its session and its endpoint stay, but nothing that was configured.
                peer.replace_allowed_ips = true;
                peer.preshared_key.get_or_insert(PresharedKey([0; key::LENGTH]));
                peer.persistent_keepalive.get_or_insert(0);
            }
            // One at a time: the packet threads wait for one change, not for 10 000.
            let timed = shared.table.write().change(peer);
            if let Some(timed) = timed {
                shared.start_timers(&timed);
            }
        }
        shared.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The interface as it is.
    pub fn snapshot(&self) -> Snapshot {
        let listen_port = self.context.sockets.read().first().map_or(0, |pair| pair.port());
        let fwmark = self.fwmark.load(Ordering::Relaxed);
        Snapshot { listen_port, fwmark, ..self.context.shared.table.read().snapshot() }
    }

    /// What was refused from the outside since the device started.
    pub fn refused(&self) -> Refused {
        self.context.shared.refused()
    }

    /// Starts a handshake with a peer that has an endpoint, whether there is a session or not.
    pub fn initiate(&self, peer: PublicKey) {
        self.context.shared.initiate(peer);
    }

    /// What the kernel does for the interface.
    pub fn features(&self) -> Features {
        let sockets = self.context.sockets.read();
        let udp = sockets.first().map_or_else(UdpFeatures::default, |pair| pair.features());
        Features { tun: self.tun_features, udp, queues: self.context.queues.len() }
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// Whether the interface was deleted, or a thread ended: the device does nothing more, and has to be made again.
    pub fn is_gone(&self) -> bool {
        self.context.is_gone()
    }

    /// Waits for that at most this long; whether it has happened.
    pub fn wait_gone(&self, at_most: Duration) -> bool {
        self.context.wait_gone(at_most)
    }

    /// The descriptors of the TUN interface, which can be stored over a restart.
    pub fn tun_descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.context.queues.iter().map(AsFd::as_fd)
    }

    /// The pairs of sockets, one per queue, which can be stored over a restart.
    pub fn sockets(&self) -> Arc<[Arc<UdpPair>]> {
        Arc::clone(&self.context.sockets.read())
    }
}

impl crate::uapi::Interface for Device {
    fn set(&self, update: Update) -> Result<(), Errno> {
        Device::set(self, update).map_err(|error| {
            tracing::warn!(interface = self.context.name, error = %crate::error::chain(&error), "a change was refused");
            error.errno()
        })
    }

    fn snapshot(&self) -> Snapshot {
        Device::snapshot(self)
    }

    fn scope_of(&self, interface: &str) -> Option<u32> {
        // Through a socket, which is in the right network namespace.
        let pair = self.context.pair(0)?;
        sys::interface_index(pair.sockets().next()?.as_fd(), interface).ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.context.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!(interface = self.context.name, "a thread of the tunnel panicked");
            }
        }
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.context.name)
            .field("features", &self.features())
            .finish_non_exhaustive()
    }
}
