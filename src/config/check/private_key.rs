//! The private key of the tunnel, from one of its places.

use std::path::PathBuf;

use super::context::CheckContext;
use super::diagnostics::Diagnostics;
use super::key_files;
use super::wg_file::WgFile;
use crate::config::files::Files;
use crate::config::raw::Entry;
use bastiond_tunnel::key::PrivateKey;

/// The name of the systemd credential that may hold the private key.
const CREDENTIAL: &str = "wireguard-private-key";
/// The private key's file in the state directory.
const KEY_FILE: &str = "wireguard.key";

/// The private key's file, and the key if the file exists already.
pub(super) fn check_private_key(
    raw: Entry<String>,
    file: &WgFile,
    context: &CheckContext<'_, impl Files>,
    diagnostics: &mut Diagnostics,
) -> (PathBuf, Option<PrivateKey>) {
    let key = "wireguard.private_key_file";
    let default = context.environment.state_directory().join(KEY_FILE);
    let written = diagnostics.value(key, raw);
    if let Some((path, private_key)) = file.path.as_ref().zip(file.content.private_key.as_ref()) {
        file.check_one_place(key, "PrivateKey", written.is_some(), true, diagnostics);
        file.check_hooks(false, diagnostics);
        return (path.clone(), Some(private_key.clone()));
    }
    file.check_hooks(written.is_some(), diagnostics);
    if let Some(text) = written {
        let Some(path) = key_files::parse_absolute_path(key, &text, diagnostics) else { return (default, None) };
        let private_key = key_files::read_key(key, path, context.files, diagnostics).unwrap_or_else(|error| {
            if !error.is_not_found() {
                key_files::report_read_error(key, path, &error, diagnostics);
            }
            None
        });
        return (path.to_owned(), private_key);
    }
    let credentials = context.environment.credentials_directory.as_ref();
    if let Some(path) = credentials.map(|directory| directory.join(CREDENTIAL)) {
        match key_files::read_key(CREDENTIAL, &path, context.files, diagnostics) {
            Ok(private_key) => return (path, private_key),
            Err(error) if error.is_not_found() => {}
            Err(error) => key_files::report_read_error(CREDENTIAL, &path, &error, diagnostics),
        }
    }
    // An error is no problem here: the key does not exist yet, is damaged (the daemon keeps the key that it has, and
    // reports it), or this process is not the daemon and may not read it. The daemon reports what it finds.
    let private_key = key_files::read_key_or_warn(key, &default, context.files, diagnostics).unwrap_or_default();
    if private_key.is_none() {
        file.warn_of_new_key(&default, diagnostics);
    }
    (default, private_key)
}
