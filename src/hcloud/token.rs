//! The API token. Every pass reads it again, so that a new token needs no restart.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{Secret, TokenSource};
use crate::regular_file;

/// The most bytes of a token. Hetzner's tokens have 64 characters; a longer file is not a token.
const MAX_BYTES: u64 = 1024;

/// Why the configured token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file exists and cannot be read.
    #[error("cannot read the API token from {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The variable does not contain a token. Its content is not shown.
    #[error("HCLOUD_TOKEN holds no API token (visible characters are expected)")]
    NotATokenVariable,
    /// The file does not contain a token. Its content is not shown.
    #[error("{} holds no API token (one line of visible characters is expected)", path.display())]
    NotAToken { path: PathBuf },
}

impl Error {
    /// What the operator can do.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "`systemctl restart bastiond` passes /etc/bastiond/hcloud-token, which only root can read, to the \
                 daemon as a credential; for another file, name that in LoadCredential= of the unit"
            }
            _ => "check hcloud.token_file or the systemd credential hcloud-token",
        }
    }
}

/// The token of the first file that exists, or of `HCLOUD_TOKEN`; `None` if there is neither.
pub(super) fn read(source: &TokenSource) -> Result<Option<Secret>, Error> {
    if let Some(path) = &source.credential {
        let text = text(path)?.unwrap_or_default();
        if !text.trim().is_empty() {
            return token(path, &text).map(Some);
        }
    }
    for path in &source.files {
        if let Some(text) = text(path)? {
            return token(path, &text).map(Some);
        }
    }
    match &source.value {
        Some(token) if !is_token(token.expose()) => Err(Error::NotATokenVariable),
        token => Ok(token.clone()),
    }
}

/// Reads the token now and keeps it in place of its sources, for a process that will not be able to read them. An error
/// is found again by the pass, which reports it.
pub(crate) fn read_ahead(source: &mut TokenSource) {
    if let Ok(Some(token)) = read(source) {
        *source = TokenSource { credential: None, files: Vec::new(), value: Some(token) };
    }
}

/// The content of a file; `None` if there is no such file.
fn text(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    match regular_file::read_text(path, MAX_BYTES) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(regular_file::Error::TooLarge { .. }) => Err(Error::NotAToken { path: path.to_owned() }),
        Err(error) => Err(failed(error.into_io())),
    }
}

fn token(path: &Path, text: &str) -> Result<Secret, Error> {
    let token = text.trim();
    if is_token(token) { Ok(Secret::new(token.to_owned())) } else { Err(Error::NotAToken { path: path.to_owned() }) }
}

/// One line of visible characters, as an HTTP header can carry.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() as u64 <= MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: &[PathBuf], value: Option<&str>) -> TokenSource {
        TokenSource { credential: None, files: files.to_vec(), value: value.map(|value| Secret::new(value.to_owned())) }
    }

    #[test]
    fn the_first_existing_file_is_preferred_over_the_variable() {
        let directory = tempfile::tempdir().unwrap();
        let [missing, first, second] = ["missing", "first", "second"].map(|name| directory.path().join(name));
        std::fs::write(&first, "one\n").unwrap();
        std::fs::write(&second, "two").unwrap();
        let token = read(&source(&[missing.clone(), first, second], Some("three"))).unwrap();
        assert_eq!(token, Some(Secret::new("one".to_owned())));
        assert_eq!(
            read(&source(std::slice::from_ref(&missing), Some("three"))).unwrap(),
            Some(Secret::new("three".to_owned()))
        );
        assert_eq!(read(&source(&[missing], None)).unwrap(), None);
    }

    #[test]
    fn a_credential_is_preferred_and_an_empty_one_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let [credential, file] = ["credential", "file"].map(|name| directory.path().join(name));
        let source =
            |files: &[PathBuf]| TokenSource { credential: Some(credential.clone()), ..source(files, Some("three")) };
        std::fs::write(&file, "two\n").unwrap();
        for (content, expected) in [("one\n", "one"), ("", "two"), ("\n", "two")] {
            std::fs::write(&credential, content).unwrap();
            let token = read(&source(std::slice::from_ref(&file))).unwrap();
            assert_eq!(token, Some(Secret::new(expected.to_owned())), "{content:?}");
        }
        assert_eq!(read(&source(&[])).unwrap(), Some(Secret::new("three".to_owned())));
        std::fs::write(&credential, "two words").unwrap();
        read(&source(&[file])).unwrap_err();
    }

    #[test]
    fn the_advice_for_an_unreadable_file_is_to_pass_it_as_a_credential() {
        let denied =
            |kind: io::ErrorKind| Error::Read { path: "/etc/bastiond/hcloud-token".into(), source: kind.into() };
        assert!(denied(io::ErrorKind::PermissionDenied).advice().contains("systemctl restart bastiond"));
        assert!(denied(io::ErrorKind::InvalidData).advice().contains("hcloud.token_file"));
    }

    #[test]
    fn the_content_of_a_file_that_is_no_token_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for content in ["", "\n \n", "two words", "a\nb", &"x".repeat(2000)] {
            std::fs::write(&path, content).unwrap();
            let error = read(&source(std::slice::from_ref(&path), Some("fallback"))).unwrap_err().to_string();
            assert!(error.ends_with("holds no API token (one line of visible characters is expected)"), "{error}");
        }
        read(&source(&[directory.path().to_owned()], None)).unwrap_err();
    }
}
