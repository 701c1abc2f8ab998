use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;

use super::model::{Address, Hop, Link, PROTOCOL, Route};
use super::plan::{Changes, Conflict};
use super::*;

const TUNNEL: u32 = 7;
const OTHER: u32 = 3;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn wanted(addresses: &[&str], destinations: &[&str]) -> Desired {
    Desired {
        interface: "wg0".parse().unwrap(),
        addresses: addresses.iter().map(|text| net(text)).collect(),
        destinations: destinations.iter().map(|text| net(text)).collect(),
    }
}

fn ours(destination: &str, interface: u32) -> Route {
    Route { destination: net(destination), interface, protocol: PROTOCOL, metric: 0, gateway: None, plain: true }
}

/// A route by hand: `RTPROT_BOOT`.
fn foreign(destination: &str, interface: u32) -> Route {
    Route { protocol: 3, ..ours(destination, interface) }
}

fn observed(routes: &[Route], addresses: &[Address]) -> Observed {
    Observed {
        link: Some(Link { index: TUNNEL, up: true }),
        addresses: addresses.to_vec(),
        routes: routes.to_vec(),
        names: [(TUNNEL, "wg0".to_owned()), (OTHER, "eth1".to_owned())].into(),
        up: [TUNNEL, OTHER].into(),
    }
}

fn into_tunnel(destinations: &BTreeSet<IpNet>) -> std::collections::BTreeMap<IpNet, Hop> {
    destinations.iter().map(|destination| (*destination, Hop { interface: TUNNEL, gateway: None })).collect()
}

const SITE: &str = "192.168.178.0/24";

#[test]
fn missing_routes_and_addresses_are_added_and_existing_ones_stay() {
    let desired = wanted(&["10.100.0.1/24", "fd00::1/64"], &[SITE, "fd01::/64"]);
    let nothing = observed(&[], &[]);
    let expected = Changes {
        add_addresses: desired.addresses.clone(),
        add_routes: into_tunnel(&desired.destinations),
        ..Changes::default()
    };
    assert_eq!(plan_changes(Some(&desired), &BTreeSet::new(), &nothing), expected);
    let all = observed(
        &[ours(SITE, TUNNEL), ours("fd01::/64", TUNNEL), foreign("10.100.0.0/24", TUNNEL)],
        &["10.100.0.1/24", "fd00::1/64"].map(|text| Address { net: net(text), ours: true }),
    );
    assert!(plan_changes(Some(&desired), &BTreeSet::new(), &all).is_settled());
}

#[test]
fn orphans_of_an_earlier_configuration_go_wherever_they_lead() {
    let orphans = [ours("192.168.1.0/24", TUNNEL), ours(SITE, OTHER)];
    let there = observed(&orphans, &[Address { net: net("10.99.0.1/24"), ours: true }]);
    let expected = Changes {
        remove_routes: orphans.into(),
        add_routes: into_tunnel(&[net(SITE)].into()),
        remove_addresses: [net("10.99.0.1/24")].into(),
        ..Changes::default()
    };
    assert_eq!(plan_changes(Some(&wanted(&[], &[SITE])), &BTreeSet::new(), &there), expected);
    assert_eq!(
        plan_changes(None, &BTreeSet::new(), &there),
        Changes { remove_routes: orphans.into(), ..Changes::default() }
    );
}

#[test]
fn another_programs_route_stays_and_is_reported_unless_it_leads_into_the_tunnel() {
    let elsewhere = foreign(SITE, OTHER);
    let desired = wanted(&[], &[SITE]);
    let expected =
        Changes { conflicts: [Conflict { destination: net(SITE), by: elsewhere }].into(), ..Changes::default() };
    assert_eq!(plan_changes(Some(&desired), &BTreeSet::new(), &observed(&[elsewhere], &[])), expected);
    // With another metric as well: ours would win over it.
    let weaker = Route { metric: 100, ..elsewhere };
    assert_eq!(
        plan_changes(Some(&desired), &BTreeSet::new(), &observed(&[weaker], &[])).add_routes,
        std::collections::BTreeMap::new()
    );
    assert!(plan_changes(Some(&desired), &BTreeSet::new(), &observed(&[foreign(SITE, TUNNEL)], &[])).is_settled());
    let nowhere = Route { interface: 0, plain: false, ..elsewhere };
    assert_eq!(plan_changes(Some(&desired), &BTreeSet::new(), &observed(&[nowhere], &[])).conflicts.len(), 1);
}

