//! Rules of other programs, as nft and iptables list them: they are judged, and each finding is one line.
#![no_main]

use bastiond::internals::config::{Config, Environment, parse};
use bastiond::internals::nat::judge_listings;
use bastiond::internals::site::{PrivateLink, PublicLink, Site};
use libfuzzer_sys::fuzz_target;

std::thread_local! {
    static WORLD: (Config, Site) = world();
}

/// A gateway with a forward.
fn world() -> (Config, Site) {
    let text = "[[nat.forward]]\nport = 443\nto = \"10.0.0.4\"\n";
    let public = PublicLink {
        interface: "eth0".parse().expect("a name"),
        mtu: 1500,
        addresses: vec!["198.51.100.2".parse().expect("an address")],
    };
    let private = PrivateLink {
        interface: "eth1".parse().expect("a name"),
        mtu: 1450,
        address: "10.0.0.2".parse().expect("an address"),
        address_present: true,
        aliases: Default::default(),
        network: "10.0.0.0/16".parse().expect("a range"),
        gateway: None,
        behind: Vec::new(),
        is_local: false,
        network_id: None,
        network_name: None,
    };
    let config = parse(text, &Environment::default()).expect("a configuration");
    (config, Site { public: Some(public), private: vec![private], ..Site::default() })
}

fuzz_target!(|text: &str| {
    WORLD.with(|(config, site)| {
        for finding in judge_listings(text, config, site) {
            assert!(!finding.is_empty());
        }
    });
});
