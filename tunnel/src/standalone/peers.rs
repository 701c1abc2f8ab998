//! A line of the log when a peer stops to answer, and when it answers again.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use crate::device::Device;
use crate::key::PublicKey;
use crate::watch::{AnswerWatch, Change};

/// The peers as they were at the last check.
#[derive(Default)]
pub(super) struct PeerLog(HashMap<PublicKey, AnswerWatch>);

impl PeerLog {
    /// Compares the peers with the last check.
    pub(super) fn check(&mut self, device: &Device) {
        let (now, wall_clock) = (Instant::now(), SystemTime::now());
        let peers = device.snapshot().peers;
        if self.0.len() > peers.len() {
            self.0.retain(|key, _| peers.iter().any(|peer| peer.public_key == *key));
        }
        for peer in &peers {
            let endpoint = peer.endpoint.map_or_else(|| "no endpoint".to_owned(), |endpoint| endpoint.to_string());
            let (interface, key) = (device.name(), peer.public_key);
            match self.0.entry(key).or_default().check(peer, wall_clock, now) {
                Some(Change::Silent) => tracing::warn!("{interface}: peer {key} ({endpoint}) does not answer"),
                Some(Change::Answers) => tracing::warn!("{interface}: peer {key} ({endpoint}) answers again"),
                None => {}
            }
        }
    }
}