#[test]
fn an_unknown_address_stays_and_is_reported() {
    let by_hand = Address { net: net("10.99.0.1/24"), ours: false };
    let expected = Changes { unknown_addresses: [by_hand.net].into(), ..Changes::default() };
    assert_eq!(plan_changes(Some(&wanted(&[], &[])), &BTreeSet::new(), &observed(&[], &[by_hand])), expected);
}

#[test]
fn a_link_that_is_down_or_gone_gets_no_routes() {
    let desired = wanted(&["10.100.0.1/24"], &[SITE]);
    let down = Observed { link: Some(Link { index: TUNNEL, up: false }), ..observed(&[], &[]) };
    let expected = Changes { add_addresses: desired.addresses.clone(), ..Changes::default() };
    assert_eq!(plan_changes(Some(&desired), &BTreeSet::new(), &down), expected);
    let gone = Observed { link: None, ..observed(&[], &[]) };
    assert!(plan_changes(Some(&desired), &BTreeSet::new(), &gone).is_settled());
}

fn behind(gateway: Option<&str>) -> BTreeSet<RangeBehind> {
    let gateway = gateway.map(|text| text.parse().unwrap());
    [RangeBehind { destination: net("10.8.0.0/24"), interface: "eth1".parse().unwrap(), gateway }].into()
}

#[test]
fn a_range_behind_a_network_is_routed_by_its_router_and_another_programs_route_to_the_link_stays() {
    let wanted = behind(Some("10.0.0.1"));
    let hop = Hop { interface: OTHER, gateway: Some("10.0.0.1".parse().unwrap()) };
    let expected = Changes { add_routes: [(net("10.8.0.0/24"), hop)].into(), ..Changes::default() };
    assert_eq!(plan_changes(None, &wanted, &observed(&[], &[])), expected);
    let through = |route: Route, router: &str| Route { gateway: Some(router.parse().unwrap()), plain: false, ..route };
    let right = through(ours("10.8.0.0/24", OTHER), "10.0.0.1");
    assert!(plan_changes(None, &wanted, &observed(&[right], &[])).is_settled());
    let theirs = through(foreign("10.8.0.0/24", OTHER), "10.0.0.4");
    assert!(plan_changes(None, &wanted, &observed(&[theirs], &[])).is_settled());
    let outdated = through(ours("10.8.0.0/24", OTHER), "10.0.0.9");
    let mended = Changes { remove_routes: [outdated].into(), ..expected };
    assert_eq!(plan_changes(None, &wanted, &observed(&[outdated], &[])), mended);
    let elsewhere = foreign("10.8.0.0/24", TUNNEL);
    assert_eq!(plan_changes(None, &wanted, &observed(&[elsewhere], &[])).conflicts.len(), 1);
    let gone = Changes { remove_routes: [right].into(), ..Changes::default() };
    assert_eq!(plan_changes(None, &BTreeSet::new(), &observed(&[right], &[])), gone);
}

#[test]
fn without_a_known_router_a_range_behind_a_network_needs_a_route_by_hand() {
    let wanted = behind(None);
    let expected = Changes { without_route: wanted.clone(), ..Changes::default() };
    assert_eq!(plan_changes(None, &wanted, &observed(&[], &[])), expected);
    assert!(plan_changes(None, &wanted, &observed(&[foreign("10.8.0.0/16", OTHER)], &[])).is_settled());
}

#[test]
fn a_line_of_the_status_stays_a_line() {
    let many: Vec<String> = (0..100).map(|n| format!("192.168.{n}.0/24")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        describe::standing(&wanted(&["10.100.0.1/24"], &many)),
        "wg0 10.100.0.1/24; routes to 192.168.0.0/24, 192.168.1.0/24, 192.168.2.0/24 and 97 more"
    );
}

