//! The addresses of the world. Public ones are from the documentation prefixes (RFC 5737, RFC 3849).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

/// The gateway of every Hetzner server's public interface: on the link, although no prefix of the server covers it
/// (Hetzner documentation, "Static configuration of IP addresses").
pub const PUBLIC_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 1, 1);
/// The IPv6 gateway of every Hetzner server's public interface.
pub const PUBLIC_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The bastion's public address.
pub const BASTION: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The bastion's address in the private network.
pub const BASTION_PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The bastion's address in the second network.
pub const BASTION_SECOND: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);

/// The host on the internet.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The IPv6 address of the host on the internet.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);
/// The address of the fake cloud's API, on the internet's router.
pub const API: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The IPv6 address of the internet's router.
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);

/// The public address of the NAT router in front of the laptop.
pub const HOME: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// The gateway of that NAT router.
pub const HOME_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The address of the laptop.
pub const LAPTOP: Ipv4Addr = Ipv4Addr::new(192, 168, 178, 20);
/// The private address of the NAT router, the laptop's gateway.
pub const LAPTOP_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 178, 1);

/// The cloud's metadata service, which only servers can reach.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// A private host in the network's first subnet.
pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 4);
/// A private host in the network's second subnet.
pub const WORKER: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 5);
/// A private host in the second network.
pub const TENANT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 4);

/// The private network, with one subnet for servers and one for workers.
pub const PRIVATE: Range = Range { range: net(10, 0, 0, 0, 16), subnets: [net(10, 0, 0, 0, 24), net(10, 0, 1, 0, 24)] };
/// The second network.
pub const SECOND: Range = Range { range: net(10, 2, 0, 0, 16), subnets: [net(10, 2, 0, 0, 24), net(10, 2, 1, 0, 24)] };

/// The MTU of Hetzner's private networks; the public links have 1500 (Hetzner documentation, "Networks: Architecture").
pub const PRIVATE_MTU: u32 = 1450;

/// The addresses of a private network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The IP range of the network.
    pub range: Ipv4Net,
    /// The subnets, from which servers get their addresses.
    pub subnets: [Ipv4Net; 2],
}

impl Range {
    /// The virtual gateway: the first address of the network's range, for all subnets.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.range.network().to_bits() + 1)
    }
}

const fn net(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}
