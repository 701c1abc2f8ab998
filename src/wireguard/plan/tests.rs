use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;

use super::*;
use bastiond_tunnel::device::table::Table;

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
    Interface { private_key: private(200), listen_port: 51820, fwmark: 0, peers: peers.into_iter().collect() }
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

/// The data plane's own table, made as `desired` says.
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

    /// What the interface is, in the words of what it shall be.
    fn interface(&self) -> Interface {
        let snapshot = self.snapshot();
        let peer = |peer: PeerSnapshot| Peer {
            preshared_key: peer.preshared_key,
            allowed_ips: peer.allowed_ips.into_iter().collect(),
            endpoint: peer.endpoint,
            persistent_keepalive: peer.persistent_keepalive,
        };
        Interface {
            private_key: snapshot.private_key.unwrap(),
            listen_port: snapshot.listen_port,
            fwmark: snapshot.fwmark,
            peers: snapshot.peers.into_iter().map(|there| (there.public_key, peer(there))).collect(),
        }
    }
}

#[test]
fn a_new_interface_is_made_whole_and_then_left_alone() {
    let desired = interface([(key(2), ada()), (key(3), office())]);
    let mut world = World::empty();
    world.apply(plan(&desired, &world.snapshot(), &Configured::new()).unwrap());
    assert_eq!(world.interface(), desired);
    let configured = [(key(3), endpoint(3))].into();
    assert_eq!(plan(&desired, &world.snapshot(), &configured), None);
}

#[test]
fn a_change_names_only_the_peers_and_the_keys_that_differ() {
    let mut world = World::empty();
    let before = interface([(key(2), ada()), (key(3), office()), (key(4), Peer::default())]);
    world.apply(plan(&before, &world.snapshot(), &Configured::new()).unwrap());
    let configured: Configured = [(key(3), endpoint(3))].into();
    let changed = Peer { persistent_keepalive: 15, ..office() };
    let after = interface([(key(2), ada()), (key(3), changed), (key(5), Peer::default())]);
    let expected = Update {
        peers: vec![
            PeerUpdate { remove: true, ..PeerUpdate::of(key(4)) },
            PeerUpdate { persistent_keepalive: Some(15), ..PeerUpdate::of(key(3)) },
            PeerUpdate::of(key(5)),
        ],
        ..Update::default()
    };
    assert_eq!(plan(&after, &world.snapshot(), &configured), Some(expected));
}

#[test]
fn a_peer_that_roamed_stays_where_it_is_until_another_endpoint_is_configured() {
    let mut world = World::empty();
    let desired = interface([(key(3), office())]);
    world.apply(plan(&desired, &world.snapshot(), &Configured::new()).unwrap());
    world.table.change(PeerUpdate { endpoint: Some(endpoint(77)), ..PeerUpdate::of(key(3)) });
    let configured: Configured = [(key(3), endpoint(3))].into();
    assert_eq!(plan(&desired, &world.snapshot(), &configured), None);
    let moved = interface([(key(3), Peer { endpoint: Some(endpoint(4)), ..office() })]);
    let update = plan(&moved, &world.snapshot(), &configured).unwrap();
    assert_eq!(update.peers, [PeerUpdate { endpoint: Some(endpoint(4)), ..PeerUpdate::of(key(3)) }]);
    // A name that does not resolve any more takes nothing away.
    let nowhere = interface([(key(3), Peer { endpoint: None, ..office() })]);
    assert_eq!(plan(&nowhere, &world.snapshot(), &configured), None);
}

#[test]
fn an_allowed_ip_that_moves_ends_at_its_new_peer() {
    for (from, to) in [(key(2), key(3)), (key(3), key(2))] {
        let mut world = World::empty();
        let before = interface([(from, ada()), (to, Peer::default())]);
        world.apply(plan(&before, &world.snapshot(), &Configured::new()).unwrap());
        let after = interface([(from, Peer::default()), (to, ada())]);
        world.apply(plan(&after, &world.snapshot(), &Configured::new()).unwrap());
        assert_eq!(world.interface(), after);
    }
}

#[test]
fn a_change_is_told_in_the_operators_own_names() {
    let label = |public_key: &PublicKey| if *public_key == key(2) { "Ada".to_owned() } else { public_key.to_string() };
    let mut world = World::empty();
    let first = plan(&interface([(key(2), ada())]), &world.snapshot(), &Configured::new()).unwrap();
    assert_eq!(told(&first, &world.snapshot(), label), ["listens on UDP 51820", "peer Ada added"]);
    world.apply(first);
    let many = interface((10..20).map(|number| (key(number), Peer::default())));
    let second = plan(&Interface { private_key: private(201), ..many }, &world.snapshot(), &Configured::new()).unwrap();
    assert_eq!(
        told(&second, &world.snapshot(), label),
        ["the private key is another one", "peer Ada removed", "10 peers added"]
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
        Interface { private_key: private(number), listen_port: port, fwmark, peers }
    })
}

proptest! {
    #[test]
    fn one_change_settles_the_interface_and_names_no_peer_that_is_right(before in any_interface(), after in any_interface(), roamed in btree_set(1..6_u8, 0..3)) {
        let mut world = World::empty();
        world.apply(plan(&before, &world.snapshot(), &Configured::new()).unwrap());
        let endpoints = |interface: &Interface| -> Configured {
            interface.peers.iter().filter_map(|(key, peer)| Some((*key, peer.endpoint?))).collect()
        };
        let configured = endpoints(&before);
        for number in roamed.into_iter().filter(|number| before.peers.contains_key(&key(*number))) {
            world.table.change(PeerUpdate { endpoint: Some(endpoint(100 + number)), ..PeerUpdate::of(key(number)) });
        }
        let untouched: Vec<PublicKey> =
            before.peers.iter().filter(|(key, peer)| after.peers.get(key) == Some(peer)).map(|(key, _)| *key).collect();
        if let Some(update) = plan(&after, &world.snapshot(), &configured) {
            for peer in &update.peers {
                // But where it roamed without ever having been configured to be anywhere.
                prop_assert!(!untouched.contains(&peer.public_key), "{peer:?}");
            }
            world.apply(update);
        }
        let mut configured = configured;
        configured.extend(endpoints(&after));
        prop_assert_eq!(plan(&after, &world.snapshot(), &configured), None);
        let (mut now, mut wanted) = (world.interface(), after);
        // Where a peer is, is its own business.
        for peer in now.peers.values_mut().chain(wanted.peers.values_mut()) {
            peer.endpoint = None;
        }
        prop_assert_eq!(now, wanted);
    }
}
