//! `wireguard.file`: an existing tunnel in the format of wg(8) and wg-quick(8).

use std::path::{Path, PathBuf};

use super::context::CheckContext;
use super::diagnostics::Diagnostics;
use super::key_files;
use super::peers::CheckedPeer;
use crate::config::files::Files;
use crate::net::InterfaceName;
use bastiond_tunnel::file::{self, File, Table};

/// The key that names the file.
pub(super) const KEY: &str = "wireguard.file";

/// The file. Empty if the configuration names none.
#[derive(Default)]
pub(super) struct WgFile {
    pub(super) path: Option<PathBuf>,
    pub(super) content: File,
}

/// Reads the file at `text`. Each error in it is reported with its line.
pub(super) fn read_wg_file(
    text: &str,
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> Option<WgFile> {
    let path = key_files::parse_absolute_path(KEY, text, diagnostics)?;
    let read = match context.files.read(path) {
        Ok(read) => read,
        Err(error) => {
            key_files::report_read_error(KEY, path, &error, diagnostics);
            return None;
        }
    };
    let parsed = match file::parse(read.text.as_bytes()) {
        Ok(parsed) => parsed,
        Err(problems) => {
            for file::Problem { line, reason } in problems {
                diagnostics.error(KEY, format!("line {line} of {}: {reason}", path.display()));
            }
            return None;
        }
    };
    let has_secret = parsed.private_key.is_some() || parsed.peers.iter().any(|peer| peer.preshared_key.is_some());
    if read.world_readable && has_secret {
        diagnostics.warn(KEY, key_files::world_readable_secret(path));
    }
    for file::Ignored { line, key } in &parsed.ignored {
        diagnostics.warn(KEY, format!("line {line} of {}: bastiond ignores {key}", path.display()));
    }
    if parsed.table != Table::Auto {
        let reason = format!("{}: bastiond ignores Table; its routes go into the main table", path.display());
        diagnostics.warn(KEY, reason);
    }
    Some(WgFile { path: Some(path.to_owned()), content: parsed })
}

impl WgFile {
    fn path_text(&self) -> String {
        self.path.as_deref().map_or_else(String::new, |path| path.display().to_string())
    }

    /// The interface's name: the file's name without its extension, as with wg-quick.
    pub(super) fn interface(&self) -> Option<InterfaceName> {
        self.path.as_deref().and_then(Path::file_stem)?.to_str()?.parse().ok()
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = CheckedPeer> + '_ {
        self.content.peers.iter().map(|peer| CheckedPeer {
            place: format!("{} of {}", peer.public_key, self.path_text()),
            prefix: format!("{KEY}: "),
            name: None,
            public_key: Some(peer.public_key),
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: peer.allowed_ips.iter().map(|&net| (KEY.to_owned(), net)).collect(),
            // The format has no key for it.
            in_private_network: false,
            endpoint: peer.endpoint.clone(),
            persistent_keepalive: peer.persistent_keepalive.filter(|&seconds| seconds > 0),
        })
    }

    /// The value of the configuration or of this file, where it is called `name`. Both together are an error of `key`.
    pub(super) fn value_from_one_place<T>(
        &self,
        key: &str,
        name: &str,
        in_config: Option<T>,
        in_file: Option<T>,
        diagnostics: &mut Diagnostics,
    ) -> Option<T> {
        self.check_one_place(key, name, in_config.is_some(), in_file.is_some(), diagnostics);
        in_config.or(in_file)
    }

    /// Reports a value that is both in the configuration and in this file, where it is called `name`.
    pub(super) fn check_one_place(
        &self,
        key: &str,
        name: &str,
        in_config: bool,
        in_file: bool,
        diagnostics: &mut Diagnostics,
    ) {
        if in_config && in_file {
            let reason = format!("{} sets {name} too; remove one of them", self.path_text());
            diagnostics.error(key, reason);
        }
    }
}
