//! The tunnel as a person likes to read it.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::show::span;
use crate::wireguard::status::{PeerReport, TunnelReport};

/// More peers than this are counted: `--json` has them all.
const SHOWN: usize = 50;
/// A key's beginning is enough to tell two peers without names apart.
const KEY: usize = 12;
/// Longer names are cut off in the table.
const NAME: usize = 24;

/// The interface, and its peers: who spoke last comes first.
pub(super) fn table(tunnel: &TunnelReport, now: SystemTime) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{arguments}");
    };
    let TunnelReport { interface, listen_port, mtu, data_plane, peers, .. } = tunnel;
    line(format_args!("\nTUNNEL {interface}: UDP {listen_port}, MTU {mtu}; {}", data_plane.join("; ")));
    if let Some(public_key) = tunnel.public_key {
        line(format_args!("public key {public_key}"));
    }
    let mut peers: Vec<&PeerReport> = peers.iter().collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_handshake_unix));
    if !peers.is_empty() {
        line(format_args!(
            "{:<NAME$} {:>12} {:>10} {:>10}  {:<23} ALLOWED IPS",
            "PEER", "HANDSHAKE", "RECEIVED", "SENT", "ENDPOINT"
        ));
    }
    for peer in peers.iter().take(SHOWN) {
        let endpoint = peer.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string());
        let allowed_ips: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
        line(format_args!(
            "{:<NAME$} {:>12} {:>10} {:>10}  {endpoint:<23} {}",
            label(peer),
            age(peer.last_handshake_unix, now),
            amount(peer.rx_bytes),
            amount(peer.tx_bytes),
            allowed_ips.join(", ")
        ));
    }
    if peers.len() > SHOWN {
        line(format_args!("and {} more peers (--json shows all)", peers.len() - SHOWN));
    }
    text
}

fn label(peer: &PeerReport) -> String {
    match &peer.name {
        Some(name) if name.chars().count() > NAME => name.chars().take(NAME - 1).chain(['…']).collect(),
        Some(name) => name.clone(),
        None => format!("{}…", peer.public_key.to_string().chars().take(KEY).collect::<String>()),
    }
}

fn age(handshake: Option<u64>, now: SystemTime) -> String {
    let Some(handshake) = handshake else { return "never".to_owned() };
    let age = now.duration_since(UNIX_EPOCH + Duration::from_secs(handshake)).map_or(0, |age| age.as_secs());
    format!("{} ago", span(age))
}

/// `512 B`, `1.2 KiB`, as wg(8) counts.
fn amount(bytes: u64) -> String {
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // In tenths, so that no fraction is needed.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, units.next());
    while tenths >= 10_240 {
        let Some(next) = units.next() else { break };
        (tenths, unit) = (tenths / 1024, Some(next));
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, unit.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bastiond_tunnel::key::PublicKey;

    fn peer(number: u8, name: Option<&str>, handshake: Option<u64>) -> PeerReport {
        PeerReport {
            name: name.map(str::to_owned),
            public_key: PublicKey([number; 32]),
            endpoint: handshake.map(|_| "192.0.2.7:50000".parse().unwrap()),
            allowed_ips: vec![format!("10.100.0.{number}/32").parse().unwrap()],
            last_handshake_unix: handshake,
            rx_bytes: 1_234_567,
            tx_bytes: 300,
        }
    }

    #[test]
    fn who_spoke_last_comes_first_and_a_peer_without_a_name_has_its_key() {
        let tunnel = TunnelReport {
            interface: "wg0".parse().unwrap(),
            public_key: Some(PublicKey([9; 32])),
            listen_port: 51820,
            mtu: 1420,
            data_plane: vec!["userspace".to_owned(), "tun: tso".to_owned()],
            peers: vec![
                peer(2, None, None),
                peer(3, Some("Ada's laptop"), Some(990)),
                peer(4, Some("office"), Some(10)),
            ],
        };
        let expected = "
TUNNEL wg0: UDP 51820, MTU 1420; userspace; tun: tso
public key CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=
PEER                        HANDSHAKE   RECEIVED       SENT  ENDPOINT                ALLOWED IPS
Ada's laptop                 10 s ago    1.1 MiB      300 B  192.0.2.7:50000         10.100.0.3/32
office                     16 min ago    1.1 MiB      300 B  192.0.2.7:50000         10.100.0.4/32
AgICAgICAgIC…                   never    1.1 MiB      300 B  -                       10.100.0.2/32
";
        assert_eq!(table(&tunnel, UNIX_EPOCH + Duration::from_secs(1000)), expected);
    }

    #[test]
    fn amounts_are_read_at_a_glance() {
        let shown = [0, 1023, 1024, 1536, 1_048_575, 1_048_576, 5_000_000_000, u64::MAX].map(amount);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "4.6 GiB", "16383.9 PiB"]);
    }

    #[test]
    fn ten_thousand_peers_do_not_flood_the_screen() {
        let peers = (0..200).map(|number| peer(number, None, None)).collect();
        let tunnel = TunnelReport {
            interface: "wg0".parse().unwrap(),
            public_key: None,
            listen_port: 1,
            mtu: 1420,
            data_plane: Vec::new(),
            peers,
        };
        assert!(table(&tunnel, UNIX_EPOCH).ends_with("and 150 more peers (--json shows all)\n"));
    }
}
