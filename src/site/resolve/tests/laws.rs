//! Properties of every server's site.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Arbitrary servers. They have few names, addresses and ranges, so that these coincide in every way.
fn any_kernel() -> impl Strategy<Value = Kernel> {
    let names = ["lo", "eth0", "enp7s0", "enp8s0", "br0"];
    let link =
        (select(vec!["-", PRIVATE_MAC, TENANT_MAC, "96:00:00:00:00:01"]), any::<bool>(), vec(any_address(), 0..3));
    let links = vec(link, names.len()).prop_map(move |links| {
        let links = links.into_iter().zip(names).zip(1..);
        links.map(|(((mac, up, addresses), name), index)| Link {
            index,
            name: name.parse().unwrap(),
            mac: mac.parse().ok(),
            mtu: 1500,
            up,
            addresses: addresses.into_iter().map(Ipv4Net::from).collect(),
            has_lease: false,
        })
    });
    let route = (1..8_u32, 0..3_u32).prop_map(|(interface, metric)| DefaultRoute { interface, metric });
    (links, 0..=5_usize, vec(route, 0..4)).prop_map(|(links, count, default_routes)| Kernel {
        links: links.take(count).collect(),
        default_routes,
        ..Kernel::default()
    })
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    (0..3_u8, 0..3_u8).prop_map(|(network, host)| Ipv4Addr::new(10, network, 0, host))
}

fn any_range() -> impl Strategy<Value = Ipv4Net> {
    (any_address(), select(vec![8, 16, 24, 32]))
        .prop_map(|(address, prefix)| Ipv4Net::new_assert(address, prefix).trunc())
}

fn any_networks() -> impl Strategy<Value = Vec<PrivateNetwork>> {
    let network = (any_address(), vec(any_address(), 0..3), select(vec![PRIVATE_MAC, TENANT_MAC]), any_range());
    let network = network.prop_map(|(ip, alias_ips, mac, network)| PrivateNetwork {
        ip,
        alias_ips,
        mac_address: mac.parse().unwrap(),
        network,
        ..production()
    });
    vec(network, 0..4)
}

/// Configurations that [`config`] accepts: no interface twice, no overlapping ranges.
fn any_configured() -> impl Strategy<Value = config::Site> {
    let parts = (select(vec![None, Some("eth0"), Some("enp7s0")]), any::<[bool; 2]>(), any_address());
    parts.prop_map(|(public, [first, second], address)| {
        configured(|site| {
            site.public_interface = public.map(|name| name.parse().unwrap());
            site.private.extend(first.then(|| configured_link("enp8s0", "10.1.0.0/16")));
            site.private.extend(second.then(|| configured_link("br0", "10.2.0.0/16")));
            for link in &mut site.private {
                link.address = Some(address).filter(|address| link.network.contains(address));
            }
        })
    })
}

proptest! {
    #[test]
    fn no_two_links_of_any_site_have_the_same_interface_or_overlapping_networks(
        config in any_configured(),
        kernel in any_kernel(),
        networks in any_networks(),
    ) {
        let site = site(&config, &kernel, &metadata(networks));
        let public = site.public.as_ref().map(|public| &public.interface);
        for (index, link) in site.private.iter().enumerate() {
            prop_assert!(public != Some(&link.interface), "{site:?}");
            for other in &site.private[..index] {
                prop_assert!(other.interface <= link.interface && !overlap(other.network, link.network), "{site:?}");
            }
        }
        prop_assert!(site.public.is_some() || !site.problems.is_empty(), "{site:?}");
        prop_assert!(site.private.iter().all(|link| link.address_present) || !site.problems.is_empty(), "{site:?}");
    }
}
