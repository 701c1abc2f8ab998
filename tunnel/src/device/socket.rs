//! What UDP sockets of all kinds need: those that carry packets, and those that only ask for routes.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{self, SockType, sockopt};
use nix::{getsockopt_impl, libc, sockopt_impl};

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be bound.
    #[error("cannot bind UDP port {port}")]
    Bind {
        /// The port; 0 is any.
        port: u16,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Neither family of addresses is there.
    #[error("this host has neither IPv4 nor IPv6")]
    NoFamily,
    /// A descriptor that was handed over is no UDP socket.
    #[error("the descriptor handed over is no UDP socket")]
    Foreign {
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// The process that makes the sockets did not.
    #[error("the daemon gives no sockets")]
    Supply {
        /// Its reason, or that of the connection.
        #[source]
        source: io::Error,
    },
    /// A socket option was refused.
    #[error("cannot set {option} on the UDP socket")]
    Option {
        /// The option's name in socket(7), ip(7) or udp(7).
        option: &'static str,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The closest error number.
    pub fn errno(&self) -> nix::errno::Errno {
        match self {
            Self::Bind { source, .. }
            | Self::Option { source, .. }
            | Self::Foreign { source }
            | Self::Supply { source } => nix::errno::Errno::from_raw(source.raw_os_error().unwrap_or(libc::EIO)),
            Self::NoFamily => nix::errno::Errno::EAFNOSUPPORT,
        }
    }
}

/// The descriptor as a UDP socket, and its address.
pub(crate) fn checked(socket: OwnedFd) -> Result<(UdpSocket, SocketAddr), Error> {
    let foreign = |source| Error::Foreign { source };
    if socket::getsockopt(&socket, sockopt::SockType).map_err(|error| foreign(error.into()))? != SockType::Datagram {
        return Err(foreign(io::ErrorKind::InvalidInput.into()));
    }
    let socket = UdpSocket::from(socket);
    let address = socket.local_addr().map_err(foreign)?;
    Ok((socket, address))
}

pub(crate) fn set_mark(socket: &impl AsFd, fwmark: u32) -> Result<(), Error> {
    socket::setsockopt(socket, sockopt::Mark, &fwmark)
        .map_err(|error| Error::Option { option: "SO_MARK", source: error.into() })
}

/// The largest IP packet, in bytes, that reaches the address to which the socket is connected.
pub(super) fn connected_mtu(socket: &impl AsFd, to: SocketAddr) -> Option<usize> {
    let mtu = if to.is_ipv4() {
        socket::getsockopt(socket, sockopt::IpMtu).ok()?
    } else {
        socket::getsockopt(socket, Ipv6Mtu).ok()?
    };
    usize::try_from(mtu).ok()
}

sockopt_impl!(
    /// The path MTU of a connected IPv6 socket (ipv6(7)).
    Ipv6Mtu,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);