/// The world after a plan was carried out, as the kernel would do it.
fn carried_out(before: &Observed, plan: &Changes) -> Observed {
    let mut after = before.clone();
    after.routes.retain(|route| !plan.remove_routes.contains(route));
    after.addresses.retain(|address| !plan.remove_addresses.contains(&address.net));
    after.addresses.extend(plan.add_addresses.iter().map(|&net| Address { net, ours: true }));
    for &destination in plan.add_routes.keys() {
        // The kernel refuses a second one of the same metric (EEXIST).
        assert!(!after.routes.iter().any(|route| route.destination == destination && route.metric == 0));
        after.routes.push(Route {
            destination,
            interface: TUNNEL,
            protocol: PROTOCOL,
            metric: 0,
            gateway: None,
            plain: true,
        });
    }
    after
}

fn any_destination() -> impl Strategy<Value = IpNet> {
    // Few values, so that they meet.
    prop::sample::select(vec!["192.168.0.0/16", "192.168.1.0/24", "10.0.0.0/16", "fd00::/64", "0.0.0.0/0"])
        .prop_map(|text| text.parse().unwrap())
}

fn any_route() -> impl Strategy<Value = Route> {
    let interface = prop::sample::select(vec![TUNNEL, OTHER, 0]);
    (any_destination(), interface, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(destination, interface, mine, far, routed)| Route {
            destination,
            interface,
            protocol: if mine { PROTOCOL } else { 3 },
            metric: if far { 100 } else { 0 },
            gateway: None,
            plain: !routed && interface != 0,
        },
    )
}

fn any_address() -> impl Strategy<Value = Address> {
    let net = prop::sample::select(vec!["10.100.0.1/24", "10.100.0.2/24", "fd00::1/64"]);
    (net, any::<bool>()).prop_map(|(text, ours)| Address { net: text.parse().unwrap(), ours })
}

fn any_key() -> impl Strategy<Value = (IpNet, u32)> {
    any_route().prop_map(|route| (route.destination, route.metric))
}

proptest! {
    #[test]
    fn one_pass_settles_addresses_and_routes_and_changes_no_foreign_ones(
        destinations in prop::collection::btree_set(any_destination(), 0..4),
        addresses in prop::collection::btree_set(any_address(), 0..3),
        routes in prop::collection::btree_map(any_key(), any_route(), 0..6),
        there in prop::collection::btree_map(any_address().prop_map(|address| address.net), any::<bool>(), 0..3),
        wants in any::<bool>(),
    ) {
        let desired = Desired {
            interface: "wg0".parse().unwrap(),
            addresses: addresses.into_iter().map(|address| address.net).collect(),
            destinations,
        };
        let desired = wants.then_some(desired);
        // One route for each destination and metric, as in the kernel.
        let routes = routes.into_iter().map(|((destination, metric), route)| Route { destination, metric, ..route });
        let addresses = there.into_iter().map(|(net, ours)| Address { net, ours });
        let before = observed(&routes.collect::<Vec<_>>(), &addresses.collect::<Vec<_>>());
        let after = carried_out(&before, &plan_changes(desired.as_ref(), &BTreeSet::new(), &before));
        let rest = plan_changes(desired.as_ref(), &BTreeSet::new(), &after);
        let (conflicts, unknown_addresses) = (rest.conflicts.clone(), rest.unknown_addresses.clone());
        let reported = Changes { conflicts, unknown_addresses, ..Changes::default() };
        prop_assert_eq!(&rest, &reported, "a second pass changes nothing");
        let not_ours = |world: &Observed| -> (Vec<Route>, Vec<Address>) {
            let routes = world.routes.iter().filter(|route| !route.is_ours()).copied().collect();
            (routes, world.addresses.iter().filter(|address| !address.ours).copied().collect())
        };
        prop_assert_eq!(not_ours(&after), not_ours(&before));
        let wanted: BTreeSet<IpNet> = desired.iter().flat_map(|desired| desired.destinations.clone()).collect();
        let conflicts: BTreeSet<IpNet> = rest.conflicts.iter().map(|conflict| conflict.destination).collect();
        for destination in wanted.difference(&conflicts) {
            let leads_in =
                |route: &Route| route.destination == *destination && route.interface == TUNNEL && route.plain;
            prop_assert!(after.routes.iter().any(leads_in), "{destination} is routed");
        }
    }
}
