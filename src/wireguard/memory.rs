//! Where active peers were last, kept in the runtime directory: after a restart the daemon calls on them, and their traffic
//! goes on within a moment instead of after WireGuard's 15 s of silence.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::chain;
use crate::net::InterfaceName;
use crate::state;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::Snapshot;

/// Endpoints of peers that had a session, by key.
pub type Active = BTreeMap<PublicKey, SocketAddr>;

/// The file of one interface, and what is in it.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    written: Option<Active>,
}

impl Memory {
    /// The memory of an interface, and what a former daemon, or a former interface of this one, left there.
    pub fn of(interface: &InterfaceName, runtime_directory: &Path) -> (Self, Active) {
        let path = runtime_directory.join(format!("wireguard-{interface}.json"));
        let left: Option<Active> = state::read_json(&path);
        (Self { path, written: left.clone() }, left.unwrap_or_default())
    }

    /// Writes down who is active and where, if that is news.
    pub fn keep(&mut self, snapshot: &Snapshot, now: SystemTime) {
        let active: Active = snapshot
            .peers
            .iter()
            .filter(|peer| peer.is_active(now))
            .filter_map(|peer| Some((peer.public_key, peer.endpoint?)))
            .collect();
        if self.written.as_ref() == Some(&active) {
            return;
        }
        if let Err(error) = state::write_json(&self.path, &active) {
            // Only a restart will notice: peers then come by themselves.
            tracing::warn!(component = "wireguard", error = %chain(&error), "the peers' endpoints are not remembered");
        }
        self.written = Some(active);
    }

    /// Forgets all: the tunnel was taken away.
    pub fn forget(&mut self) {
        self.written = None;
        if let Err(error) = state::remove(&self.path) {
            tracing::warn!(component = "wireguard", error = %chain(&error), "go on");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use bastiond_tunnel::model::PeerSnapshot;

    #[test]
    fn active_peers_are_remembered_and_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let interface = "wg0".parse().unwrap();
        let now = SystemTime::now();
        let peer = |number: u8, age: Option<u64>, endpoint: Option<&str>| PeerSnapshot {
            public_key: PublicKey([number; 32]),
            preshared_key: None,
            endpoint: endpoint.map(|text| text.parse().unwrap()),
            persistent_keepalive: 0,
            allowed_ips: Vec::new(),
            last_handshake: age.map(|age| now - Duration::from_secs(age)),
            rx_bytes: 0,
            tx_bytes: 0,
        };
        let (mut memory, before) = Memory::of(&interface, directory.path());
        assert_eq!(before, Active::new());
        let peers = vec![
            peer(1, Some(10), Some("192.0.2.1:1")),
            peer(2, Some(200), Some("192.0.2.2:2")),
            peer(3, None, Some("192.0.2.3:3")),
            peer(4, Some(10), None),
        ];
        memory.keep(&Snapshot { peers, ..Snapshot::default() }, now);
        let (mut memory, left) = Memory::of(&interface, directory.path());
        assert_eq!(left, [(PublicKey([1; 32]), "192.0.2.1:1".parse().unwrap())].into());
        memory.forget();
        assert_eq!(Memory::of(&interface, directory.path()).1, Active::new());
    }
}
