//! Cryptokey routing: which peer a prefix belongs to.
//!
//! One table over all peers, and the longest prefix decides, in both directions: where a packet goes, and whether a
//! peer may send from an address. A prefix has one owner; adding it to another peer removes it from the first, as the
//! kernel does (drivers/net/wireguard/allowedips.c).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

/// A peer's index in the table of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Prefixes and their owners.
#[derive(Debug, Default)]
pub(crate) struct AllowedIps {
    v4: PrefixMap<Ipv4Net, Slot>,
    v6: PrefixMap<Ipv6Net, Slot>,
}

impl AllowedIps {
    /// Adds a prefix to a peer; the former owner, if any.
    pub(crate) fn insert(&mut self, net: IpNet, owner: Slot) -> Option<Slot> {
        match net {
            IpNet::V4(net) => self.v4.insert(net.trunc(), owner),
            IpNet::V6(net) => self.v6.insert(net.trunc(), owner),
        }
    }

    /// Removes a prefix, if this peer has it.
    pub(crate) fn remove(&mut self, net: IpNet, owner: Slot) {
        match net {
            IpNet::V4(net) if self.v4.get(&net) == Some(&owner) => drop(self.v4.remove(&net)),
            IpNet::V6(net) if self.v6.get(&net) == Some(&owner) => drop(self.v6.remove(&net)),
            _ => {}
        }
    }

    /// The owner of the longest prefix that contains an address.
    #[inline]
    pub(crate) fn owner(&self, address: IpAddr) -> Option<Slot> {
        match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, slot)| *slot),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, slot)| *slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_over_all_peers_decides() {
        let mut table = AllowedIps::default();
        table.insert(net("10.0.0.0/8"), Slot(1));
        table.insert(net("10.0.0.7/32"), Slot(2));
        table.insert(net("::/0"), Slot(3));
        assert_eq!(table.owner("10.0.0.7".parse().unwrap()), Some(Slot(2)));
        assert_eq!(table.owner("10.0.0.8".parse().unwrap()), Some(Slot(1)));
        assert_eq!(table.owner("11.0.0.8".parse().unwrap()), None);
        assert_eq!(table.owner("fd00::1".parse().unwrap()), Some(Slot(3)));
    }

    #[test]
    fn a_prefix_has_one_owner_and_is_removed_from_that_one_only() {
        let mut table = AllowedIps::default();
        assert_eq!(table.insert(net("10.0.0.0/24"), Slot(1)), None);
        assert_eq!(table.insert(net("10.0.0.0/24"), Slot(2)), Some(Slot(1)));
        table.remove(net("10.0.0.0/24"), Slot(1));
        assert_eq!(table.owner("10.0.0.1".parse().unwrap()), Some(Slot(2)));
        table.remove(net("10.0.0.0/24"), Slot(2));
        assert_eq!(table.owner("10.0.0.1".parse().unwrap()), None);
    }

    // Few bits, so that prefixes nest and collide.
    fn narrow() -> impl Strategy<Value = Ipv4Net> {
        (0_u32..16, 26_u8..=32)
            .prop_map(|(host, length)| Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | (host << 2)), length).unwrap().trunc())
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_list_that_is_searched(
            steps in prop::collection::vec((narrow(), 0_u32..4, any::<bool>()), 0..60),
        ) {
            let mut table = AllowedIps::default();
            let mut list: Vec<(Ipv4Net, Slot)> = Vec::new();
            for (net, owner, add) in steps {
                let owner = Slot(owner);
                if add {
                    list.retain(|(other, _)| *other != net);
                    list.push((net, owner));
                    table.insert(net.into(), owner);
                } else {
                    list.retain(|entry| *entry != (net, owner));
                    table.remove(net.into(), owner);
                }
            }
            for host in 0_u32..80 {
                let address = Ipv4Addr::from(0x0a00_0000 | host);
                let owners = list.iter().filter(|(net, _)| net.contains(&address));
                let longest = owners.max_by_key(|(net, _)| net.prefix_len());
                prop_assert_eq!(table.owner(address.into()), longest.map(|(_, owner)| *owner));
            }
        }
    }
}
