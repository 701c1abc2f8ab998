//! A connection to the kernel's links, addresses and routes that ends with its value.

use std::io;

use rtnetlink::Handle;
use tokio::task::JoinHandle;

/// A conversation by route netlink; it ends when dropped.
#[derive(Debug)]
pub(crate) struct RtnetlinkConnection {
    /// For requests.
    pub(crate) handle: Handle,
    task: JoinHandle<()>,
}

impl RtnetlinkConnection {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Drop for RtnetlinkConnection {
    fn drop(&mut self) {
        self.task.abort();
    }
}
