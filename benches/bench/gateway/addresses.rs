//! The addresses of the test beds.

use std::net::Ipv4Addr;

/// The client, of the private network 10.0.0.0/16.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
/// The bastion's public address (documentation prefix, RFC 5737).
pub(crate) const BASTION: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The hardware address of the bastion's private link.
pub(crate) const BASTION_MAC: [u8; 6] = [0x86, 0, 0, 0x2a, 0, 2];
