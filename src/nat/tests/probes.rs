//! The probes' part of the rules.

use std::net::Ipv4Addr;

use super::*;

/// The sources of probes and the addresses under which they leave.
fn probes(text: &str, site: &Site) -> Vec<String> {
    let paths = probed_paths(&config(text), site);
    paths.iter().map(|path| format!("{} as {:?}", path.source, path.egress)).collect()
}

#[test]
fn a_probe_has_the_networks_broadcast_address_unless_the_kernel_takes_it_for_one() {
    let mut site = one_network();
    assert_eq!(probes("", &site), ["10.0.255.255 as Some(198.51.100.2)"]);
    assert_eq!(probes("health.enabled = false", &site), [""; 0]);
    site.broadcasts.insert("10.0.255.255".parse().unwrap());
    assert_eq!(probes("", &site), ["198.19.240.1 as Some(198.51.100.2)"]);
    let postrouting = |site: &Site| {
        let rules = rules("", site);
        serde_json::to_string(&rules.chains.iter().find(|chain| chain.name == "postrouting").unwrap().rules).unwrap()
    };
    assert!(postrouting(&site).contains("198.19.240.1"), "{}", postrouting(&site));
    assert!(!postrouting(&one_network()).contains("198.19"), "{}", postrouting(&one_network()));
    site.public = None;
    assert_eq!(probes("", &site), [""; 0]);
}

#[test]
fn each_address_of_a_pool_has_a_probe_of_its_own() {
    let addresses: Vec<Ipv4Addr> = (2..42).map(|last| Ipv4Addr::new(198, 51, 100, last)).collect();
    let mut site = one_network();
    site.private.push(PrivateLink::example("eth2", "10.2.0.2", "10.2.0.0/16"));
    site.public.as_mut().unwrap().addresses.clone_from(&addresses);
    let pool: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
    let config = config(&format!("[nat]\negress_addresses = [{}]", pool.join(", ")));
    let paths = probed_paths(&config, &site);
    for link in &site.private {
        let of_link = paths.iter().filter(|path| path.network == link.network);
        let egress: Vec<Ipv4Addr> = of_link.filter_map(|path| path.egress).collect();
        assert_eq!(egress, addresses);
    }
    let sources: std::collections::BTreeSet<Ipv4Addr> = paths.iter().map(|path| path.source).collect();
    assert_eq!(sources.len(), paths.len(), "no two probes have the same source");
}

#[test]
fn probes_of_parts_and_of_static_addresses_leave_by_the_rules_that_translate_these_hosts() {
    let text = "
        [[nat.static]]
        public = \"203.0.113.51\"
        private = \"10.0.0.7\"
        [[network]]
        range = \"10.0.0.0/16\"
        [[network.egress]]
        from = [\"10.0.2.0/24\", \"10.0.3.0/24\", \"10.0.0.9\"]
        addresses = [\"203.0.113.52\", \"203.0.113.53\"]
        [[network.egress]]
        from = [\"10.0.4.0/24\"]
        addresses = \"auto\"
    ";
    let mut site = one_network();
    site.public.as_mut().unwrap().addresses.extend([51, 52, 53].map(|host| Ipv4Addr::new(203, 0, 113, host)));
    let expected = [
        "10.0.255.255 as Some(198.51.100.2)",
        // A rule for the single host, one for the subnet with the server's own address, one for both other subnets.
        "198.19.240.2 as Some(203.0.113.52)",
        "198.19.240.1 as Some(203.0.113.53)",
        "198.19.240.3 as Some(198.51.100.2)",
        "198.19.240.4 as Some(203.0.113.52)",
        "198.19.240.6 as Some(203.0.113.53)",
        "198.19.240.5 as Some(203.0.113.51)",
    ];
    let found = probes(text, &site);
    assert_eq!(found, expected);
    let rules = rules(text, &site);
    let postrouting = rules.chains.iter().find(|chain| chain.name == "postrouting").unwrap();
    let json: Vec<String> = postrouting.rules.iter().map(|rule| serde_json::to_string(rule).unwrap()).collect();
    let source = |path: usize| format!("\"{}\"", found[path].split(' ').next().unwrap());
    let rule_of = |source: &str| json.iter().filter(|rule| rule.contains(source)).collect::<Vec<_>>();
    for (paths, hosts) in [(1..3, "10.0.0.9"), (3..4, "10.0.4.0"), (4..6, "10.0.3.0")] {
        for path in paths {
            let [rule] = rule_of(&source(path)).try_into().unwrap();
            assert!(rule.contains(hosts), "{rule} is not that of {hosts}");
        }
    }
    let out = set_of(&rules, "static_out").to_string();
    assert_eq!(out, format!("[[\"10.0.0.7\",\"203.0.113.51\"],[{},\"203.0.113.51\"]]", source(6)));
}
