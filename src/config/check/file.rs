//! `wireguard.file`: a tunnel that exists already, in the words of wg(8) and wg-quick(8).

use std::path::{Path, PathBuf};

use super::super::files::Files;
use super::super::findings::Findings;
use super::peers::CheckedPeer;
use super::{Surroundings, keys};
use crate::net::InterfaceName;
use bastiond_tunnel::file::{self, File, Table};

/// The key that names the file.
pub(super) const KEY: &str = "wireguard.file";

/// The file, or nothing where none is named.
#[derive(Default)]
pub(super) struct WgFile {
    pub(super) path: Option<PathBuf>,
    pub(super) content: File,
}

/// Reads the file at `text`; everything that is wrong with it is reported with its line.
pub(super) fn read(text: &str, around: &Surroundings<'_, impl Files>, found: &mut Findings) -> Option<WgFile> {
    let path = keys::absolute(KEY, text, found)?;
    let read = match around.files.read(path) {
        Ok(read) => read,
        Err(error) => {
            keys::report_unreadable(KEY, path, &error, found);
            return None;
        }
    };
    let content = match file::parse(read.text.as_bytes()) {
        Ok(content) => content,
        Err(problems) => {
            for file::Problem { line, reason } in problems {
                found.report(KEY, format!("line {line} of {}: {reason}", path.display()));
            }
            return None;
        }
    };
    let has_secret = content.private_key.is_some() || content.peers.iter().any(|peer| peer.preshared_key.is_some());
    if read.readable_by_all && has_secret {
        found.warn(KEY, keys::open_to_all(path));
    }
    for file::Ignored { line, key } in &content.ignored {
        found.warn(KEY, format!("line {line} of {}: {key} is not acted on", path.display()));
    }
    if content.table != Table::Auto {
        let reason = format!("{}: Table is not acted on; routes go into the main table", path.display());
        found.warn(KEY, reason);
    }
    Some(WgFile { path: Some(path.to_owned()), content })
}

impl WgFile {
    pub(super) fn shown(&self) -> String {
        self.path.as_deref().map_or_else(String::new, |path| path.display().to_string())
    }

    /// The interface is called like the file, as with wg-quick.
    pub(super) fn interface(&self) -> Option<InterfaceName> {
        self.path.as_deref().and_then(Path::file_stem)?.to_str()?.parse().ok()
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = CheckedPeer> + '_ {
        self.content.peers.iter().map(|peer| CheckedPeer {
            place: format!("{} of {}", peer.public_key, self.shown()),
            prefix: format!("{KEY}: "),
            name: None,
            public_key: Some(peer.public_key),
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: peer.allowed_ips.iter().map(|&net| (KEY.to_owned(), net)).collect(),
            endpoint: peer.endpoint.clone(),
            persistent_keepalive: peer.persistent_keepalive.filter(|&seconds| seconds > 0),
        })
    }

    /// The value that is written here or in the file; in both is reported.
    pub(super) fn or_written<T>(
        &self,
        key: &str,
        name: &str,
        written: Option<T>,
        in_file: Option<T>,
        found: &mut Findings,
    ) -> Option<T> {
        if written.is_some() && in_file.is_some() {
            found.report(key, format!("stands beside the {name} of {}: write only one of them", self.shown()));
        }
        written.or(in_file)
    }
}
