//! The names of peers by their addresses. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::config::Config;

/// By address: the name of the peer that has it, or its key if it has no name.
#[derive(Debug, Default)]
pub(crate) struct PeerNames {
    single: HashMap<IpAddr, String>,
    v4: PrefixMap<Ipv4Net, String>,
    v6: PrefixMap<Ipv6Net, String>,
}

impl PeerNames {
    pub(crate) fn new(config: &Config) -> Self {
        let mut names = Self::default();
        for peer in config.wireguard.iter().flat_map(|wireguard| &wireguard.peers) {
            for range in &peer.allowed_ips {
                match range {
                    single if single.prefix_len() == single.max_prefix_len() => {
                        names.single.insert(single.addr(), peer.label());
                    }
                    // Every address of the internet is nobody's name.
                    everything if everything.prefix_len() == 0 => {}
                    IpNet::V4(range) => _ = names.v4.insert(*range, peer.label()),
                    IpNet::V6(range) => _ = names.v6.insert(*range, peer.label()),
                }
            }
        }
        names
    }

    /// The peer with this address, by the narrowest range that contains it.
    pub(crate) fn at(&self, address: IpAddr) -> Option<&str> {
        let in_range = match address {
            IpAddr::V4(address) => self.v4.get_lpm(&Ipv4Net::from(address)).map(|(_, name)| name),
            IpAddr::V6(address) => self.v6.get_lpm(&Ipv6Net::from(address)).map(|(_, name)| name),
        };
        self.single.get(&address).or(in_range).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};

    #[test]
    fn an_address_has_the_name_of_the_peer_with_the_narrowest_range() {
        let text = "[wireguard]\naddresses = [\"10.100.0.1/24\"]\n[[wireguard.peer]]\nname = \"office\"\n\
                    public_key = \"TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\"\n\
                    allowed_ips = [\"192.168.0.0/16\", \"0.0.0.0/0\", \"fd00:7::/64\"]\n[[wireguard.peer]]\n\
                    public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n\
                    allowed_ips = [\"10.100.0.2\", \"192.168.7.0/24\", \"fd00:7::2\"]\n";
        let names = PeerNames::new(&parse(text, &Environment::default()).unwrap());
        let key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        for (address, expected) in [
            ("10.100.0.2", Some(key)),
            ("192.168.7.7", Some(key)),
            ("192.168.8.8", Some("office")),
            ("fd00:7::2", Some(key)),
            ("fd00:7::3", Some("office")),
            ("203.0.113.7", None),
        ] {
            assert_eq!(names.at(address.parse().unwrap()), expected, "{address}");
        }
    }
}
