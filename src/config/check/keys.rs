//! Keys in files of their own.

use std::path::Path;
use std::str::FromStr;

use super::super::files::{self, Files, Unreadable};
use super::super::findings::Findings;
use crate::error::chain;
use bastiond_tunnel::key::InvalidKey;

/// The key in the file at `path`, or why it cannot be read. What is no key is reported under `key`; so is a file that
/// everybody may read, as a warning.
pub(super) fn read<K: FromStr<Err = InvalidKey>>(
    key: &str,
    path: &Path,
    files: &impl Files,
    found: &mut Findings,
) -> Result<Option<K>, Unreadable> {
    let file = files.read(path)?;
    if file.readable_by_all {
        found.warn(key, open_to_all(path));
    }
    let parsed = file.text.trim().parse();
    if let Err(error) = &parsed {
        // Without the text: it may be a key that was cut off.
        found.report(key, format!("{} holds something else: {error}", path.display()));
    }
    Ok(parsed.ok())
}

/// An absolute path, or a report.
pub(super) fn absolute<'a>(key: &str, text: &'a str, found: &mut Findings) -> Option<&'a Path> {
    let path = Path::new(text);
    if !path.is_absolute() {
        found.report(key, format!("`{text}` is no absolute path"));
        return None;
    }
    Some(path)
}

/// Reports a file that has to be there.
pub(super) fn report_unreadable(key: &str, path: &Path, error: &Unreadable, found: &mut Findings) {
    found.report(key, format!("cannot read {}: {}{}", path.display(), chain(error), error.remedy(path)));
}

/// What is said of a secret that is none.
pub(super) fn open_to_all(path: &Path) -> String {
    format!(
        "everybody on this server may read {}, which holds a secret: `{}`",
        path.display(),
        files::for_the_daemon(path)
    )
}
