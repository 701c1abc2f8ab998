//! ICMP errors by the kernel's own hand: it chooses the source as for its own errors, an address of this host towards
//! the receiver, which for packets of this host is the interface's own (`wg_xmit` calls `icmp_ndo_send` to the same
//! effect).
//!
//! Into the TUN interface such a packet cannot be written over IPv4: the kernel drops what comes in with an address of
//! its own as the source (`fib_validate_source`). A raw socket needs `CAP_NET_RAW`; without it an error over IPv6 is
//! written into the interface with the source that the kernel would choose, and one over IPv4 with the unreachable
//! address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};

/// Whether this process may open raw sockets, as far as is known.
static MAY: AtomicBool = AtomicBool::new(true);

/// Sends an ICMP message without its IP header; whether it could. Few are sent, since the caller limits them, so each
/// has a socket of its own.
pub(super) fn send(to: IpAddr, icmp: &[u8]) -> bool {
    if !MAY.load(Ordering::Relaxed) {
        return false;
    }
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let sent = socket(family, SockType::Raw, flags, protocol).and_then(|socket| {
        sendto(socket.as_raw_fd(), icmp, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())
    });
    if matches!(sent, Err(Errno::EPERM | Errno::EACCES)) {
        MAY.store(false, Ordering::Relaxed);
    }
    sent.is_ok()
}

/// The source that the kernel chooses for packets to this address.
pub(super) fn source_towards(to: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Connecting sends nothing (udp(7)); the port is that of the discard service.
    socket.connect((to, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_towards_this_host_is_its_own_address() {
        assert_eq!(source_towards(Ipv4Addr::LOCALHOST.into()).unwrap(), Ipv4Addr::LOCALHOST);
    }
}
