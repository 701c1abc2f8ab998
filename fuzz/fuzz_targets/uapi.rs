//! Any input on a tunnel's control socket: it is a request or refused, and what was set can be shown and set
//! again.
#![no_main]

use std::time::{Duration, SystemTime};

use bastiond_tunnel::model::{AllowedIp, PeerSnapshot, PeerUpdate, Snapshot, Update};
use bastiond_tunnel::internals::format_get;
use bastiond_tunnel::internals::parse_set;
use bastiond_tunnel::internals::{Parser, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut parser = Parser::new(|name| (name == "eth2").then_some(2));
    for line in bytes.split(|&byte| byte == b'\n') {
        match parser.line(line) {
            None | Some(Ok(Request::Get)) => {}
            Some(Ok(Request::Set(update))) => can_be_told_and_set_again(update),
            Some(Err(refused)) => {
                assert!(refused.line > 0 && refused.errno() as i32 > 0, "{refused:?}");
                assert!(!refused.to_string().contains(|c: char| c.is_control()), "{refused:?}");
            }
        }
    }
    assert_eq!(parser.is_inside(), parser.end().is_some());
});

/// The update as if it had been carried out on an empty interface, each peer by itself.
fn can_be_told_and_set_again(update: Update) {
    let peers = update.peers.iter().map(|peer| PeerSnapshot {
        public_key: peer.public_key,
        preshared_key: peer.preshared_key.clone(),
        endpoint: peer.endpoint,
        persistent_keepalive: peer.persistent_keepalive.unwrap_or(0),
        allowed_ips: peer.allowed_ips.iter().map(|ip| ip.net).collect(),
        last_handshake: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(update.listen_port.unwrap_or(0).into())),
        rx_bytes: u64::MAX,
        tx_bytes: 0,
    });
    let snapshot = Snapshot {
        private_key: update.private_key.clone().flatten(),
        listen_port: update.listen_port.unwrap_or(0),
        fwmark: update.fwmark.unwrap_or(0),
        peers: peers.collect(),
    };
    let text = format_get(&snapshot);
    let text = text.strip_suffix("errno=0\n\n").expect("the answer ends with its errno");
    let state = ["last_handshake_time_sec=", "last_handshake_time_nsec=", "rx_bytes=", "tx_bytes="];
    let settings = text.lines().filter(|line| !state.iter().any(|key| line.starts_with(key)));
    let shown = parse_set(settings).expect("what is shown can be set");

    let added = |ip: &AllowedIp| AllowedIp { net: ip.net, remove: false };
    let peers = update.peers.iter().map(|peer| PeerUpdate {
        preshared_key: peer.preshared_key.clone().filter(|key| !key.is_none()),
        endpoint: peer.endpoint,
        persistent_keepalive: Some(peer.persistent_keepalive.unwrap_or(0)),
        allowed_ips: peer.allowed_ips.iter().map(added).collect(),
        ..PeerUpdate::new(peer.public_key)
    });
    let expected = Update {
        private_key: snapshot.private_key.clone().map(Some),
        listen_port: update.listen_port.filter(|&port| port != 0),
        fwmark: update.fwmark.filter(|&mark| mark != 0),
        replace_peers: false,
        peers: peers.collect(),
    };
    assert_eq!(shown, expected);
}
