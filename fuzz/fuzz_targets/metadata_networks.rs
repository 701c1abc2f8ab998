//! Whatever answers at the metadata service's address, its list of networks is read or refused on one line, and what is
//! read can be.
#![no_main]

use std::collections::BTreeSet;

use bastiond::internals::site::metadata::parse_private_networks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match parse_private_networks(text) {
    Ok(networks) => {
        let interfaces: BTreeSet<_> = networks.iter().map(|network| network.mac_address).collect();
        assert!(networks.len() <= 3 && interfaces.len() == networks.len(), "{networks:?}");
        for network in &networks {
            assert_eq!(network.network, network.network.trunc());
            assert!(network.network.contains(&network.ip) && network.network.prefix_len() >= 8, "{network:?}");
        }
    }
    Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
});
