//! The kernel's UDP sockets, towards the outside: one of each address family, one such pair per queue.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use serde::{Deserialize, Serialize};

use super::control::{Incoming, Outgoing};
use super::probes::Probes;
pub use super::socket::Error;
use super::socket::{checked, connected_mtu, set_mark};
use super::transport::{Batch, Endpoint, RECEIVE_BATCH, Received, Run, Sent, UdpReceive, UdpSend};
use crate::sys::{self, Headers};

/// Bytes of datagrams that may wait in the kernel for either direction: a tenth of a second at a few Gbit/s.
const SOCKET_BUFFER: usize = 4 << 20;
/// How often another port is tried when IPv6 has the one taken that the kernel chose for IPv4.
const PORT_ATTEMPTS: usize = 16;

/// What the kernel does for the sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own; none excludes another")]
pub struct UdpFeatures {
    /// One send may carry many datagrams (`UDP_SEGMENT`).
    pub gso: bool,
    /// One receive may bring many datagrams (`UDP_GRO`).
    pub gro: bool,
    /// There is a socket for IPv4.
    pub v4: bool,
    /// There is a socket for IPv6.
    pub v6: bool,
}

/// A socket of each family on one port.
#[derive(Debug)]
pub struct UdpPair {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    port: u16,
    gso: AtomicBool,
    gro: bool,
    /// Sockets that ask the kernel for routes; without them, ones of this process's own do.
    probes: Option<Arc<Probes>>,
}

impl UdpPair {
    /// Binds so many pairs to one port (0: any); the kernel keeps each peer with one of them.
    pub fn bind(port: u16, fwmark: u32, pairs: usize) -> Result<Vec<Arc<Self>>, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let bound = Self::bind_once(port, fwmark, pairs);
            let retry = matches!(&bound, Err(Error::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrInUse);
            if port != 0 || !retry || attempt == PORT_ATTEMPTS {
                return bound;
            }
        }
    }

    fn bind_once(port: u16, fwmark: u32, pairs: usize) -> Result<Vec<Arc<Self>>, Error> {
        // The first is bound alone, so that a port that another program has is refused even if it could be shared; the
        // others share it.
        let mut bound = vec![Self::open(port, fwmark, false)?];
        let port = bound[0].port;
        if pairs > 1 {
            bound[0].sockets().try_for_each(share)?;
        }
        for _ in 1..pairs {
            bound.push(Self::open(port, fwmark, true)?);
        }
        Ok(bound.into_iter().map(Arc::new).collect())
    }

    fn open(port: u16, fwmark: u32, shared: bool) -> Result<Self, Error> {
        let v4 = open_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), fwmark, shared)?;
        let port = v4.as_ref().and_then(|socket| socket.local_addr().ok()).map_or(port, |address| address.port());
        let v6 = open_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), fwmark, shared)?;
        Self::from_sockets(v4, v6)
    }

    /// Takes over sockets that another process bound.
    pub fn adopt(sockets: Vec<OwnedFd>) -> Result<Self, Error> {
        let (mut v4, mut v6) = (None, None);
        for socket in sockets {
            let (socket, address) = checked(socket)?;
            match address {
                SocketAddr::V4(_) => v4 = Some(socket),
                SocketAddr::V6(_) => v6 = Some(socket),
            }
        }
        Self::from_sockets(v4, v6)
    }

    /// Takes over the sockets of several pairs, in any order.
    pub fn adopt_all(sockets: Vec<OwnedFd>) -> Result<Vec<Self>, Error> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for socket in sockets {
            let (socket, address) = checked(socket)?;
            if address.is_ipv4() { v4.push(socket) } else { v6.push(socket) }
        }
        let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
        let mut pairs = Vec::new();
        loop {
            match (v4.next(), v6.next()) {
                (None, None) => return Ok(pairs),
                (v4, v6) => pairs.push(Self::from_sockets(v4, v6)?),
            }
        }
    }

    /// The same pair in another network namespace than this process is in: routes are asked for through these sockets.
    #[must_use]
    pub fn with_probes(mut self, probes: &Arc<Probes>) -> Self {
        self.probes = Some(Arc::clone(probes));
        self
    }

    fn from_sockets(v4: Option<UdpSocket>, v6: Option<UdpSocket>) -> Result<Self, Error> {
        let sockets: Vec<&UdpSocket> = v4.iter().chain(&v6).collect();
        let port = match sockets.first() {
            Some(first) => first.local_addr().map_err(|source| Error::Bind { port: 0, source })?.port(),
            None => return Err(Error::NoFamily),
        };
        // Setting no segment size changes nothing and shows whether the kernel knows the option.
        let gso = sockets.iter().all(|socket| socket::setsockopt(*socket, sockopt::UdpGsoSegment, &0).is_ok());
        let gro = sockets.iter().all(|socket| socket::setsockopt(*socket, sockopt::UdpGroSegment, &true).is_ok());
        Ok(Self { v4, v6, port, gso: AtomicBool::new(gso), gro, probes: None })
    }

    /// The port that the sockets are bound to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the kernel does for these sockets, as far as it is known by now.
    pub fn features(&self) -> UdpFeatures {
        UdpFeatures {
            gso: self.gso.load(Ordering::Relaxed),
            gro: self.gro,
            v4: self.v4.is_some(),
            v6: self.v6.is_some(),
        }
    }

    /// Changes the mark of what is sent.
    pub fn set_fwmark(&self, fwmark: u32) -> Result<(), Error> {
        self.sockets().try_for_each(|socket| set_mark(socket, fwmark))
    }

    /// The sockets, to be waited for or handed over.
    pub fn sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.v4.iter().chain(&self.v6)
    }

    fn socket_for(&self, address: &SocketAddr) -> io::Result<&UdpSocket> {
        let socket = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        socket.as_ref().ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
    }
}

