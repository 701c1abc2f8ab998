//! Answers.

use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use super::*;
use crate::model::{PeerSnapshot, Snapshot};
use crate::uapi::answer::{format_errno, format_get, write_get};

pub(super) fn peer(byte: u8) -> PeerSnapshot {
    PeerSnapshot {
        public_key: public_key(byte),
        preshared_key: None,
        endpoint: None,
        persistent_keepalive: 0,
        allowed_ips: vec![],
        last_handshake: None,
        rx_bytes: 0,
        tx_bytes: 0,
    }
}

/// An interface of `count` peers that have everything.
fn crowd(count: u32) -> Snapshot {
    let peers = (0..count).map(|number| {
        let mut key = [0xab; LENGTH];
        key[..4].copy_from_slice(&number.to_be_bytes());
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
        PeerSnapshot {
            public_key: PublicKey(key),
            preshared_key: Some(PresharedKey(key)),
            endpoint: Some((address, 51820).into()),
            allowed_ips: vec![IpNet::from(IpAddr::from(address)), net("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff/128")],
            rx_bytes: u64::MAX,
            tx_bytes: u64::MAX,
            ..peer(0)
        }
    });
    Snapshot { peers: peers.collect(), ..Snapshot::default() }
}

#[test]
fn an_interface_is_printed_in_the_order_that_wg_reads() {
    let snapshot = Snapshot {
        private_key: Some(PrivateKey::from_bytes([0x48; LENGTH])),
        listen_port: 51820,
        fwmark: 51820,
        peers: vec![
            PeerSnapshot {
                preshared_key: Some(PresharedKey([0x33; LENGTH])),
                endpoint: Some("[fe80::1%2]:51820".parse().unwrap()),
                persistent_keepalive: 25,
                allowed_ips: vec![net("10.0.0.0/8"), net("2001:db8::/32")],
                last_handshake: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5)),
                rx_bytes: 7,
                tx_bytes: u64::MAX,
                ..peer(0x2a)
            },
            PeerSnapshot { preshared_key: Some(PresharedKey([0; LENGTH])), ..peer(0x44) },
        ],
    };
    let expected = format!(
        "private_key={}\nlisten_port=51820\nfwmark=51820\n\
         public_key={}\npreshared_key={}\nprotocol_version=1\nendpoint=[fe80::1%2]:51820\n\
         last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\ntx_bytes=18446744073709551615\nrx_bytes=7\n\
         persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=2001:db8::/32\n\
         public_key={}\nprotocol_version=1\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\n\
             tx_bytes=0\nrx_bytes=0\n\
         persistent_keepalive_interval=0\nerrno=0\n\n",
        "48".repeat(32),
        "2a".repeat(32),
        "33".repeat(32),
        "44".repeat(32),
    );
    assert_eq!(*format_get(&snapshot), expected);
}

#[test]
fn an_interface_without_settings_is_printed_as_such() {
    assert_eq!(*format_get(&Snapshot::default()), "errno=0\n\n");
}

#[test]
fn ten_thousand_peers_are_printed_in_few_bounded_pieces() {
    /// Counts the pieces.
    struct Pieces(usize, Vec<u8>);

    impl std::io::Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            assert!(bytes.len() <= 16 * 1024, "a piece of {}", bytes.len());
            self.0 += 1;
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let snapshot = crowd(10_000);
    let mut pieces = Pieces(0, Vec::new());
    write_get(&snapshot, &mut pieces).unwrap();
    let whole = format_get(&snapshot);
    assert_eq!(String::from_utf8(pieces.1).unwrap(), *whole);
    assert!(pieces.0 <= whole.len() / 15_000 + 1, "{} pieces for {} bytes", pieces.0, whole.len());
    let one = format_get(&crowd(1)).len();
    assert!(whole.len() < 10_000 * (one + 16), "{} bytes, {one} for one", whole.len());
}

#[test]
fn an_error_is_answered_with_its_negative_number() {
    assert_eq!(format_errno(Ok(())), "errno=0\n\n");
    assert_eq!(format_errno(Err(Errno::EINVAL)), "errno=-22\n\n");
    assert_eq!(format_errno(Err(Errno::EADDRINUSE)), "errno=-98\n\n");
}
