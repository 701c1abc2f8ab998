//! Copies of a tunnel's descriptors, which the daemon holds: the interface and its sockets outlive the process that
//! works with them, and the next process gets them.
//!
//! A daemon of version 0.1.0 carried the packets itself and had systemd store the descriptors, as `tun-wg0`, one for
//! each queue, and `udp-wg0-0`, one for each address family of each queue's pair. They are taken over here.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use crate::net::InterfaceName;
use bastiond_tunnel::private::Descriptors;
use bastiond_tunnel::tun::TunInterface;
use bastiond_tunnel::udp::UdpPair;

/// Descriptors with their names, as the service manager stores them.
pub(crate) type NamedFds = Vec<(String, OwnedFd)>;

/// An interface and its sockets.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The queues of the TUN interface.
    pub(super) queues: Vec<OwnedFd>,
    /// The pairs of sockets, one for each queue.
    pub(super) sockets: Vec<Arc<UdpPair>>,
}

impl Held {
    /// Those of a process. Without usable sockets, others are bound when they are needed.
    pub(super) fn of_process(descriptors: Descriptors) -> Self {
        Self { queues: descriptors.queues, sockets: pairs(descriptors.sockets) }
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.sockets.is_empty()
    }

    /// Copies of both.
    pub(super) fn copy(&self) -> Self {
        let queues = self.queues.iter().filter_map(|queue| queue.try_clone().ok()).collect();
        Self { queues, sockets: self.sockets.clone() }
    }

    /// Those that a daemon of version 0.1.0 had stored for this interface.
    pub(super) fn stored(interface: &InterfaceName, named: NamedFds) -> Self {
        let (tun, udp) = (tun_name(interface), format!("udp-{interface}-"));
        let (mut queues, mut sockets) = (Vec::new(), Vec::new());
        for (name, descriptor) in named {
            let is_socket = name.strip_prefix(&udp).is_some_and(|queue| queue.parse::<usize>().is_ok());
            if is_socket {
                sockets.push(descriptor);
            } else if name == tun {
                queues.push(descriptor);
            }
        }
        Self { queues, sockets: pairs(sockets) }
    }

    /// Whether the TUN interface of this name is there, and still exists.
    pub(super) fn has_interface(&self, interface: &InterfaceName) -> bool {
        let is_queue = |queue: &OwnedFd| TunInterface::is_queue(queue.as_fd(), interface.as_str());
        !self.queues.is_empty() && self.queues.iter().all(is_queue)
    }

    /// The interface, if it still exists.
    pub(super) fn interface(&self, interface: &InterfaceName) -> Option<TunInterface> {
        if !self.has_interface(interface) {
            return None;
        }
        TunInterface::adopt(interface.as_str(), self.copy().queues)
            .inspect_err(|error| tracing::warn!(%error, "the descriptors of {interface} cannot be used"))
            .ok()
    }

    /// The sockets, if there is a pair for each queue, bound to this port.
    pub(super) fn sockets_on(&self, port: u16, queues: usize) -> Option<Vec<Arc<UdpPair>>> {
        let fits = self.sockets.len() == queues && self.sockets.iter().all(|pair| pair.port() == port);
        fits.then(|| self.sockets.clone())
    }
}

fn tun_name(interface: &InterfaceName) -> String {
    format!("tun-{interface}")
}

/// Whether there is a queue of this TUN interface among the descriptors.
pub(super) fn has_tun(interface: &InterfaceName, fds: &NamedFds) -> bool {
    let name = tun_name(interface);
    fds.iter().any(|(stored, fd)| *stored == name && TunInterface::is_queue(fd.as_fd(), interface.as_str()))
}

fn pairs(sockets: Vec<OwnedFd>) -> Vec<Arc<UdpPair>> {
    match UdpPair::adopt_all(sockets) {
        Ok(pairs) => pairs.into_iter().map(Arc::new).collect(),
        Err(error) => {
            tracing::warn!(%error, "the sockets of the tunnel cannot be used");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn socket(address: &str) -> OwnedFd {
        std::net::UdpSocket::bind(address).unwrap().into()
    }

    #[test]
    fn stored_descriptors_are_sorted_by_name() {
        let stored = ["udp-wg0-0", "tun-wg0", "udp-wg0-1", "tun-wg1", "udp-wg0-x", "udp-wg1-0"];
        let named = stored.iter().map(|name| ((*name).to_owned(), socket("127.0.0.1:0"))).collect();
        let held = Held::stored(&"wg0".parse().unwrap(), named);
        assert_eq!((held.queues.len(), held.sockets.len()), (1, 2));
    }

    #[test]
    fn a_descriptor_that_is_no_tun_queue_or_socket_is_not_taken_over() {
        let interface = "wg0".parse().unwrap();
        let named = vec![("tun-wg0".to_owned(), descriptor()), ("udp-wg0-0".to_owned(), descriptor())];
        assert!(!has_tun(&interface, &named));
        let held = Held::stored(&interface, named);
        assert!(held.interface(&interface).is_none());
        assert!(held.sockets_on(51820, 1).is_none());
    }

    #[test]
    fn sockets_are_used_for_their_port_and_as_many_queues_only() {
        let one = socket("127.0.0.1:0");
        let port = std::net::UdpSocket::from(one.try_clone().unwrap()).local_addr().unwrap().port();
        let held = Held::of_process(Descriptors { queues: Vec::new(), sockets: vec![one] });
        assert_eq!(held.sockets_on(port, 1).map(|pairs| pairs.len()), Some(1));
        assert!(held.sockets_on(port, 2).is_none() && held.sockets_on(port.wrapping_add(1), 1).is_none());
    }
}