/// `None` if the kernel does not have this family.
fn open_socket(address: SocketAddr, fwmark: u32, shared: bool) -> Result<Option<UdpSocket>, Error> {
    let bind = |source| Error::Bind { port: address.port(), source };
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = match socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
        Ok(socket) => socket,
        Err(nix::errno::Errno::EAFNOSUPPORT) => return Ok(None),
        Err(error) => return Err(bind(error.into())),
    };
    let option = |option| move |error: nix::errno::Errno| Error::Option { option, source: error.into() };
    if address.is_ipv4() {
        socket::setsockopt(&socket, sockopt::Ipv4PacketInfo, &true).map_err(option("IP_PKTINFO"))?;
        socket::setsockopt(&socket, sockopt::IpRecvTos, &true).map_err(option("IP_RECVTOS"))?;
    } else {
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true).map_err(option("IPV6_V6ONLY"))?;
        socket::setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true).map_err(option("IPV6_RECVPKTINFO"))?;
        socket::setsockopt(&socket, sockopt::Ipv6RecvTClass, &true).map_err(option("IPV6_RECVTCLASS"))?;
    }
    if shared {
        share(&socket)?;
    }
    enlarge_buffers(&socket);
    if fwmark != 0 {
        set_mark(&socket, fwmark)?;
    }
    match socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => Ok(Some(UdpSocket::from(socket))),
        // IPv6 is compiled in, but switched off.
        Err(nix::errno::Errno::EADDRNOTAVAIL) if address.is_ipv6() => Ok(None),
        Err(error) => Err(bind(error.into())),
    }
}

/// As large as requested with `CAP_NET_ADMIN`, as large as the sysctls allow without. Only bursts depend on it.
fn enlarge_buffers(socket: &OwnedFd) {
    if socket::setsockopt(socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket::setsockopt(socket, sockopt::RcvBuf, &SOCKET_BUFFER);
    }
    if socket::setsockopt(socket, sockopt::SndBufForce, &SOCKET_BUFFER).is_err() {
        let _ = socket::setsockopt(socket, sockopt::SndBuf, &SOCKET_BUFFER);
    }
}

/// Lets other sockets of this user bind the same port.
fn share(socket: &impl AsFd) -> Result<(), Error> {
    socket::setsockopt(socket, sockopt::ReusePort, &true)
        .map_err(|error| Error::Option { option: "SO_REUSEPORT", source: error.into() })
}

