//! `bastionctl peer import`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use super::Operator;
use super::edit::NewPeer;
use super::error::Error;
use super::import::{self, Imported};
use super::name::PeerName;
use crate::config::{self, Peer, PeerEdits};
use crate::regular_file;

/// The largest file that is read, in bytes: ten thousand clients of wg-easy take 5 MB.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

impl Operator<'_> {
    /// Adds the peers of another server's file, all of them or none.
    pub(super) fn import(&self, file: &Path, is_dry_run: bool) -> Result<ExitCode, Error> {
        let text = regular_file::read_text(file, MAX_BYTES);
        let text = text.map_err(|source| Error::ImportRead { path: file.to_owned(), source })?;
        let peers = import::parse(&text).map_err(|source| Error::Import { path: file.to_owned(), source })?;
        let store = self.lock()?;
        let config = self.load()?;
        let known: BTreeSet<&str> =
            self.tunnel(&config)?.peers.iter().filter_map(|peer: &Peer| peer.name.as_deref()).collect();
        let is_taken = |name: &PeerName| known.contains(name.as_str()) || store.file(&name.file_name()).exists();
        let names = import::names_for(&peers, is_taken);
        let remark = self.remark("imported by `bastionctl peer import`");
        let (mut edits, mut rows) = (PeerEdits::new(), Vec::new());
        for (name, peer) in names.into_iter().zip(peers) {
            rows.push(in_words(&name, &peer));
            let Imported {
                public_key,
                preshared_key,
                allowed_ips,
                endpoint,
                persistent_keepalive,
                enabled,
                expires,
                ..
            } = peer;
            let file = store.file(&name.file_name());
            let peer = NewPeer {
                name,
                public_key,
                preshared_key,
                allowed_ips,
                endpoint,
                persistent_keepalive,
                expires,
                enabled,
                groups: Vec::new(),
                reach: Vec::new(),
            };
            edits.insert(file, Some(peer.text(&remark)));
        }
        let code = if is_dry_run {
            config::load_edited(self.path, self.environment, &edits)?;
            eprintln!("bastionctl: {} peers can be imported; nothing is written", rows.len());
            ExitCode::SUCCESS
        } else {
            self.apply(&store, &edits)?.tell(&format!("{} peers are imported", rows.len()))
        };
        print!("{}", rows.concat());
        Ok(code)
    }
}

/// `Alice-s-laptop 10.8.0.2/32 (Alice's laptop)`
fn in_words(name: &PeerName, peer: &Imported) -> String {
    let ranges: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    let called = peer.called.as_deref().filter(|called| *called != name.as_str());
    let called = called.map_or_else(String::new, |called| format!(" ({})", crate::printable::printable(called)));
    let disabled = if peer.enabled { "" } else { " disabled" };
    format!("{name} {}{disabled}{called}\n", ranges.join(" "))
}
