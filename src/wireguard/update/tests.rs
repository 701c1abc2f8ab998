use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

use super::*;
use bastiond_tunnel::internals::table::Table;
use bastiond_tunnel::key::PrivateKey;

fn key(number: u8) -> PublicKey {
    PublicKey([number; LENGTH])
}

fn private(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; LENGTH])
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn endpoint(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

fn interface(peers: impl IntoIterator<Item = (PublicKey, Peer)>) -> Interface {
    Interface { private_key: Some(private(200)), listen_port: 51820, fwmark: 0, peers: peers.into_iter().collect() }
}

fn ada() -> Peer {
    Peer { allowed_ips: [net("10.100.0.2/32")].into(), ..Peer::default() }
}

fn office() -> Peer {
    Peer {
        allowed_ips: [net("10.100.0.3/32"), net("192.168.178.0/24")].into(),
        endpoint: Some(endpoint(3)),
        persistent_keepalive: 25,
        preshared_key: Some(PresharedKey([9; LENGTH])),
    }
}

/// The table of the data plane, with port and mark.
struct World {
    table: Table,
    port: u16,
    fwmark: u32,
}

impl World {
    fn empty() -> Self {
        Self { table: Table::new(7), port: 0, fwmark: 0 }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { listen_port: self.port, fwmark: self.fwmark, ..self.table.snapshot() }
    }

    fn apply(&mut self, update: Update) {
        if let Some(key) = update.private_key {
            self.table.set_private_key(key);
        }
        self.port = update.listen_port.unwrap_or(self.port);
        self.fwmark = update.fwmark.unwrap_or(self.fwmark);
        for peer in update.peers {
            self.table.change(peer);
        }
    }

    /// What the interface is, in the terms of what is wanted.
    fn interface(&self) -> Interface {
        let snapshot = self.snapshot();
        let peer = |peer: PeerSnapshot| Peer {
            preshared_key: peer.preshared_key,
            allowed_ips: peer.allowed_ips.into_iter().collect(),
            endpoint: peer.endpoint,
            persistent_keepalive: peer.persistent_keepalive,
        };
        Interface {
            private_key: snapshot.private_key,
            listen_port: snapshot.listen_port,
            fwmark: snapshot.fwmark,
            peers: snapshot.peers.into_iter().map(|there| (there.public_key, peer(there))).collect(),
        }
    }
}

#[test]
fn one_update_makes_a_new_interface_as_desired_and_then_none_is_needed() {
    let desired = interface([(key(2), ada()), (key(3), office())]);
    let mut world = World::empty();
    world.apply(update(&desired, &world.snapshot(), &ConfiguredEndpoints::new()).unwrap());
    assert_eq!(world.interface(), desired);
    let configured = [(key(3), endpoint(3))].into();
    assert_eq!(update(&desired, &world.snapshot(), &configured), None);
}

#[test]
fn an_update_names_only_the_peers_and_the_settings_that_differ() {
    let mut world = World::empty();
    let before = interface([(key(2), ada()), (key(3), office()), (key(4), Peer::default())]);
    world.apply(update(&before, &world.snapshot(), &ConfiguredEndpoints::new()).unwrap());
    let configured: ConfiguredEndpoints = [(key(3), endpoint(3))].into();
    let changed = Peer { persistent_keepalive: 15, ..office() };
    let after = interface([(key(2), ada()), (key(3), changed), (key(5), Peer::default())]);
    let expected = Update {
        peers: vec![
            PeerUpdate { remove: true, ..PeerUpdate::new(key(4)) },
            PeerUpdate { persistent_keepalive: Some(15), ..PeerUpdate::new(key(3)) },
            PeerUpdate::new(key(5)),
        ],
        ..Update::default()
    };
    assert_eq!(update(&after, &world.snapshot(), &configured), Some(expected));
}

#[test]
fn a_peer_that_roamed_stays_where_it_is_until_another_endpoint_is_configured() {
    let mut world = World::empty();
    let desired = interface([(key(3), office())]);
    world.apply(update(&desired, &world.snapshot(), &ConfiguredEndpoints::new()).unwrap());
    world.table.change(PeerUpdate { endpoint: Some(endpoint(77)), ..PeerUpdate::new(key(3)) });
    let configured: ConfiguredEndpoints = [(key(3), endpoint(3))].into();
    assert_eq!(update(&desired, &world.snapshot(), &configured), None);
    let moved = interface([(key(3), Peer { endpoint: Some(endpoint(4)), ..office() })]);
    let change = update(&moved, &world.snapshot(), &configured).unwrap();
    assert_eq!(change.peers, [PeerUpdate { endpoint: Some(endpoint(4)), ..PeerUpdate::new(key(3)) }]);
    // A name that does not resolve any more keeps the endpoint.
    let nowhere = interface([(key(3), Peer { endpoint: None, ..office() })]);
    assert_eq!(update(&nowhere, &world.snapshot(), &configured), None);
}

#[test]
fn an_allowed_ip_that_moves_ends_at_its_new_peer() {
    for (from, to) in [(key(2), key(3)), (key(3), key(2))] {
        let mut world = World::empty();
        let before = interface([(from, ada()), (to, Peer::default())]);
        world.apply(update(&before, &world.snapshot(), &ConfiguredEndpoints::new()).unwrap());
        let after = interface([(from, Peer::default()), (to, ada())]);
        world.apply(update(&after, &world.snapshot(), &ConfiguredEndpoints::new()).unwrap());
        assert_eq!(world.interface(), after);
    }
}

#[test]
fn an_update_is_described_with_the_labels_of_the_peers() {
    let label = |public_key: &PublicKey| if *public_key == key(2) { "Ada".to_owned() } else { public_key.to_string() };
    let mut world = World::empty();
    let first = update(&interface([(key(2), ada())]), &world.snapshot(), &ConfiguredEndpoints::new()).unwrap();
    assert_eq!(describe(&first, &world.snapshot(), label), ["listens on UDP 51820", "peer Ada added"]);
    world.apply(first);
    let many = interface((10..20).map(|number| (key(number), Peer::default())));
    let second =
        update(&Interface { private_key: Some(private(201)), ..many }, &world.snapshot(), &ConfiguredEndpoints::new())
            .unwrap();
    assert_eq!(
        describe(&second, &world.snapshot(), label),
        [
            &*format!(
                "the private key changes; the public key was {}, and is {}, which every peer needs",
                private(200).public(),
                private(201).public()
            ),
            "peer Ada removed",
            "10 peers added"
        ]
    );
}

fn any_interface() -> impl Strategy<Value = Interface> {
    let nets = ["10.0.0.2/32", "10.0.0.3/32", "10.0.0.0/24", "192.168.0.0/16", "fd00::/64", "0.0.0.0/0"];
    // Each prefix with the number of its owner: no two peers share one.
    let owners = prop::collection::vec(option::of(1..6_u8), nets.len());
    let parts = (option::of(1..4_u8), option::of(1..4_u8), prop::sample::select(vec![0, 25_u16]));
    let peers = btree_map(1..6_u8, parts, 0..5);
    (owners, peers, 200..202_u8, 1..3_u16, 0..2_u32).prop_map(move |(owners, peers, number, port, fwmark)| {
        let peer = |(number, (secret, place, persistent_keepalive)): (u8, (Option<u8>, Option<u8>, u16))| {
            let owned = nets.iter().zip(&owners).filter(|(_, owner)| **owner == Some(number));
            let peer = Peer {
                preshared_key: secret.map(|secret| PresharedKey([secret; LENGTH])),
                allowed_ips: owned.map(|(text, _)| net(text)).collect(),
                endpoint: place.map(endpoint),
                persistent_keepalive,
            };
            (key(number), peer)
        };
        let peers = peers.into_iter().map(peer).collect();
        Interface { private_key: Some(private(number)), listen_port: port, fwmark, peers }
    })
}

proptest! {
    #[test]
    fn one_update_makes_the_interface_as_desired_and_names_no_peer_that_is_right(
        before in any_interface(),
        after in any_interface(),
        roamed in btree_set(1..6_u8, 0..3),
    ) {
        let mut world = World::empty();
        world.apply(update(&before, &world.snapshot(), &ConfiguredEndpoints::new()).unwrap());
        let endpoints = |interface: &Interface| -> ConfiguredEndpoints {
            interface.peers.iter().filter_map(|(key, peer)| Some((*key, peer.endpoint?))).collect()
        };
        let configured = endpoints(&before);
        for number in roamed.into_iter().filter(|number| before.peers.contains_key(&key(*number))) {
            world.table.change(PeerUpdate { endpoint: Some(endpoint(100 + number)), ..PeerUpdate::new(key(number)) });
        }
        let untouched: Vec<PublicKey> =
            before.peers.iter().filter(|(key, peer)| after.peers.get(key) == Some(peer)).map(|(key, _)| *key).collect();
        if let Some(change) = update(&after, &world.snapshot(), &configured) {
            for peer in &change.peers {
                // Except one that roamed and never had a configured endpoint.
                prop_assert!(!untouched.contains(&peer.public_key), "{peer:?}");
            }
            world.apply(change);
        }
        let mut configured = configured;
        configured.extend(endpoints(&after));
        prop_assert_eq!(update(&after, &world.snapshot(), &configured), None);
        let (mut now, mut wanted) = (world.interface(), after);
        // Peers choose their own endpoints.
        for peer in now.peers.values_mut().chain(wanted.peers.values_mut()) {
            peer.endpoint = None;
        }
        prop_assert_eq!(now, wanted);
    }
}
