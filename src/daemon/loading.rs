//! Reads the configuration beside the loop: a file system that hangs must not keep a rule from being repaired.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{self, Bundle, Config, Environment, ReadError};

/// How long the files may take to be read.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads and checks the configuration, in a thread of its own.
pub(super) async fn load(path: &Path, environment: &Environment) -> Result<(Config, Bundle), config::Error> {
    let (file, environment) = (path.to_owned(), environment.clone());
    checked_beside(path.to_owned(), move || config::load_with_texts(&file, &environment)).await
}

/// Checks a configuration that a client sent, in a thread of its own: a large one takes a tenth of a second.
pub(super) async fn check(bundle: Bundle, environment: &Environment) -> Result<Config, config::Error> {
    let (path, environment) = (bundle.path().to_owned(), environment.clone());
    checked_beside(path, move || bundle.check(&environment)).await
}

async fn checked_beside<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> Result<T, config::Error> + Send + 'static,
) -> Result<T, config::Error> {
    let failed = |source: io::Error| config::Error::Read { path, source: ReadError::from(source) };
    match tokio::time::timeout(TIMEOUT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => Err(failed(io::Error::other(error))),
        Err(_) => Err(failed(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the file system did not answer within {} s", TIMEOUT.as_secs()),
        ))),
    }
}
