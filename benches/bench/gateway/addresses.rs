//! The addresses of the test beds.

use std::net::Ipv4Addr;

/// The client, of the private network 10.0.0.0/16.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
/// The bastion's public address (documentation prefix, RFC 5737). Like most addresses of the internet, those of this
/// prefix begin as no range that is reserved for other purposes does.
pub(crate) const BASTION: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The hardware address of the bastion's private link.
pub(crate) const BASTION_MAC: [u8; 6] = [0x86, 0, 0, 0x2a, 0, 2];
