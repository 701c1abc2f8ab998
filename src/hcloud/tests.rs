use std::collections::BTreeSet;
use std::sync::Mutex;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::api::Error as ApiError;
use super::model::Unroutable;
use super::plan::{Conflict, Obstacle, plan_routes};
use super::*;
use crate::hetzner::MAX_ROUTES;
use crate::site::Site;

const NETWORK: NetworkId = NetworkId(1234);

fn route(text: &str) -> CloudRoute {
    let (destination, gateway) = text.split_once(" via ").unwrap();
    CloudRoute { destination: destination.parse().unwrap(), gateway: gateway.parse().unwrap() }
}

fn routes(texts: &[&str]) -> BTreeSet<CloudRoute> {
    texts.iter().map(|text| route(text)).collect()
}

fn table(texts: &[&str]) -> NetworkTable {
    let subnets = vec!["10.0.0.0/24".parse().unwrap()];
    NetworkTable {
        id: NETWORK,
        name: "private".to_owned(),
        subnets,
        routes: routes(texts),
        vswitches: Vec::new(),
        exposes_routes: false,
    }
}

/// The bastion with the address 10.0.0.2 and the alias IP 10.0.0.9.
fn link() -> PrivateLink {
    PrivateLink {
        aliases: ["10.0.0.9".parse().unwrap()].into(),
        network_id: Some(NETWORK),
        ..PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")
    }
}

fn planned(desired: &[&str], observed: &[&str], take_over: bool) -> RoutePlan {
    plan_routes(&routes(desired), &table(observed), &link(), take_over)
}

const DEFAULT: &str = "0.0.0.0/0 via 10.0.0.2";

#[test]
fn a_missing_route_is_added_and_an_existing_one_stays() {
    assert_eq!(planned(&[DEFAULT], &[], false), RoutePlan { claim: routes(&[DEFAULT]), ..RoutePlan::default() });
    assert!(planned(&[DEFAULT], &[DEFAULT, "10.244.0.0/24 via 10.0.0.4"], false).is_settled());
}

#[test]
fn another_servers_default_route_is_a_conflict_and_is_replaced_only_with_take_over() {
    let held = "0.0.0.0/0 via 10.0.0.7";
    let conflict = Conflict { wanted: route(DEFAULT), by: Obstacle::Held(route(held)) };
    let left_alone = RoutePlan { conflicts: [conflict].into(), ..RoutePlan::default() };
    assert_eq!(planned(&[DEFAULT], &[held], false), left_alone);
    let taken = RoutePlan { withdraw: routes(&[held]), claim: routes(&[DEFAULT]), ..RoutePlan::default() };
    assert_eq!(planned(&[DEFAULT], &[held], true), taken);
}

#[test]
fn a_route_to_another_address_of_this_server_is_right_too() {
    assert!(planned(&[DEFAULT], &["0.0.0.0/0 via 10.0.0.9"], false).is_settled());
    assert!(planned(&[DEFAULT], &["0.0.0.0/0 via 10.0.0.9"], true).is_settled());
}

#[test]
fn only_the_default_route_may_overlap_routes_and_subnets() {
    let wanted = "10.8.0.0/24 via 10.0.0.2";
    assert_eq!(planned(&[DEFAULT], &["10.244.0.0/16 via 10.0.0.4"], false).claim, routes(&[DEFAULT]));
    assert_eq!(planned(&[wanted], &["0.0.0.0/0 via 10.0.0.7"], false).claim, routes(&[wanted]));
    let overlapping =
        Conflict { wanted: route(wanted), by: Obstacle::OverlappingRoute(route("10.8.0.0/16 via 10.0.0.4")) };
    assert_eq!(planned(&[wanted], &["10.8.0.0/16 via 10.0.0.4"], true).conflicts, [overlapping].into());
    let into_subnet = "10.0.0.0/25 via 10.0.0.2";
    let subnet = Conflict { wanted: route(into_subnet), by: Obstacle::Subnet("10.0.0.0/24".parse().unwrap()) };
    assert_eq!(planned(&[into_subnet], &[], true).conflicts, [subnet].into());
}

#[test]
fn down_withdraws_only_routes_of_this_daemon() {
    // 10.0.0.9 is an alias address of this server, which another one of a pair may have as well.
    let observed = table(&["0.0.0.0/0 via 10.0.0.9", "10.8.0.0/24 via 10.0.0.2", "10.9.0.0/24 via 10.0.0.7"]);
    let ours = routes(&[DEFAULT, "10.8.0.0/24 via 10.0.0.2", "10.9.0.0/24 via 10.0.0.2"]);
    assert_eq!(plan_withdrawal(&ours, &observed).withdraw, routes(&["10.8.0.0/24 via 10.0.0.2"]));
}

