//! Sockets that ask the kernel for routes on behalf of a process that is in another network namespace. One of each
//! address family, bound to nothing: for a question it is connected, which sends nothing (udp(7)), and then dissolved.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, sockopt};
use parking_lot::Mutex;

use super::socket::{Error, checked, connected_mtu, set_mark};

/// The port of the discard service. Nothing is sent to it.
const PORT: u16 = 9;

/// The two sockets; one whose family the host lacks is absent.
#[derive(Debug, Default)]
pub struct Probes {
    v4: Option<Mutex<UdpSocket>>,
    v6: Option<Mutex<UdpSocket>>,
}

impl Probes {
    /// Opens both, with this mark. They belong to the network namespace of this process.
    pub fn open(fwmark: u32) -> Result<Vec<OwnedFd>, Error> {
        let mut opened = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let probe = match socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None) {
                Ok(probe) => probe,
                Err(Errno::EAFNOSUPPORT) => continue,
                Err(error) => return Err(Error::Bind { port: 0, source: error.into() }),
            };
            if family == AddressFamily::Inet6 {
                socket::setsockopt(&probe, sockopt::Ipv6V6Only, &true)
                    .map_err(|error| Error::Option { option: "IPV6_V6ONLY", source: error.into() })?;
            }
            if fwmark != 0 {
                set_mark(&probe, fwmark)?;
            }
            opened.push(probe);
        }
        Ok(opened)
    }

    /// Takes over sockets that another process opened.
    pub fn adopt(sockets: Vec<OwnedFd>) -> Result<Self, Error> {
        let mut probes = Self::default();
        for socket in sockets {
            let (socket, address) = checked(socket)?;
            let place = if address.is_ipv4() { &mut probes.v4 } else { &mut probes.v6 };
            *place = Some(Mutex::new(socket));
        }
        Ok(probes)
    }

    /// Copies of the descriptors, to be handed over.
    pub fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let copy = |socket: &Mutex<UdpSocket>| socket.lock().as_fd().try_clone_to_owned();
        self.v4.iter().chain(&self.v6).map(copy).collect()
    }

    /// The largest IP packet, in bytes, that reaches this address without fragmentation, if it is known.
    pub(super) fn path_mtu(&self, to: SocketAddr) -> Option<usize> {
        self.towards(to, |socket| connected_mtu(&socket, to))
    }

    /// The address of the host from which packets to this address leave, if it is known.
    pub(super) fn source_towards(&self, to: IpAddr) -> Option<IpAddr> {
        self.towards(SocketAddr::new(to, PORT), |socket| {
            let address = rustix::net::getsockname(socket).ok()?;
            SocketAddr::try_from(address).ok().map(|address| address.ip())
        })
    }

    fn towards<T>(&self, to: SocketAddr, ask: impl FnOnce(BorrowedFd<'_>) -> Option<T>) -> Option<T> {
        let socket = if to.is_ipv4() { &self.v4 } else { &self.v6 }.as_ref()?.lock();
        rustix::net::connect(&*socket, &to).ok()?;
        let answer = ask(socket.as_fd());
        // Without this, the next route would be looked up for the address that this one chose.
        rustix::net::connect_unspec(&*socket).ok()?;
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_tells_path_and_source_again_and_again_and_stays_unbound() {
        let probes = Probes::adopt(Probes::open(0).unwrap()).unwrap();
        for to in ["127.0.0.1", "127.0.0.2", "127.0.0.1"] {
            let to: IpAddr = to.parse().unwrap();
            assert_eq!(probes.source_towards(to), Some(std::net::Ipv4Addr::LOCALHOST.into()));
            assert!(probes.path_mtu(SocketAddr::new(to, 1)).is_some_and(|mtu| mtu >= 1500));
        }
        let address = probes.v4.as_ref().unwrap().lock().local_addr().unwrap();
        assert_eq!(address, "0.0.0.0:0".parse().unwrap());
    }

    #[test]
    fn what_is_no_udp_socket_is_no_probe() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for wrong in [OwnedFd::from(listener), std::fs::File::open("/dev/null").unwrap().into()] {
            assert!(matches!(Probes::adopt(vec![wrong]), Err(Error::Foreign { .. })));
        }
    }
}
