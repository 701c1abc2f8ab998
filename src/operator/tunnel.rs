//! The tunnel and its peers, for people.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;
use comfy_table::CellAlignment::{Left, Right};

use super::table::{Column, format_span, format_table};
use crate::wireguard::refused::RefusedReport;
use crate::wireguard::status::{OutReport, PeerReport, TunnelReport};
use bastiond_tunnel::key::PublicKey;

/// More peers than this are counted: `--json` has them all.
const SHOWN_PEERS: usize = 50;
/// More peers that are out than this are counted.
const SHOWN_OUT: usize = 20;
/// More refused keys and sources than this are counted.
const SHOWN_REFUSED: usize = 20;
/// Characters of a public key that identify a peer without a name.
const KEY_LENGTH: usize = 12;
/// Longer names are shortened, in characters.
const NAME_LENGTH: usize = 24;

/// The interface, and its peers: the one with the newest handshake comes first.
pub(super) fn format_tunnel(tunnel: &TunnelReport, now: SystemTime) -> String {
    let TunnelReport { interface, listen_port, mtu, data_plane, peers, .. } = tunnel;
    let public_key = tunnel.public_key.map_or_else(String::new, |key| format!("public key {key}\n"));
    let data_plane = data_plane.join("; ");
    let mut text = format!("\nTUNNEL {interface}: UDP {listen_port}, MTU {mtu}; {data_plane}\n{public_key}");
    let mut peers: Vec<&PeerReport> = peers.iter().collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(peer.last_handshake_unix));
    let mut rows: Vec<[String; 6]> = peers.iter().take(SHOWN_PEERS).map(|peer| peer_row(peer, now)).collect();
    if peers.len() > SHOWN_PEERS {
        let mut row = [const { String::new() }; 6];
        row[0] = format!("{} more (--json shows all)", peers.len() - SHOWN_PEERS);
        rows.push(row);
    }
    if !rows.is_empty() {
        let columns = [
            Column("PEER", Left, NAME_LENGTH),
            Column("HANDSHAKE", Right, 11),
            Column("RECEIVED", Right, 10),
            Column("SENT", Right, 10),
            Column("ENDPOINT", Left, 22),
            Column("ALLOWED IPS", Left, 0),
        ];
        text.push_str(&format_table(&columns, rows));
    }
    text.push_str(&format_out(&tunnel.out));
    text.push_str(&format_refused(tunnel.refused.as_ref()));
    text
}

/// The peers that may not use the tunnel. `bastionctl peer list` shows all of them.
fn format_out(out: &[OutReport]) -> String {
    let line = |peer: &OutReport| {
        let label = shortened(peer.name.as_deref(), &peer.public_key);
        format!("OUT {label}: {}\n", peer.reason())
    };
    let mut text: String = out.iter().take(SHOWN_OUT).map(line).collect();
    if out.len() > SHOWN_OUT {
        writeln!(text, "OUT {} more (--json shows all)", out.len() - SHOWN_OUT)
            .expect("writing to a string does not fail");
    }
    text
}

/// Whom the tunnel refuses. The list is bounded by the data plane, but for peers, of which there may be many.
fn format_refused(refused: Option<&RefusedReport>) -> String {
    let Some(refused) = refused else {
        return "REFUSED not known: the kernel's WireGuard drops unknown keys and foreign sources without counting them\n"
            .to_owned();
    };
    let mut lines = refused.lines();
    let more = lines.len().saturating_sub(SHOWN_REFUSED);
    lines.truncate(SHOWN_REFUSED);
    lines.extend((more > 0).then(|| format!("{more} more (--json shows all)")));
    lines.iter().map(|line| format!("REFUSED {line}\n")).collect::<Vec<_>>().concat()
}

fn peer_row(peer: &PeerReport, now: SystemTime) -> [String; 6] {
    let allowed_ips: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    [
        shortened(peer.name.as_deref(), &peer.public_key),
        format_age(peer.last_handshake_unix, now),
        format_bytes(peer.rx_bytes),
        format_bytes(peer.tx_bytes),
        peer.endpoint.map_or_else(|| "-".to_owned(), |endpoint| endpoint.to_string()),
        allowed_ips.join(", "),
    ]
}

/// The label of a peer, or the beginning of its key.
pub(super) fn shortened(name: Option<&str>, public_key: &PublicKey) -> String {
    match name {
        Some(name) if name.chars().count() > NAME_LENGTH => name.chars().take(NAME_LENGTH - 1).chain(['…']).collect(),
        Some(name) => name.to_owned(),
        None => format!("{}…", public_key.to_string().chars().take(KEY_LENGTH).collect::<String>()),
    }
}

fn format_age(handshake: Option<u64>, now: SystemTime) -> String {
    let Some(handshake) = handshake else { return "never".to_owned() };
    let age = now.duration_since(UNIX_EPOCH + Duration::from_secs(handshake)).map_or(0, |age| age.as_secs());
    format!("{} ago", format_span(age))
}

/// `512 B`, `1.2 KiB`, as wg(8) counts.
fn format_bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8, name: Option<&str>, handshake: Option<u64>) -> PeerReport {
        PeerReport {
            name: name.map(str::to_owned),
            public_key: PublicKey([number; 32]),
            endpoint: handshake.map(|_| "192.0.2.7:50000".parse().unwrap()),
            allowed_ips: vec![format!("10.100.0.{number}/32").parse().unwrap()],
            last_handshake_unix: handshake,
            rx_bytes: 1_234_567,
            tx_bytes: 300,
            expires_unix: None,
        }
    }

    #[test]
    fn the_newest_handshake_comes_first_and_a_peer_without_a_name_shows_its_key() {
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
            out: vec![OutReport {
                name: Some("eve".to_owned()),
                public_key: PublicKey([5; 32]),
                allowed_ips: Vec::new(),
                is_disabled: false,
                expires_unix: Some(500),
            }],
            refused: None,
        };
        let expected = "
TUNNEL wg0: UDP 51820, MTU 1420; userspace; tun: tso
public key CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=
PEER                        HANDSHAKE    RECEIVED        SENT  ENDPOINT                ALLOWED IPS
Ada's laptop                 10 s ago     1.2 MiB       300 B  192.0.2.7:50000         10.100.0.3/32
office                     16 min ago     1.2 MiB       300 B  192.0.2.7:50000         10.100.0.4/32
AgICAgICAgIC…                   never     1.2 MiB       300 B  -                       10.100.0.2/32
OUT eve: expired 1970-01-01T00:08:20Z
REFUSED not known: the kernel's WireGuard drops unknown keys and foreign sources without counting them
";
        assert_eq!(format_tunnel(&tunnel, UNIX_EPOCH + Duration::from_secs(1000)), expected);
    }

    #[test]
    fn amounts_are_rounded_to_one_digit_after_the_point() {
        let shown = [0, 1023, 1024, 1536, 1_048_575, 1_048_576, 5_000_000_000, u64::MAX].map(format_bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1024.0 KiB", "1.0 MiB", "4.7 GiB", "16.0 EiB"]);
    }

    #[test]
    fn more_than_fifty_peers_are_counted() {
        let peers = (0..200).map(|number| peer(number, None, None)).collect();
        let tunnel = TunnelReport {
            interface: "wg0".parse().unwrap(),
            public_key: None,
            listen_port: 1,
            mtu: 1420,
            data_plane: Vec::new(),
            peers,
            out: Vec::new(),
            refused: Some(RefusedReport::default()),
        };
        assert!(format_tunnel(&tunnel, UNIX_EPOCH).ends_with("150 more (--json shows all)\n"));
    }
}
