//! The lists of peers: the look-ups agree with the plain judge.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::access::PeerLists;
use super::super::model::{Layer4, TCP, Tuple, UDP};
use crate::config::{Environment, parse};
use crate::inputs::{Judgement, NewFlow, SeenReturnRoutes, access, tunnel};
use crate::site::{PrivateLink, PublicLink, Site};

fn site() -> Site {
    Site {
        public: Some(PublicLink::example("eth0", &["198.51.100.2"])),
        private: vec![PrivateLink::example("eth1", "10.0.0.2", "10.0.0.0/16")],
        ..Site::default()
    }
}

fn any_list() -> impl Strategy<Value = String> {
    let entries = vec![
        "private",
        "peers",
        "internet",
        "internet:tcp/443",
        "10.0.0.4",
        "10.0.0.0/24:tcp/80-90",
        "10.0.0.4:udp",
        "0.0.0.0/0:tcp/443",
        "192.168.77.0/24",
    ];
    subsequence(entries, 0..=4).prop_map(|entries| format!("{entries:?}"))
}

fn any_lists() -> impl Strategy<Value = String> {
    let from =
        any_list().prop_map(|list| list.replace("\"internet\"", "\"private:udp\"").replace("internet:", "private:"));
    let [reach, deny] = [any_list(), any_list()].map(proptest::option::of);
    (reach, deny, proptest::option::of(from)).prop_map(|(reach, deny, from)| {
        let lists = [("reach", reach), ("deny", deny), ("from", from)];
        let line = |(key, list): (&str, Option<String>)| list.map(|list| format!("{key} = {list}\n"));
        lists.into_iter().filter_map(line).collect()
    })
}

fn any_config() -> impl Strategy<Value = String> {
    let groups = || subsequence(vec!["dev", "ops"], 0..=2);
    let default = proptest::option::of(any_list());
    (default, [any_lists(), any_lists()], [any_lists(), any_lists()], [groups(), groups()]).prop_map(
        |(default, [dev, ops], [ada, office], [of_ada, of_office])| {
            let default = default.map_or_else(String::new, |list| format!("default_reach = {list}\n"));
            format!(
                "[wireguard]\naddresses = [\"10.100.0.1/24\"]\nfull_tunnel = true\n{default}\
                 [[wireguard.group]]\nname = \"dev\"\n{dev}[[wireguard.group]]\nname = \"ops\"\n{ops}\
                 [[wireguard.peer]]\npublic_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n\
                 allowed_ips = [\"10.100.0.2\", \"192.168.77.7\"]\ngroups = {of_ada:?}\n{ada}\
                 [[wireguard.peer]]\npublic_key = \"TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\"\n\
                 allowed_ips = [\"10.100.0.3\", \"192.168.77.0/24\"]\ngroups = {of_office:?}\n{office}"
            )
        },
    )
}

fn any_flow() -> impl Strategy<Value = NewFlow> {
    let places = ["10.0.0.4", "10.0.3.9", "10.100.0.2", "10.100.0.3", "192.168.77.7", "192.168.77.8", "93.184.216.34"];
    let place = || select(places.map(|place| place.parse::<std::net::Ipv4Addr>().unwrap()).to_vec());
    let port = select(vec![79, 80, 90, 91, 443]);
    (place(), place(), select(vec![TCP, UDP, 1]), port).prop_map(|(source, destination, protocol, port)| NewFlow {
        source,
        destination,
        protocol,
        port: (protocol != 1).then_some(port),
        to_internet: destination.octets()[0] == 93,
    })
}

fn tuple(flow: &NewFlow) -> Tuple {
    let layer4 = match flow.port {
        Some(destination) => Layer4::Ports { source: 40_000, destination },
        None => Layer4::Icmp { id: 1, kind: 8, code: 0 },
    };
    Tuple { source: flow.source, destination: flow.destination, protocol: flow.protocol, layer4, zone: None }
}

proptest! {
    #[test]
    fn looking_lists_of_peers_up_finds_what_walking_them_finds(
        text in any_config(), flows in prop::collection::vec(any_flow(), 40),
    ) {
        let config = parse(&text, &Environment::default()).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        let site = site();
        let tunnel = tunnel(&config, &site, &SeenReturnRoutes::new()).unwrap();
        let Some(access) = access(&config, &site, &tunnel) else { return Ok(()) };
        let lists = PeerLists::new(&access);
        for flow in flows {
            if let Some(peer) = access.peer_at(flow.source) {
                let found = lists.judge_reach(peer.key, &tuple(&flow), flow.to_internet);
                prop_assert_eq!(found, access.judge_reach(peer, &flow), "{:?} by\n{}", flow, text);
            }
            if let Some(peer) = access.peer_at(flow.destination) {
                let found = lists.judge_origin(peer.key, &tuple(&flow));
                prop_assert_eq!(found, access.judge_origin(peer, &flow), "{:?} by\n{}", flow, text);
            }
        }
    }
}

#[test]
fn an_address_belongs_to_the_peer_with_the_narrowest_range() {
    let config = parse(
        "[wireguard]\naddresses = [\"10.100.0.1/24\"]\ndefault_reach = []\n[[wireguard.peer]]\nname = \"office\"\n\
         public_key = \"TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=\"\n\
         allowed_ips = [\"10.100.0.0/24\", \"0.0.0.0/0\", \"fd00::/64\"]\n[[wireguard.peer]]\nname = \"ada\"\n\
         public_key = \"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"\n\
         allowed_ips = [\"10.100.0.2/31\", \"203.0.113.7\", \"fd00::\"]\n",
        &Environment::default(),
    );
    let Ok(config) = config else { panic!("{config:?}") };
    let site = site();
    let access = access(&config, &site, &tunnel(&config, &site, &SeenReturnRoutes::new()).unwrap()).unwrap();
    let at = |address: &str| access.peer_at(address.parse().unwrap()).map(|peer| peer.key);
    let [office, ada] = [0, 1].map(|index| Some(access.peers[index].key));
    for (address, expected) in [
        ("0.0.0.0", office),
        ("10.99.255.255", office),
        ("10.100.0.1", office),
        ("10.100.0.2", ada),
        ("10.100.0.3", ada),
        ("10.100.0.4", office),
        ("203.0.113.7", ada),
        ("203.0.113.8", office),
        ("255.255.255.255", office),
    ] {
        assert_eq!(at(address), expected, "{address}");
    }
    let all: u64 = access.peers.iter().flat_map(|peer| &peer.v4).map(|net| 1 << (32 - net.prefix_len())).sum();
    assert_eq!(all, 1 << 32, "each address belongs to one peer");
    assert_eq!(access.peers[0].v6.len(), 64, "fd00::/64 without one address");
    let flow = |to: &str| NewFlow {
        source: "10.100.0.4".parse().unwrap(),
        destination: to.parse().unwrap(),
        protocol: TCP,
        port: Some(80),
        to_internet: false,
    };
    assert_eq!(access.judge_reach(&access.peers[0], &flow("10.0.0.4")), Judgement::Denied, "the default is nothing");
}
