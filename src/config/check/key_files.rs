//! Keys in files of their own.

use std::path::Path;
use std::str::FromStr;

use super::diagnostics::Diagnostics;
use crate::config::files::{Files, ReadError, permission_fix, remedy};
use crate::error::chain;
use bastiond_tunnel::key::InvalidKey;

/// Reads the key in the file at `path`. Invalid content is an error of the configuration key `key`; a file that every
/// user can read is a warning.
pub(super) fn read_key<K: FromStr<Err = InvalidKey>>(
    key: &str,
    path: &Path,
    files: &impl Files,
    diagnostics: &mut Diagnostics,
) -> Result<Option<K>, ReadError> {
    let read = read(key, path, files, diagnostics)?;
    Ok(read.map_err(|reason| diagnostics.error(key, reason)).ok())
}

/// The same, but invalid content is only a warning.
pub(super) fn read_key_or_warn<K: FromStr<Err = InvalidKey>>(
    key: &str,
    path: &Path,
    files: &impl Files,
    diagnostics: &mut Diagnostics,
) -> Result<Option<K>, ReadError> {
    let read = read(key, path, files, diagnostics)?;
    Ok(read.map_err(|reason| diagnostics.warn(key, reason)).ok())
}

/// The key, or why the file holds none.
fn read<K: FromStr<Err = InvalidKey>>(
    key: &str,
    path: &Path,
    files: &impl Files,
    diagnostics: &mut Diagnostics,
) -> Result<Result<K, String>, ReadError> {
    let file = files.read(path)?;
    if file.world_readable {
        diagnostics.warn(key, world_readable_secret(path));
    }
    // Without the text, which may be a truncated key.
    let no_key = |error| format!("{} does not hold a key: {error}", path.display());
    Ok(file.text.trim().parse().map_err(no_key))
}

/// The path if it is absolute. A relative path is an error.
pub(super) fn parse_absolute_path<'a>(key: &str, text: &'a str, diagnostics: &mut Diagnostics) -> Option<&'a Path> {
    let path = Path::new(text);
    if !path.is_absolute() {
        diagnostics.error(key, format!("`{text}` is not an absolute path"));
        return None;
    }
    Some(path)
}

/// Reports a file that cannot be read.
pub(super) fn report_read_error(key: &str, path: &Path, error: &ReadError, diagnostics: &mut Diagnostics) {
    diagnostics.error(key, format!("cannot read {}: {}{}", path.display(), chain(error), remedy(error, path)));
}

/// The warning about a secret that every user can read.
pub(super) fn world_readable_secret(path: &Path) -> String {
    let fix = permission_fix(path);
    format!("every user of this server can read {}, which holds a secret; run `{fix}`", path.display())
}
