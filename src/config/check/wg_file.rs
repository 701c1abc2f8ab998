//! `wireguard.file`: an existing tunnel in the format of wg(8) and wg-quick(8).

use std::path::{Path, PathBuf};

use super::context::CheckContext;
use super::diagnostics::Diagnostics;
use super::key_files;
use super::peers::{CheckedPeer, RawAccess};
use crate::config::files::Files;
use crate::net::InterfaceName;
use bastiond_tunnel::file::{self, File, HookSetting};

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
    for file::Problem { line, reason } in &parsed.warnings {
        diagnostics.warn(KEY, format!("line {line} of {}: {reason}", path.display()));
    }
    for file::Ignored { line, key, sets } in &parsed.ignored {
        if sets.iter().all(|setting| *setting == HookSetting::Other) {
            let sets = if sets.is_empty() { "" } else { ", which changes the tunnel by `wg set`: write that as a key" };
            diagnostics.warn(KEY, format!("line {line} of {}: bastiond ignores {key}{sets}", path.display()));
        }
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

    /// The file's name as that of the interface, which no key gives. wg-quick takes `NAME.conf` only.
    pub(super) fn check_name(&self, diagnostics: &mut Diagnostics) {
        let Some(path) = &self.path else { return };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rule =
            "a file NAME.conf, with 1 to 15 letters, digits, `.`, `_` or `-` as NAME, gives the interface its name";
        match self.interface() {
            None => {
                let reason =
                    format!("`{name}` is no name for an interface: {rule}; rename it, or write wireguard.interface");
                diagnostics.error(KEY, reason);
            }
            Some(interface) if path.extension().is_none_or(|extension| extension != "conf") => {
                let reason = format!(
                    "{rule}; `{name}` is called otherwise (a back-up?), and the interface {interface}: rename it, or \
                     write wireguard.interface"
                );
                diagnostics.warn(KEY, reason);
            }
            Some(_) => {}
        }
    }

    /// Hooks that set a key or load a file: without it the tunnel would lack what its peers know, so they are errors.
    /// `has_key_file`: the configuration names a file with the private key, which replaces such a hook.
    pub(super) fn check_hooks(&self, has_key_file: bool, diagnostics: &mut Diagnostics) {
        let interface = self.interface().map_or_else(|| "%i".to_owned(), |interface| interface.to_string());
        for file::Ignored { line, key, sets } in &self.content.ignored {
            let place = format!("line {line} of {}", self.path_text());
            for setting in sets {
                let named = |path: &Option<String>| path.as_ref().map(|path| path.replace("%i", &interface));
                let from = |path: &Option<String>| named(path).map_or_else(String::new, |path| format!(" from {path}"));
                let reason = match setting {
                    HookSetting::PrivateKey(path) if has_key_file => {
                        let from = from(path);
                        let reason = format!(
                            "{place}: bastiond ignores {key}, which sets the private key{from}; it uses \
                             wireguard.private_key_file"
                        );
                        diagnostics.warn(KEY, reason);
                        continue;
                    }
                    HookSetting::PrivateKey(path) => {
                        let example = named(path).unwrap_or_else(|| "/etc/bastiond/wireguard.key".to_owned());
                        let advice = if self.content.private_key.is_some() {
                            "write that key as PrivateKey, and remove the hook".to_owned()
                        } else {
                            format!("write `private_key_file = \"{example}\"` in [wireguard]")
                        };
                        format!("{place}: {key} sets the private key{}; bastiond runs no hooks: {advice}", from(path))
                    }
                    HookSetting::PresharedKey(path) => format!(
                        "{place}: {key} sets a preshared key{}; bastiond runs no hooks: write that key as \
                         PresharedKey of its [Peer], and remove the hook",
                        from(path)
                    ),
                    HookSetting::File(path) => format!(
                        "{place}: {key} loads a configuration{}; bastiond runs no hooks: write its content into this \
                         file, and remove the hook",
                        from(path)
                    ),
                    HookSetting::Other => continue,
                };
                diagnostics.error(KEY, reason);
            }
        }
    }

    /// A file without a private key is part of a tunnel that had its key from elsewhere.
    pub(super) fn warn_of_new_key(&self, made_in: &Path, diagnostics: &mut Diagnostics) {
        if self.path.is_some() {
            let reason = format!(
                "{} has no PrivateKey: a new key is made in {}, which every peer needs; if the tunnel has a key, name \
                 its file in private_key_file",
                self.path_text(),
                made_in.display()
            );
            diagnostics.warn(KEY, reason);
        }
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = CheckedPeer> + '_ {
        self.content.peers.iter().map(|peer| CheckedPeer {
            place: format!("{} of {}", peer.public_key, self.path_text()),
            prefix: format!("{KEY}: "),
            wg_file_key: Some(KEY),
            name: None,
            public_key: Some(peer.public_key),
            preshared_key: peer.preshared_key.clone(),
            allowed_ips: peer.allowed_ips.iter().map(|&net| (KEY.to_owned(), net)).collect(),
            // The format has no key for it.
            in_private_network: false,
            endpoint: peer.endpoint.clone(),
            persistent_keepalive: peer.persistent_keepalive.filter(|&seconds| seconds > 0),
            enabled: true,
            expires: None,
            access: RawAccess::default(),
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
