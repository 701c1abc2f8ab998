//! Tests of all that needs no kernel; for a real one see `tests/netns/kernel_wireguard.rs`.

mod golden;
mod laws;
mod model;
mod split;

use bastiond_tunnel::key::{LENGTH, PresharedKey, PrivateKey, PublicKey};
use bastiond_tunnel::model::{AllowedIp, PeerUpdate, Snapshot, Update};

use super::translate::{Removal, needs_snapshot, translate};
use super::{BackendChoice, BackendKind, Error, choose};
use crate::outcome::ComponentError as _;

fn peer(number: u8) -> PublicKey {
    PublicKey([number; LENGTH])
}

fn add(net: &str) -> AllowedIp {
    AllowedIp { net: net.parse().unwrap(), remove: false }
}

fn take(net: &str) -> AllowedIp {
    AllowedIp { remove: true, ..add(net) }
}

/// A peer of a configuration, as `wg setconf` says it.
fn configured(number: u8, allowed_ips: &[&str]) -> PeerUpdate {
    let allowed_ips = allowed_ips.iter().map(|net| add(net)).collect();
    PeerUpdate { replace_allowed_ips: true, allowed_ips, ..PeerUpdate::new(peer(number)) }
}

#[test]
fn the_configuration_and_the_kernel_choose_the_data_plane() {
    let chosen = |wanted, available| choose(wanted, available).map_err(|error| error.to_string());
    assert_eq!(chosen(BackendChoice::Userspace, false), Ok(BackendKind::Userspace));
    assert_eq!(chosen(BackendChoice::Userspace, true), Ok(BackendKind::Userspace));
    assert_eq!(chosen(BackendChoice::Auto, false), Ok(BackendKind::Userspace));
    assert_eq!(chosen(BackendChoice::Auto, true), Ok(BackendKind::Kernel));
    assert_eq!(chosen(BackendChoice::Kernel, true), Ok(BackendKind::Kernel));
    assert_eq!(chosen(BackendChoice::Kernel, false), Err("this kernel has no WireGuard".to_owned()));
    assert!(Error::Unavailable.advice().contains("modprobe wireguard"));
}

#[test]
fn kernels_from_6_16_on_remove_single_allowed_ips() {
    for release in ["6.16.0", "6.16-rc1", "6.18.44-cloud-amd64", "7.0.1\n", "10.2"] {
        assert_eq!(Removal::from_release(release), Removal::Flag, "{release}");
    }
    for release in ["6.15.9", "6.1.0-56-cloud-amd64", "5.16.20", "4.19", "6", "", "unknown"] {
        assert_eq!(Removal::from_release(release), Removal::ByReplacing, "{release}");
    }
}

#[test]
fn a_snapshot_is_needed_only_where_the_kernel_understands_a_change_differently() {
    let update = |peers| Update { peers, ..Update::default() };
    let removal = || update(vec![PeerUpdate { allowed_ips: vec![take("10.0.0.1/32")], ..PeerUpdate::new(peer(1)) }]);
    assert!(needs_snapshot(&removal(), Removal::ByReplacing));
    assert!(!needs_snapshot(&removal(), Removal::Flag));
    assert!(!needs_snapshot(&update(vec![configured(1, &["10.0.0.1/32"])]), Removal::ByReplacing));
    let replacing = |peers| Update { replace_peers: true, ..update(peers) };
    assert!(needs_snapshot(&replacing(vec![PeerUpdate::new(peer(1))]), Removal::Flag));
    assert!(!needs_snapshot(&replacing(vec![]), Removal::ByReplacing));
}

/// Peers 1 to 3, of which 1 has two prefixes.
fn observed() -> Snapshot {
    let mut kernel = model::Kernel::new(true);
    let peers =
        vec![configured(1, &["10.0.0.1/32", "10.1.0.0/16"]), configured(2, &["10.0.0.2/32"]), configured(3, &[])];
    kernel.carry_out(&Update { peers, ..Update::default() }, super::message::LIMIT);
    kernel.snapshot(100)
}

#[test]
fn a_new_configuration_touches_only_what_differs_in_cryptokey_routing() {
    let peers =
        vec![configured(1, &["10.0.0.1/32", "10.2.0.0/16"]), configured(2, &["10.0.0.2/32"]), configured(4, &[])];
    let update = Update { replace_peers: true, peers, ..Update::default() };
    let kept = |number, allowed_ips| PeerUpdate {
        preshared_key: Some(PresharedKey([0; LENGTH])),
        persistent_keepalive: Some(0),
        allowed_ips,
        ..PeerUpdate::new(peer(number))
    };
    let gone = PeerUpdate { remove: true, ..PeerUpdate::new(peer(3)) };
    let with_flag = vec![
        gone.clone(),
        kept(1, vec![take("10.1.0.0/16"), add("10.0.0.1/32"), add("10.2.0.0/16")]),
        kept(2, vec![add("10.0.0.2/32")]),
        PeerUpdate::new(peer(4)),
    ];
    assert_eq!(translate(update.clone(), &observed(), Removal::Flag), Update { peers: with_flag, ..Update::default() });
    let by_replacing = vec![
        gone,
        PeerUpdate { replace_allowed_ips: true, ..kept(1, vec![add("10.0.0.1/32"), add("10.2.0.0/16")]) },
        kept(2, vec![add("10.0.0.2/32")]),
        PeerUpdate::new(peer(4)),
    ];
    assert_eq!(
        translate(update, &observed(), Removal::ByReplacing),
        Update { peers: by_replacing, ..Update::default() }
    );
}

#[test]
fn if_no_peer_stays_the_kernel_removes_all_of_them_by_itself() {
    let update = Update { replace_peers: true, peers: vec![PeerUpdate::new(peer(9))], ..Update::default() };
    assert_eq!(translate(update.clone(), &observed(), Removal::ByReplacing), update);
}

#[test]
fn without_the_flag_a_list_is_replaced_by_the_rest_of_it() {
    let removal =
        PeerUpdate { allowed_ips: vec![take("10.1.0.0/16"), take("10.0.0.2/32")], ..PeerUpdate::new(peer(1)) };
    let update = Update { peers: vec![removal], ..Update::default() };
    // The second one is another peer's, and stays its.
    let expected = Update { peers: vec![configured(1, &["10.0.0.1/32"])], ..Update::default() };
    assert_eq!(translate(update, &observed(), Removal::ByReplacing), expected);
}

#[test]
fn debug_output_shows_no_secrets() {
    let secret = PrivateKey::generate();
    let update = Update {
        private_key: Some(Some(secret.clone())),
        peers: vec![PeerUpdate { preshared_key: Some(PresharedKey(*secret.bytes())), ..PeerUpdate::new(peer(1)) }],
        ..Update::default()
    };
    let messages = super::message::changes(&"wg0".parse().unwrap(), &update, super::message::LIMIT);
    assert_eq!(format!("{messages:?}"), "[Message { cmd: SetDevice, .. }]");
}
