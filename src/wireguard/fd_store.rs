//! What outlives the process: the descriptors of the interface and of its sockets, in the descriptor store of the
//! service manager (`FileDescriptorStoreMax=`), so that both stay while a new daemon starts.
//!
//! Names are `tun-wg0`, one descriptor per queue, and `udp-wg0-0`, one descriptor per address family of each queue's
//! pair.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::net::InterfaceName;
use bastiond_tunnel::Device;
use bastiond_tunnel::tun::TunInterface;
use bastiond_tunnel::udp::UdpPair;

/// Descriptors with their names, as the service manager stores them.
pub(crate) type NamedFds = Vec<(String, OwnedFd)>;

/// What a former daemon, or a former interface of this daemon, left of one interface.
#[derive(Debug, Default)]
pub(crate) struct InheritedFds {
    /// The queues of the TUN interface.
    tun: Vec<OwnedFd>,
    /// The sockets of each queue.
    udp: BTreeMap<usize, Vec<OwnedFd>>,
    /// Sockets of an interface that another program deleted while this daemon ran.
    reaped: Vec<Arc<UdpPair>>,
}

fn tun_name(interface: &InterfaceName) -> String {
    format!("tun-{interface}")
}

fn udp_name(interface: &InterfaceName, queue: usize) -> String {
    format!("udp-{interface}-{queue}")
}

/// Whether there is a queue of this TUN interface among the descriptors.
pub(super) fn has_tun(interface: &InterfaceName, fds: &NamedFds) -> bool {
    let name = tun_name(interface);
    fds.iter().any(|(stored, fd)| *stored == name && TunInterface::is_queue(fd.as_fd(), interface.as_str()))
}

impl InheritedFds {
    /// Picks this interface's descriptors. The others are closed; their names are returned, so that they can be
    /// forgotten.
    pub(crate) fn for_interface(interface: &InterfaceName, named: NamedFds) -> (Self, Vec<String>) {
        let (tun, udp) = (tun_name(interface), format!("udp-{interface}-"));
        let mut inherited = Self::default();
        let mut rest = Vec::new();
        for (name, descriptor) in named {
            let queue = name.strip_prefix(&udp).and_then(|queue| queue.parse().ok());
            match queue {
                Some(queue) => inherited.udp.entry(queue).or_default().push(descriptor),
                None if name == tun => inherited.tun.push(descriptor),
                None => rest.push(name),
            }
        }
        rest.dedup();
        (inherited, rest)
    }

    /// Adds the sockets of an interface that was deleted: the service manager stores them too, so that binding new ones
    /// to the same port would fail.
    #[must_use]
    pub(crate) fn with_sockets(mut self, reaped: Vec<Arc<UdpPair>>) -> Self {
        self.reaped = reaped;
        self
    }

    /// The interface, if it was stored and still exists.
    pub(crate) fn take_tun(&mut self, interface: &InterfaceName) -> Option<TunInterface> {
        let queues = std::mem::take(&mut self.tun);
        if queues.is_empty() {
            return None;
        }
        TunInterface::adopt(interface.as_str(), queues)
            .inspect_err(|error| tracing::warn!(%error, "the stored descriptors of {interface} cannot be used"))
            .ok()
    }

    /// The sockets, if they were stored and are bound to this port.
    pub(crate) fn take_sockets(&mut self, port: u16, queues: usize) -> Option<Vec<Arc<UdpPair>>> {
        let stored = std::mem::take(&mut self.udp);
        let mut pairs = std::mem::take(&mut self.reaped);
        pairs.extend(stored.into_values().filter_map(|sockets| UdpPair::adopt(sockets).ok()).map(Arc::new));
        (pairs.len() == queues && pairs.iter().all(|pair| pair.port() == port)).then_some(pairs)
    }
}

/// What the service manager's store has to change.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Names of descriptors to close, before anything is stored.
    pub forget: Vec<String>,
    /// Descriptors to store.
    pub keep: Vec<(String, Vec<OwnedFd>)>,
}

/// What the service manager stores for this daemon.
#[derive(Debug, Default)]
pub(crate) struct FdStore {
    stored: Option<(InterfaceName, Arc<[Arc<UdpPair>]>)>,
}

impl FdStore {
    /// Notes that the descriptors of this device are those that the service manager stores already.
    pub(crate) fn took_over(&mut self, interface: &InterfaceName, device: &Device) {
        self.stored = Some((interface.clone(), device.sockets()));
    }

    /// What has changed since the last call. `device` is the interface that runs now, if any.
    pub(crate) fn update(&mut self, device: Option<(&InterfaceName, &Device)>) -> Option<Handover> {
        let now = device.map(|(interface, device)| (interface, device, device.sockets()));
        let unchanged = match (&self.stored, &now) {
            (None, None) => true,
            (Some((known, stored)), Some((interface, _, sockets))) => {
                known == *interface && Arc::ptr_eq(stored, sockets)
            }
            _ => false,
        };
        if unchanged {
            return None;
        }
        let mut handover = Handover::default();
        if let Some((interface, sockets)) = self.stored.take() {
            handover.forget.push(tun_name(&interface));
            handover.forget.extend((0..sockets.len()).map(|queue| udp_name(&interface, queue)));
        }
        if let Some((interface, device, sockets)) = now {
            handover.keep.push((tun_name(interface), owned(device.tun_descriptors())));
            for (queue, pair) in sockets.iter().enumerate() {
                handover.keep.push((udp_name(interface, queue), owned(pair.sockets().map(AsFd::as_fd))));
            }
            self.stored = Some((interface.clone(), sockets));
        }
        Some(handover)
    }
}

/// Copies of descriptors, to be sent. One that cannot be copied is left out; then the next daemon makes it again.
fn owned<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>) -> Vec<OwnedFd> {
    descriptors.filter_map(|descriptor| descriptor.try_clone_to_owned().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn inherited_descriptors_are_sorted_by_name_and_the_names_of_others_are_returned() {
        let stored_names = ["udp-wg0-0", "tun-wg0", "udp-wg0-0", "tun-wg1", "udp-wg0-1", "tun-wg1", "udp-wg0-x"];
        let named = stored_names.iter().map(|name| ((*name).to_owned(), descriptor())).collect();
        let (inherited, rest) = InheritedFds::for_interface(&"wg0".parse().unwrap(), named);
        assert_eq!(inherited.tun.len(), 1);
        assert_eq!(
            inherited.udp.iter().map(|(queue, sockets)| (*queue, sockets.len())).collect::<Vec<_>>(),
            [(0, 2), (1, 1)]
        );
        assert_eq!(rest, ["tun-wg1", "udp-wg0-x"]);
    }

    #[test]
    fn a_descriptor_that_is_no_tun_queue_or_socket_is_not_taken_over() {
        let interface = "wg0".parse().unwrap();
        let named = vec![("tun-wg0".to_owned(), descriptor()), ("udp-wg0-0".to_owned(), descriptor())];
        let (mut inherited, _) = InheritedFds::for_interface(&interface, named);
        assert!(inherited.take_tun(&interface).is_none());
        assert!(inherited.take_sockets(51820, 1).is_none());
    }
}
