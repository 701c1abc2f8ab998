use super::*;
use crate::config::{self, Environment};
use crate::site::{PrivateLink, PublicLink};

pub(crate) fn private(interface: &str, address: &str, network: &str) -> PrivateLink {
    PrivateLink {
        interface: interface.parse().unwrap(),
        mtu: 1450,
        address: address.parse().unwrap(),
        address_present: true,
        aliases: Default::default(),
        network: network.parse().unwrap(),
        network_id: None,
        network_name: None,
    }
}

fn two_networks() -> Site {
    Site {
        public: Some(PublicLink {
            interface: "eth0".parse().unwrap(),
            mtu: 1500,
            addresses: vec!["198.51.100.2".parse().unwrap()],
        }),
        private: vec![private("eth1", "10.0.0.2", "10.0.0.0/16"), private("eth2", "10.2.0.2", "10.2.0.0/16")],
        ..Site::default()
    }
}

fn config(text: &str) -> Config {
    config::parse(text, &Environment::default()).unwrap()
}

#[test]
fn dump() {
    let r = desired(&config(""), &two_networks()).unwrap();
    std::fs::write("/tmp/t.json", serde_json::json!({"nftables": commands(&r, None)}).to_string()).unwrap();
}
