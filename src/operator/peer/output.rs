//! Where a client's configuration goes.

use std::path::{Path, PathBuf};

use super::client::Client;
use super::error::Error;
use super::qr::Code;
use crate::cli::ClientOutput;
use crate::own_file::{self, Readers};

/// The places, checked before anything is changed.
#[derive(Debug)]
pub(super) struct Output<'a> {
    places: &'a ClientOutput,
}

impl<'a> Output<'a> {
    /// Checks that no file is there yet, and that what is drawn will be of use.
    pub(super) fn prepare(places: &'a ClientOutput, has_private_key: bool) -> Result<Self, Error> {
        if (places.qr || places.png.is_some()) && !has_private_key {
            return Err(Error::CodeWithoutKey);
        }
        for path in places.output.iter().chain(&places.png) {
            if path.symlink_metadata().is_ok() {
                return Err(Error::OutputExists { path: path.clone() });
            }
        }
        Ok(Self { places })
    }

    /// Writes and prints the configuration. What cannot be written into a file is printed, since the private key is
    /// nowhere else.
    pub(super) fn emit(&self, client: &Client<'_>) -> Result<(), Error> {
        let text = client.text();
        let file = self.places.output.as_deref().map(|path| write(path, text.as_bytes()));
        if !matches!(file, Some(Ok(()))) {
            print!("{}", text.as_str());
        }
        let gaps = client.gaps();
        if !gaps.is_empty() {
            eprintln!("bastionctl: replace {} in it", gaps.join(", "));
        }
        file.unwrap_or(Ok(()))?;
        if !self.places.qr && self.places.png.is_none() {
            return Ok(());
        }
        if !gaps.is_empty() {
            return Err(Error::CodeWithGaps);
        }
        let code = Code::new(&text)?;
        if let Some(path) = &self.places.png {
            write(path, &code.picture()?)?;
        }
        if self.places.qr {
            print!("{}", code.for_terminal()?.as_str());
        }
        Ok(())
    }
}

/// Only the caller can read the file.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Output { path: PathBuf::from(path), source };
    own_file::write_for(path, bytes, false, Readers::None).map_err(failed)
}
