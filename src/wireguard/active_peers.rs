//! The endpoints of active peers, in a file of the runtime directory: after a restart the daemon initiates handshakes
//! with them, and their traffic continues within a moment instead of after WireGuard's 15 s of silence.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::chain;
use crate::net::InterfaceName;
use crate::state;
use bastiond_tunnel::key::PublicKey;
use bastiond_tunnel::model::Snapshot;

/// Endpoints of peers that have a session, by key.
pub(super) type ActivePeers = BTreeMap<PublicKey, SocketAddr>;

/// The peers of a snapshot that have a session and an endpoint.
pub(super) fn active_peers(snapshot: &Snapshot, now: SystemTime) -> ActivePeers {
    let active = snapshot.peers.iter().filter(|peer| peer.is_active(now));
    active.filter_map(|peer| Some((peer.public_key, peer.endpoint?))).collect()
}

/// The file of one interface, and what is in it.
#[derive(Debug)]
pub(super) struct ActivePeersFile {
    path: PathBuf,
    written: Option<ActivePeers>,
}

impl ActivePeersFile {
    /// The file of this interface, which a former daemon, or a former interface of this one, may have written.
    pub(super) fn load(interface: &InterfaceName, runtime_directory: &Path) -> Self {
        let path = runtime_directory.join(format!("wireguard-{interface}.json"));
        let written = state::read_json(&path);
        Self { path, written }
    }

    /// The peers in the file.
    pub(super) fn peers(&self) -> ActivePeers {
        self.written.clone().unwrap_or_default()
    }

    /// Writes down which peers are active and where, if that has changed.
    pub(super) fn save(&mut self, active: ActivePeers) {
        if self.written.as_ref() == Some(&active) {
            return;
        }
        if let Err(error) = state::write_json(&self.path, &active) {
            // It matters only after a restart: then peers with an old endpoint come by themselves.
            tracing::warn!(component = "wireguard", error = %chain(&error), "the peers' endpoints are not remembered");
        }
        self.written = Some(active);
    }

    /// Removes the file: the tunnel was removed.
    pub(super) fn remove(&mut self) {
        self.written = None;
        if let Err(error) = state::remove(&self.path) {
            tracing::warn!(component = "wireguard", error = %chain(&error), "the file of active peers stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use bastiond_tunnel::model::PeerSnapshot;

    #[test]
    fn only_active_peers_are_saved() {
        let directory = tempfile::tempdir().unwrap();
        let interface = "wg0".parse().unwrap();
        let now = SystemTime::now();
        let peer = |number: u8, age: Option<u64>, endpoint: Option<&str>| PeerSnapshot {
            endpoint: endpoint.map(|text| text.parse().unwrap()),
            last_handshake: age.map(|age| now - Duration::from_secs(age)),
            ..PeerSnapshot::new(PublicKey([number; 32]))
        };
        let mut file = ActivePeersFile::load(&interface, directory.path());
        assert_eq!(file.peers(), ActivePeers::new());
        let peers = vec![
            peer(1, Some(10), Some("192.0.2.1:1")),
            peer(2, Some(200), Some("192.0.2.2:2")),
            peer(3, None, Some("192.0.2.3:3")),
            peer(4, Some(10), None),
        ];
        file.save(active_peers(&Snapshot { peers, ..Snapshot::default() }, now));
        let mut file = ActivePeersFile::load(&interface, directory.path());
        assert_eq!(file.peers(), [(PublicKey([1; 32]), "192.0.2.1:1".parse().unwrap())].into());
        file.remove();
        assert_eq!(ActivePeersFile::load(&interface, directory.path()).peers(), ActivePeers::new());
    }
}
