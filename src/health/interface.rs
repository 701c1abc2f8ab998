//! The interface by which probes enter the kernel as a private host's packets do.
//!
//! A TUN interface: what is written to it arrives at the kernel as from a wire. It exists as long as its descriptor,
//! so nothing is left when the daemon ends, however it ends; its routes go with it.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bastiond_tunnel::tun::TunInterface;
use ipnet::Ipv4Net;
use netlink_packet_route::route::{RouteProtocol, RouteScope};
use nix::net::if_::if_nametoindex;
use parking_lot::Mutex;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::packet::Received;
use crate::net::{InterfaceName, PROBE_ROUTE_PROTOCOL};
use crate::rtnetlink_connection::RtnetlinkConnection;

/// The lowest source port of probes; each port is used again after all others.
const FIRST_PORT: u16 = 10_240;
/// The most bytes of a packet that is read; answers are shorter.
const BUFFER: usize = 2048;

/// Why there is no interface for probes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Tun(#[from] bastiond_tunnel::tun::Error),
    #[error("cannot use the interface {name}")]
    Use { name: InterfaceName, source: io::Error },
    #[error("cannot open a route netlink socket")]
    Netlink(#[source] io::Error),
    #[error("cannot set {name} up")]
    SetUp { name: InterfaceName, source: rtnetlink::Error },
    #[error("cannot route {range} to {name}")]
    Route { name: InterfaceName, range: Ipv4Net, source: rtnetlink::Error },
}

/// A probe's interface, with the probes that wait for packets from it.
#[derive(Debug)]
pub(super) struct ProbeInterface {
    name: InterfaceName,
    sources: BTreeSet<Ipv4Addr>,
    queue: AsyncFd<File>,
    /// By source port.
    waiting: Mutex<HashMap<u16, UnboundedSender<Received>>>,
    next_port: AtomicU16,
}

impl ProbeInterface {
    /// Makes the interface. Answers to `sources` are routed to it.
    pub(super) async fn open(name: &InterfaceName, sources: BTreeSet<Ipv4Addr>) -> Result<Arc<Self>, Error> {
        let queue = TunInterface::open_plain(name.as_str())?;
        #[expect(deprecated, reason = "what it warns of are types that do not own their descriptor; a file does")]
        let queue = AsyncFd::new(queue).map_err(|source| Error::Use { name: name.clone(), source })?;
        let interface = Self {
            name: name.clone(),
            sources,
            queue,
            waiting: Mutex::default(),
            next_port: AtomicU16::new(fastrand::u16(FIRST_PORT..)),
        };
        interface.set_up().await?;
        Ok(Arc::new(interface))
    }

    /// The sources whose answers come here.
    pub(super) fn sources(&self) -> &BTreeSet<Ipv4Addr> {
        &self.sources
    }

    /// Brings the interface up, with its routes; again, if another program has changed something.
    pub(super) async fn set_up(&self) -> Result<(), Error> {
        // No IPv6, and so no packets of the kernel's own. Err: the kernel has no IPv6.
        let _ = std::fs::write(self.setting("ipv6", "disable_ipv6"), "1");
        let connection = RtnetlinkConnection::open().map_err(Error::Netlink)?;
        let done = self.configure(&connection.handle).await;
        // A new interface takes `default.forwarding`, which says nothing about the private links.
        if read_flag(Path::new("/proc/sys/net/ipv4/conf/all/forwarding")) {
            let own = self.setting("ipv4", "forwarding");
            if !read_flag(own.as_ref()) {
                // Err: the probes tell.
                let _ = std::fs::write(own, "1");
            }
        }
        done
    }

    async fn configure(&self, handle: &Handle) -> Result<(), Error> {
        let name = &self.name;
        let index =
            if_nametoindex(name.as_str()).map_err(|errno| Error::Use { name: name.clone(), source: errno.into() })?;
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().set(up).execute().await.map_err(|source| Error::SetUp { name: name.clone(), source })?;
        for range in Ipv4Net::aggregate(&self.sources.iter().copied().map(Ipv4Net::from).collect()) {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(range.addr(), range.prefix_len())
                .output_interface(index)
                .scope(RouteScope::Link)
                .protocol(RouteProtocol::Other(PROBE_ROUTE_PROTOCOL))
                .build();
            let added = handle.route().add(route).replace().execute().await;
            added.map_err(|source| Error::Route { name: name.clone(), range, source })?;
        }
        Ok(())
    }

    fn setting(&self, family: &str, name: &str) -> String {
        format!("/proc/sys/net/{family}/conf/{}/{name}", self.name)
    }

    /// Passes packets on to the probes that wait for them, until the interface is gone.
    pub(super) async fn deliver(&self) -> io::Error {
        let mut buffer = [0; BUFFER];
        loop {
            let mut ready = match self.queue.readable().await {
                Ok(ready) => ready,
                Err(error) => return error,
            };
            match ready.try_io(|queue| queue.get_ref().read(&mut buffer)) {
                Ok(Ok(length)) => {
                    let Some(received) = Received::parse(&buffer[..length]) else { continue };
                    let waiting = self.waiting.lock().get(&received.port()).cloned();
                    // Err: that probe has just ended.
                    let _ = waiting.map(|probe| probe.send(received));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return error,
                // Nothing waits any more.
                Err(_) => {}
            }
        }
    }

    /// Sends a packet as if it came from a private host.
    pub(super) fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.queue.get_ref().write(packet).map(drop)
    }

    /// A fresh source port, and what comes back for it.
    pub(super) fn listen(self: &Arc<Self>) -> Listener {
        let next = |port: u16| Some(if port == u16::MAX { FIRST_PORT } else { port + 1 });
        let port = self.next_port.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or(FIRST_PORT);
        let (sender, received) = unbounded_channel();
        self.waiting.lock().insert(port, sender);
        Listener { port, received, interface: Arc::clone(self) }
    }
}

/// A source port of a probe. Dropping it ends the reception.
#[derive(Debug)]
pub(super) struct Listener {
    pub port: u16,
    pub received: UnboundedReceiver<Received>,
    interface: Arc<ProbeInterface>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.interface.waiting.lock().remove(&self.port);
    }
}

fn read_flag(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
}
