//! What outlives the process: the descriptors of the interface and of its sockets, kept by the service manager
//! (`FileDescriptorStoreMax=`), so that neither goes while a new daemon starts.
//!
//! Names are `tun-wg0`, one descriptor a queue, and `udp-wg0-0`, one descriptor an address family of each queue's pair.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::net::InterfaceName;
use bastiond_tunnel::device::Device;
use bastiond_tunnel::device::tun::TunInterface;
use bastiond_tunnel::device::udp::UdpPair;

/// Descriptors with their names, as the service manager keeps them.
pub type Named = Vec<(String, OwnedFd)>;

/// What a former daemon left of one interface.
#[derive(Debug, Default)]
pub struct Kept {
    /// Its queues.
    tun: Vec<OwnedFd>,
    /// The sockets of each queue.
    udp: BTreeMap<usize, Vec<OwnedFd>>,
    /// Sockets of an interface that was taken away from this very daemon.
    spared: Vec<Arc<UdpPair>>,
}

fn tun_name(interface: &InterfaceName) -> String {
    format!("tun-{interface}")
}

fn udp_name(interface: &InterfaceName, queue: usize) -> String {
    format!("udp-{interface}-{queue}")
}

impl Kept {
    /// What is this interface's among all that was kept. The names of the rest are given back: nobody needs it any more.
    pub fn of(interface: &InterfaceName, named: Named) -> (Self, Vec<String>) {
        let (tun, udp) = (tun_name(interface), format!("udp-{interface}-"));
        let mut kept = Self::default();
        let mut rest = Vec::new();
        for (name, descriptor) in named {
            let queue = name.strip_prefix(&udp).and_then(|queue| queue.parse().ok());
            match queue {
                Some(queue) => kept.udp.entry(queue).or_default().push(descriptor),
                None if name == tun => kept.tun.push(descriptor),
                None => rest.push(name),
            }
        }
        rest.dedup();
        (kept, rest)
    }

    /// Adds the sockets of an interface that was taken away: the service manager has them too, so that binding new ones to the
    /// same port would fail.
    #[must_use]
    pub fn with_sockets(mut self, spared: Vec<Arc<UdpPair>>) -> Self {
        self.spared = spared;
        self
    }

    /// The interface, if it was kept and still is one.
    pub fn take_tun(&mut self, interface: &InterfaceName) -> Option<TunInterface> {
        let queues = std::mem::take(&mut self.tun);
        if queues.is_empty() {
            return None;
        }
        TunInterface::adopt(interface.as_str(), queues)
            .inspect_err(|error| tracing::warn!(%error, "what was kept of {interface} is of no use"))
            .ok()
    }

    /// The sockets, if they were kept and are bound to this port.
    pub fn take_sockets(&mut self, port: u16, queues: usize) -> Option<Vec<Arc<UdpPair>>> {
        let kept = std::mem::take(&mut self.udp);
        let mut pairs = std::mem::take(&mut self.spared);
        pairs.extend(kept.into_values().filter_map(|sockets| UdpPair::adopt(sockets).ok()).map(Arc::new));
        (pairs.len() == queues && pairs.iter().all(|pair| pair.port() == port)).then_some(pairs)
    }
}

/// What the service manager is to be told after a change.
#[derive(Debug, Default)]
pub struct Handover {
    /// Names to close everything of.
    pub forget: Vec<String>,
    /// Descriptors to keep.
    pub keep: Vec<(String, Vec<OwnedFd>)>,
}

/// Remembers what the service manager was told.
#[derive(Debug, Default)]
pub struct Ledger {
    told: Option<(InterfaceName, Arc<[Arc<UdpPair>]>)>,
}

impl Ledger {
    /// What runs now is what was kept: the service manager has it already.
    pub fn took_over(&mut self, interface: &InterfaceName, device: &Device) {
        self.told = Some((interface.clone(), device.sockets()));
    }

    /// What is new since the last time. `device` is the interface that runs now, if any.
    pub fn update(&mut self, device: Option<(&InterfaceName, &Device)>) -> Option<Handover> {
        let now = device.map(|(interface, device)| (interface, device, device.sockets()));
        let unchanged = match (&self.told, &now) {
            (None, None) => true,
            (Some((known, told)), Some((interface, _, sockets))) => known == *interface && Arc::ptr_eq(told, sockets),
            _ => false,
        };
        if unchanged {
            return None;
        }
        let mut handover = Handover::default();
        if let Some((interface, sockets)) = self.told.take() {
            handover.forget.push(tun_name(&interface));
            handover.forget.extend((0..sockets.len()).map(|queue| udp_name(&interface, queue)));
        }
        if let Some((interface, device, sockets)) = now {
            handover.keep.push((tun_name(interface), owned(device.tun_descriptors())));
            for (queue, pair) in sockets.iter().enumerate() {
                handover.keep.push((udp_name(interface, queue), owned(pair.sockets().map(AsFd::as_fd))));
            }
            self.told = Some((interface.clone(), sockets));
        }
        Some(handover)
    }
}

/// Descriptors of their own for whoever sends them. One that cannot be copied is left out: then a restart makes it anew.
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
    fn what_was_kept_is_sorted_by_its_name_and_what_is_nobodys_is_given_back() {
        let kept_names = ["udp-wg0-0", "tun-wg0", "udp-wg0-0", "tun-wg1", "udp-wg0-1", "tun-wg1", "udp-wg0-x"];
        let named = kept_names.iter().map(|name| ((*name).to_owned(), descriptor())).collect();
        let (kept, rest) = Kept::of(&"wg0".parse().unwrap(), named);
        assert_eq!(kept.tun.len(), 1);
        assert_eq!(
            kept.udp.iter().map(|(queue, sockets)| (*queue, sockets.len())).collect::<Vec<_>>(),
            [(0, 2), (1, 1)]
        );
        assert_eq!(rest, ["tun-wg1", "udp-wg0-x"]);
    }

    #[test]
    fn what_is_no_interface_and_no_socket_is_not_taken_over() {
        let interface = "wg0".parse().unwrap();
        let named = vec![("tun-wg0".to_owned(), descriptor()), ("udp-wg0-0".to_owned(), descriptor())];
        let (mut kept, _) = Kept::of(&interface, named);
        assert!(kept.take_tun(&interface).is_none());
        assert!(kept.take_sockets(51820, 1).is_none());
    }
}
