//! Under which addresses the networks' flows leave, for those who look whether each of them works.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::config::Config;
use crate::site::Site;

/// Each private network with each of its egress addresses that this server has: those of the network, of its parts and
/// hosts (`[[network.egress]]`), or else the public interface's first one.
pub fn egress_addresses(config: &Config, site: &Site) -> BTreeSet<(Ipv4Net, Ipv4Addr)> {
    let Some(public) = &site.public else { return BTreeSet::new() };
    let mut pairs = BTreeSet::new();
    for link in &site.private {
        let policy = config.policy_of(link.network, &link.interface);
        let whole = policy.and_then(|policy| policy.egress_addresses.as_ref()).unwrap_or(&config.nat.egress_addresses);
        let of_hosts = policy.iter().flat_map(|policy| &policy.egress).map(|entry| &entry.addresses);
        for addresses in of_hosts.chain([whole]) {
            let is_usable =
                |address: &&Ipv4Addr| public.addresses.contains(address) && !config.nat.drain.contains(*address);
            let usable: Vec<Ipv4Addr> = addresses.iter().filter(is_usable).copied().collect();
            let own = public.addresses.first().filter(|_| usable.is_empty()).copied();
            pairs.extend(usable.into_iter().chain(own).map(|address| (link.network, address)));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use crate::site::{PrivateLink, PublicLink};

    #[test]
    fn each_network_is_listed_with_each_address_that_its_flows_can_have() {
        let link = |interface: &str, network: &str| PrivateLink {
            interface: interface.parse().unwrap(),
            mtu: 1450,
            address: "10.0.0.2".parse().unwrap(),
            address_present: true,
            aliases: BTreeSet::new(),
            network: network.parse().unwrap(),
            gateway: None,
            behind: Vec::new(),
            is_local: false,
            network_id: None,
            network_name: None,
        };
        let addresses = [2, 50, 51].map(|last| Ipv4Addr::new(198, 51, 100, last));
        let site = Site {
            public: Some(PublicLink { interface: "eth0".parse().unwrap(), mtu: 1500, addresses: addresses.into() }),
            private: vec![link("eth1", "10.0.0.0/16"), link("eth2", "10.2.0.0/16")],
            ..Site::default()
        };
        let text = "[[network]]\nrange = \"10.0.0.0/16\"\negress_addresses = [\"198.51.100.50\"]\n\
                    [[network.egress]]\nfrom = [\"10.0.2.0/24\"]\naddresses = [\"198.51.100.51\", \"198.51.100.99\"]\n";
        let config = parse(text, &Environment::default()).unwrap();
        let pair = |network: &str, last| (network.parse().unwrap(), Ipv4Addr::new(198, 51, 100, last));
        let expected = [pair("10.0.0.0/16", 50), pair("10.0.0.0/16", 51), pair("10.2.0.0/16", 2)];
        assert_eq!(egress_addresses(&config, &site), expected.into());
    }
}