/// The plan for a link with 10.0.0.2 and the alias 10.0.0.9, of a daemon that owns these routes.
fn planned_with_owned(wanted: &[&str], owned: &[&str], observed: &[&str]) -> RoutePlan {
    let desired = Desired { named: routes(wanted), ..Desired::default() };
    match plan_link(desired, &routes(owned), &table(observed), &link(), false) {
        LinkPlan::Routes { routes, .. } => routes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_route_of_this_daemon_to_an_address_that_it_had_is_replaced() {
    let before = "0.0.0.0/0 via 10.0.0.7";
    let plan = planned_with_owned(&[DEFAULT], &[before], &[before]);
    assert_eq!((plan.withdraw, plan.claim), (routes(&[before]), routes(&[DEFAULT])));
    let plan = planned_with_owned(&[DEFAULT], &[], &[before]);
    assert_eq!((plan.withdraw, plan.claim), (routes(&[]), routes(&[])));
    // The address has become an alias address.
    let alias = "0.0.0.0/0 via 10.0.0.9";
    assert!(planned_with_owned(&[DEFAULT], &[alias], &[alias]).is_settled());
}

#[test]
fn a_route_of_this_daemon_that_the_file_no_longer_wants_is_withdrawn() {
    let tunnel = "10.100.0.0/24 via 10.0.0.2";
    assert_eq!(planned_with_owned(&[], &[tunnel], &[tunnel]).withdraw, routes(&[tunnel]));
    assert!(planned_with_owned(&[], &[], &[tunnel]).is_settled());
}

#[test]
fn the_tunnels_own_networks_get_the_routes_that_are_left_before_remote_networks() {
    let text = "[hcloud]\ndestinations = [\"192.168.0.0/16\"]\n[wireguard]\naddresses = [\"10.200.0.1/24\"]\n";
    let sites: Vec<String> = (0..200).map(|n| format!("\"10.100.{n}.0/25\"")).collect();
    let peer = "public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"";
    let more = "\"192.168.7.0/24\", \"192.0.2.0/24\", \"192.160.0.0/11\"";
    let text = format!("{text}[[wireguard.peer]]\n{peer}\nallowed_ips = [{more}, {}]", sites.join(", "));
    let config = config::parse(&text, &config::Environment::default()).unwrap();
    let return_routes = wanted_return_routes(&config, &Site { private: vec![link()], ..Site::default() });
    let desired = desired(&config.hcloud, &return_routes, &link());
    assert_eq!(desired.routes().len(), MAX_ROUTES);
    assert!(
        desired.return_routes.contains(&route("10.200.0.0/24 via 10.0.0.2")),
        "the tunnel's own network comes first"
    );
    let why = |range: &str| desired.unroutable.get(&range.parse().unwrap()).copied();
    assert_eq!(why("192.0.2.0/24"), Some(Unroutable::NotPrivate));
    assert_eq!(why("192.160.0.0/11"), Some(Unroutable::OverlapsDestination("192.168.0.0/16".parse().unwrap())));
    assert_eq!(why("10.100.199.0/25"), Some(Unroutable::TooManyRoutes));
    assert_eq!(desired.unroutable.len() + desired.return_routes.len(), return_routes.ranges.len());
}

#[test]
fn ranges_that_are_always_masqueraded_need_no_return_route() {
    let ranges = |snat: &str| {
        let text = format!("[wireguard]\naddresses = [\"10.200.0.1/24\"]\nsnat = {snat}");
        let config = config::parse(&text, &config::Environment::default()).unwrap();
        wanted_return_routes(&config, &Site::default())
    };
    let range: Vec<Ipv4Net> = vec!["10.200.0.0/24".parse().unwrap()];
    assert_eq!(ranges("true"), WantedReturnRoutes::default());
    assert_eq!(ranges("false"), WantedReturnRoutes { ranges: range.clone(), else_masqueraded: false });
    assert_eq!(ranges("\"auto\""), WantedReturnRoutes { ranges: range, else_masqueraded: true });
}

/// A network's routes in memory. Like Hetzner's networks it takes one route for each destination.
struct Fake(Mutex<NetworkTable>);

impl RouteTables for Fake {
    async fn table(&self, _: NetworkId) -> Result<NetworkTable, ApiError> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn claim(&self, _: NetworkId, route: CloudRoute) -> Result<(), ApiError> {
        let mut table = self.0.lock().unwrap();
        let taken = table.routes.iter().any(|held| held.destination == route.destination);
        assert!(!taken, "Hetzner would refuse {route}");
        table.routes.insert(route);
        Ok(())
    }

    async fn withdraw(&self, _: NetworkId, route: CloudRoute) -> Result<(), ApiError> {
        self.0.lock().unwrap().routes.remove(&route);
        Ok(())
    }
}

fn carried_out(observed: &NetworkTable, plan: &RoutePlan) -> NetworkTable {
    let fake = Fake(Mutex::new(observed.clone()));
    let errors = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(apply(&fake, NETWORK, plan));
    assert!(errors.is_empty());
    fake.0.into_inner().unwrap()
}

fn any_destination() -> impl Strategy<Value = Ipv4Net> {
    // Few values, so that they often overlap: the default route, nested ranges, and a subnet.
    prop::sample::select(vec![
        "0.0.0.0/0",
        "10.8.0.0/16",
        "10.8.0.0/24",
        "10.8.1.0/24",
        "10.0.0.0/24",
        "192.168.0.0/16",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn any_table() -> impl Strategy<Value = NetworkTable> {
    let gateway = prop::sample::select(vec!["10.0.0.2", "10.0.0.9", "10.0.0.4", "10.0.0.7"]);
    prop::collection::btree_map(any_destination(), gateway, 0..5).prop_map(|by_destination| {
        let route =
            |(destination, gateway): (Ipv4Net, &str)| CloudRoute { destination, gateway: gateway.parse().unwrap() };
        NetworkTable { routes: by_destination.into_iter().map(route).collect(), ..table(&[]) }
    })
}

fn any_desired() -> impl Strategy<Value = BTreeSet<CloudRoute>> {
    prop::collection::btree_set(any_destination(), 0..3).prop_map(|destinations| {
        destinations.into_iter().map(|destination| CloudRoute { destination, gateway: link().address }).collect()
    })
}

proptest! {
    #[test]
    fn one_pass_makes_all_possible_changes_and_no_route_of_others_changes(
        desired in any_desired(),
        observed in any_table(),
        take_over: bool,
    ) {
        // The configuration's check refuses overlapping destinations.
        let overlapping = |a: &CloudRoute, b: &CloudRoute| {
            a != b && a.destination.prefix_len() > 0 && b.destination.prefix_len() > 0
                && crate::net::overlap(a.destination, b.destination)
        };
        prop_assume!(!desired.iter().any(|a| desired.iter().any(|b| overlapping(a, b))));
        let first = plan_routes(&desired, &observed, &link(), take_over);
        let after = carried_out(&observed, &first);
        let second = plan_routes(&desired, &after, &link(), take_over);
        prop_assert!(second.is_empty(), "a second pass changes nothing: {second:?}");
        let wanted = |route: &&CloudRoute| desired.iter().any(|want| want.destination == route.destination);
        let not_ours = |table: &NetworkTable| -> BTreeSet<CloudRoute> {
            table.routes.iter().filter(|route| !wanted(route)).copied().collect()
        };
        prop_assert_eq!(not_ours(&after), not_ours(&observed), "routes for other destinations stay");
        if !take_over {
            prop_assert!(observed.routes.is_subset(&after.routes), "every route stays without take_over");
        }
    }
}

#[test]
fn a_vswitch_is_named_with_its_mtu_and_the_command_that_exposes_the_routes() {
    let with =
        |exposes_routes| NetworkTable { vswitches: vec!["10.0.3.0/24".parse().unwrap()], exposes_routes, ..table(&[]) };
    let texts = |table: &NetworkTable| -> Vec<String> {
        describe::vswitch_hints(table).iter().map(ToString::to_string).collect()
    };
    let mtu = format!(
        "network {NETWORK} (private) has the vSwitch subnet 10.0.3.0/24, which carries packets of at most 1400 \
         bytes: set \
         that on the VLAN interface of its servers: ip link set dev IF mtu 1400; such a server cannot be the \
         gateway of a \
         route"
    );
    let hidden = format!(
        "network {NETWORK} (private) does not expose its routes to its vSwitch, so servers there cannot use \
         this gateway: \
         if they are to: hcloud network expose-routes-to-vswitch {NETWORK}"
    );
    assert_eq!(texts(&table(&[])), [""; 0]);
    assert_eq!(texts(&with(true)), [mtu.as_str()]);
    assert_eq!(texts(&with(false)), [mtu, hidden]);
}
