//! Where a device gets its sockets from: from its own process, or from another one that may do more.

use std::sync::Arc;

use super::udp::{Error, UdpPair};

/// Where the sockets of a device come from.
pub trait SocketSource: Send + Sync {
    /// Binds so many pairs to one port (0: any), with this mark.
    fn bind(&self, port: u16, fwmark: u32, pairs: usize) -> Result<Vec<Arc<UdpPair>>, Error>;

    /// Changes the mark of what these send.
    fn mark(&self, pairs: &[Arc<UdpPair>], fwmark: u32) -> Result<(), Error>;
}

/// This process makes its sockets itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnSockets;

impl SocketSource for OwnSockets {
    fn bind(&self, port: u16, fwmark: u32, pairs: usize) -> Result<Vec<Arc<UdpPair>>, Error> {
        UdpPair::bind(port, fwmark, pairs)
    }

    fn mark(&self, pairs: &[Arc<UdpPair>], fwmark: u32) -> Result<(), Error> {
        pairs.iter().try_for_each(|pair| pair.set_fwmark(fwmark))
    }
}
