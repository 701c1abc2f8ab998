//! Senders of protocols without ports, as the rules note them.

use std::net::Ipv4Addr;

/// A host inside that has sent first packets of a protocol without ports to one destination on the internet, within the
/// last minutes. One packet is enough for a flow; where there are more, no flow has come of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortlessSender {
    pub host: Ipv4Addr,
    /// Number of the protocol in the IP header.
    pub protocol: u8,
    pub destination: Ipv4Addr,
    /// How many such packets.
    pub packets: u64,
}
