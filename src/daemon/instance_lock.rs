//! One daemon on a runtime directory at a time.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use super::Error;
use crate::config::Environment;
use crate::own_file;

/// The lock's file in the runtime directory.
pub(crate) const FILE: &str = "lock";
/// How often the lock is tried: a daemon that is ending holds it for a moment more.
const TRIES: u32 = 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Proof that no other daemon works with this runtime directory.
#[derive(Debug)]
pub(crate) struct InstanceLock(#[expect(dead_code, reason = "held for its lock, which ends with it")] Flock<File>);

impl InstanceLock {
    /// Makes the runtime and state directories where they are missing, and takes the lock.
    ///
    /// # Errors
    /// A directory cannot be made, or another daemon holds the lock.
    pub(crate) fn acquire(environment: &Environment) -> Result<Self, Error> {
        for path in [environment.runtime_directory(), environment.state_directory()] {
            let made = DirBuilder::new().recursive(true).mode(0o750).create(&path);
            made.map_err(|source| Error::Directory { path, source })?;
        }
        let path = environment.runtime_directory().join(FILE);
        let failed = |source| Error::Lock { path: path.clone(), source };
        for _ in 0..TRIES {
            let file = own_file::open_lock(&path).map_err(failed)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    own_file::remove_unfinished(&environment.runtime_directory());
                    own_file::remove_unfinished(&environment.state_directory());
                    return Ok(Self(lock));
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => std::thread::sleep(PAUSE),
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
        Err(Error::Running { path })
    }
}
