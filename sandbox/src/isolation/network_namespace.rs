//! The identity of network namespaces.

use std::fmt;
use std::os::unix::fs::MetadataExt;

use super::error::Error;

/// Identifies a network namespace by the inode number of `/proc/self/ns/net`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkNamespaceId(pub(super) u64);

impl NetworkNamespaceId {
    /// The network namespace of the calling thread.
    pub fn of_this_thread() -> Result<Self, Error> {
        let path = "/proc/thread-self/ns/net";
        let status = std::fs::metadata(path).map_err(|source| Error::Read { path, source })?;
        Ok(Self(status.ino()))
    }
}

impl fmt::Display for NetworkNamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.0)
    }
}