impl UdpSend for UdpPair {
    fn send(&self, run: &Run<'_>) -> io::Result<Sent> {
        let socket = self.socket_for(&run.endpoint.address)?.as_fd();
        let many = run.bytes.len() > run.segment;
        if !many || self.gso.load(Ordering::Relaxed) {
            let refused = match send_whole(socket, run, run.endpoint.local) {
                Ok(()) => return Ok(Sent::Whole),
                Err(error) => error,
            };
            // ip(7): the source address is not, or no more, one of ours.
            if run.endpoint.local.is_some() && send_whole(socket, run, None).is_ok() {
                return Ok(Sent::FromOtherAddress);
            }
            if !many {
                return Err(refused);
            }
            if refused.raw_os_error() == Some(libc::EIO) && self.gso.swap(false, Ordering::Relaxed) {
                // udp(7): the outgoing interface cannot checksum, which segmentation needs.
                tracing::info!(
                    "a network interface takes no UDP segmentation: datagrams are sent one by one from now on"
                );
            }
        }
        let result = send_singly(socket, run);
        if self.gso.load(Ordering::Relaxed) { result.map(|()| Sent::Fragmented) } else { result.map(|()| Sent::Whole) }
    }

    fn path_mtu(&self, endpoint: &Endpoint) -> Option<usize> {
        if let Some(probes) = &self.probes {
            return probes.path_mtu(endpoint.address);
        }
        let family = if endpoint.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let probe = socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
        if let Ok(mark) = socket::getsockopt(self.sockets().next()?, sockopt::Mark) {
            if mark != 0 {
                socket::setsockopt(&probe, sockopt::Mark, &mark).ok()?;
            }
        }
        // Nothing is sent: connecting looks up the route.
        socket::connect(probe.as_raw_fd(), &SockaddrStorage::from(endpoint.address)).ok()?;
        connected_mtu(&probe, endpoint.address)
    }
}

fn send_whole(socket: BorrowedFd<'_>, run: &Run<'_>, local: Option<IpAddr>) -> io::Result<()> {
    let segment = if run.bytes.len() > run.segment { u16::try_from(run.segment).ok() } else { None };
    let control = Outgoing::new(run.endpoint.address.is_ipv4(), segment, run.tos, local);
    sys::send_message(socket, &run.endpoint.address, run.bytes, control.as_bytes())
}

/// Sends one by one: slower, and the kernel fragments what the path does not take.
fn send_singly(socket: BorrowedFd<'_>, run: &Run<'_>) -> io::Result<()> {
    let control = Outgoing::new(run.endpoint.address.is_ipv4(), None, run.tos, run.endpoint.local);
    run.bytes
        .chunks(run.segment.max(1))
        .try_for_each(|datagram| sys::send_message(socket, &run.endpoint.address, datagram, control.as_bytes()))
}

/// One thread's receiving side of a socket.
pub struct UdpReceiver<'a> {
    socket: &'a UdpSocket,
    headers: Headers,
}

impl<'a> UdpReceiver<'a> {
    /// A receiver of this socket.
    pub fn new(socket: &'a UdpSocket) -> Self {
        Self { socket, headers: Headers::new(RECEIVE_BATCH) }
    }
}

impl UdpReceive for UdpReceiver<'_> {
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        let (buffers, received) = batch.refill();
        sys::receive_messages(self.socket.as_fd(), buffers, &mut self.headers)?;
        received.extend(self.headers.arrived().map(|arrived| {
            let incoming = Incoming::parse(arrived.control);
            let address = arrived.from.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
            // A truncated message cannot be authentic.
            let len = if arrived.truncated || arrived.from.is_none() { 0 } else { arrived.len };
            Received {
                endpoint: Endpoint { address, local: incoming.local },
                len,
                segment: incoming.segment.filter(|size| *size > 0).unwrap_or(len.max(1)),
                tos: incoming.tos,
            }
        }));
        Ok(())
    }
}
