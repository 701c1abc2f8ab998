//! Whatever is said to the kernel, in however many messages, makes of its interface what the same change makes of ours.

use std::collections::HashSet;
use std::sync::LazyLock;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::translate::{Removal, needs_snapshot, translate};
use super::model::{Kernel, without_statistics};
use super::{configured, peer};
use bastiond_tunnel::internals::table::Table;
use bastiond_tunnel::key::{self, PresharedKey, PrivateKey, PublicKey};
use bastiond_tunnel::model::{AllowedIp, PeerUpdate, Snapshot, Update};

/// Our own data plane without threads and sockets: what `Device::set` does.
#[derive(Default)]
struct Ours {
    table: Table,
    listen_port: u16,
    fwmark: u32,
}

impl Ours {
    fn carry_out(&mut self, update: Update) {
        self.listen_port = update.listen_port.unwrap_or(self.listen_port);
        self.fwmark = update.fwmark.unwrap_or(self.fwmark);
        if let Some(key) = update.private_key {
            self.table.set_private_key(key);
        }
        let mut kept = HashSet::new();
        if update.replace_peers {
            kept = self.table.retain(&update.peers.iter().map(|peer| peer.public_key).collect());
        }
        for mut peer in update.peers {
            if kept.remove(&peer.public_key) {
                peer.replace_allowed_ips = true;
                peer.preshared_key.get_or_insert(PresharedKey([0; key::LENGTH]));
                peer.persistent_keepalive.get_or_insert(0);
            }
            self.table.change(peer);
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { listen_port: self.listen_port, fwmark: self.fwmark, ..self.table.snapshot() }
    }
}

fn private(number: u8) -> PrivateKey {
    PrivateKey::from_bytes([number; key::LENGTH])
}

/// Two who could be ourselves, and three others.
static KEYS: LazyLock<Vec<PublicKey>> =
    LazyLock::new(|| vec![private(1).public(), private(2).public(), peer(3), peer(4), peer(5)]);

/// Few, so that they meet.
fn net() -> impl Strategy<Value = IpNet> {
    let nets =
        ["10.0.0.0/8", "10.0.0.0/16", "10.0.0.1/32", "10.0.0.2/32", "0.0.0.0/0", "fd00::/64", "fd00::1/128", "::/0"];
    select(nets.map(|net| net.parse().unwrap()).to_vec())
}

fn peer_update() -> impl Strategy<Value = PeerUpdate> {
    let allowed_ip = (net(), prop::bool::weighted(0.3)).prop_map(|(net, remove)| AllowedIp { net, remove });
    let endpoint = select(vec!["192.0.2.1:1", "[2001:db8::1]:65535"]).prop_map(|text| text.parse().unwrap());
    (
        select(KEYS.clone()),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.2),
        prop::option::of((0_u8..3).prop_map(|number| PresharedKey([number; key::LENGTH]))),
        prop::option::of(endpoint),
        prop::option::of(0_u16..3),
        any::<bool>(),
        prop::collection::vec(allowed_ip, 0..7),
    )
        .prop_map(
            |(public_key, remove, update_only, preshared_key, endpoint, persistent_keepalive, replace, nets)| {
                PeerUpdate {
                    public_key,
                    remove,
                    update_only,
                    preshared_key,
                    endpoint,
                    persistent_keepalive,
                    replace_allowed_ips: replace,
                    allowed_ips: nets,
                }
            },
        )
}

fn update() -> impl Strategy<Value = Update> {
    let private_key = prop::option::of(prop::option::weighted(0.8, (1_u8..3).prop_map(private)));
    let peers = prop::collection::vec(peer_update(), 0..7);
    (private_key, prop::option::of(0_u16..3), prop::option::of(0_u32..3), any::<bool>(), peers).prop_map(
        |(private_key, listen_port, fwmark, replace_peers, peers)| Update {
            private_key,
            listen_port,
            fwmark,
            replace_peers,
            peers,
        },
    )
}

proptest! {
    #[test]
    fn a_change_has_the_same_result_in_the_kernel_as_in_our_data_plane(
        updates in prop::collection::vec((update(), 0_usize..600, any::<bool>()), 1..4),
        knows_removal in any::<bool>(),
        told_at_once in 1_usize..5,
    ) {
        let removal = if knows_removal { Removal::Flag } else { Removal::ByReplacing };
        let (mut kernel, mut ours) = (Kernel::new(knows_removal), Ours::default());
        for (update, limit, look) in updates {
            ours.carry_out(update.clone());
            let said = if look || needs_snapshot(&update, removal) {
                translate(update, &kernel.snapshot(told_at_once), removal)
            } else {
                update
            };
            kernel.carry_out(&said, limit);
            prop_assert_eq!(without_statistics(kernel.snapshot(told_at_once)), ours.snapshot());
        }
    }
}

#[test]
fn a_new_configuration_keeps_the_sessions_of_the_peers_that_stay() {
    let mut kernel = Kernel::new(false);
    let configuration = |peers| Update { replace_peers: true, peers, ..Update::default() };
    let first = configuration(vec![configured(1, &["10.0.0.1/32"]), configured(2, &[]), configured(3, &[])]);
    kernel.carry_out(&first, 8192);
    let second =
        configuration(vec![configured(3, &["10.0.0.3/32"]), configured(4, &[]), configured(1, &["10.0.0.2/32"])]);
    kernel.carry_out(&translate(second, &kernel.snapshot(9), Removal::ByReplacing), 8192);
    assert_eq!(kernel.numbers(), [(peer(1), 0), (peer(3), 2), (peer(4), 3)]);
}
