//! What the tests share: keys, any change, and a client that writes as wg(8) does.

mod answer;
mod request;
mod server;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::key::{LENGTH, PresharedKey, PrivateKey, PublicKey};
use crate::model::{AllowedIp, PeerUpdate, Update};

/// The key whose every byte is `byte`.
fn public_key(byte: u8) -> PublicKey {
    PublicKey([byte; LENGTH])
}

fn hex(bytes: &[u8; LENGTH]) -> String {
    base16ct::lower::encode_str(bytes, &mut [0; 2 * LENGTH]).unwrap().to_owned()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The lines between `set=1` and the empty line, as wg(8) writes them from its arguments.
fn as_wg_writes(update: &Update) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| writeln!(text, "{key}={value}").unwrap();
    if let Some(key) = &update.private_key {
        line("private_key", &key.as_ref().map_or("0".repeat(64), |key| hex(key.bytes())));
    }
    if let Some(port) = update.listen_port {
        line("listen_port", &port);
    }
    if let Some(mark) = update.fwmark {
        line("fwmark", &mark);
    }
    if update.replace_peers {
        line("replace_peers", &true);
    }
    for peer in &update.peers {
        line("public_key", &hex(&peer.public_key.0));
        if peer.remove {
            line("remove", &true);
        }
        if peer.update_only {
            line("update_only", &true);
        }
        if let Some(key) = &peer.preshared_key {
            line("preshared_key", &hex(&key.0));
        }
        if let Some(endpoint) = peer.endpoint {
            line("endpoint", &endpoint);
        }
        if let Some(seconds) = peer.persistent_keepalive {
            line("persistent_keepalive_interval", &seconds);
        }
        if peer.replace_allowed_ips {
            line("replace_allowed_ips", &true);
        }
        for AllowedIp { net, remove } in &peer.allowed_ips {
            line("allowed_ip", &format!("{}{net}", if *remove { "-" } else { "" }));
        }
    }
    text
}

fn any_net() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128_u8).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length % 33 } else { length };
        IpNet::new(address, length).unwrap().trunc()
    })
}

prop_compose! {
    fn any_peer_update()(
        public_key in any::<[u8; LENGTH]>(),
        flags in any::<[bool; 3]>(),
        preshared_key in option::of(any::<[u8; LENGTH]>()),
        endpoint in option::of(any::<(IpAddr, u16)>()),
        persistent_keepalive in option::of(any::<u16>()),
        allowed_ips in vec((any_net(), any::<bool>()), 0..5),
    ) -> PeerUpdate {
        let [remove, update_only, replace_allowed_ips] = flags;
        PeerUpdate {
            public_key: PublicKey(public_key),
            remove,
            update_only,
            preshared_key: preshared_key.map(PresharedKey),
            endpoint: endpoint.map(SocketAddr::from),
            persistent_keepalive,
            replace_allowed_ips,
            allowed_ips: allowed_ips.into_iter().map(|(net, remove)| AllowedIp { net, remove }).collect(),
        }
    }
}

prop_compose! {
    pub(super) fn any_update()(
        private_key in option::of(option::of(any::<[u8; LENGTH]>().prop_map(PrivateKey::from_bytes))),
        listen_port in option::of(any::<u16>()),
        fwmark in option::of(any::<u32>()),
        replace_peers in any::<bool>(),
        peers in vec(any_peer_update(), 0..5),
    ) -> Update {
        Update { private_key, listen_port, fwmark, replace_peers, peers }
    }
}
