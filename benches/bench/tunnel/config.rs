//! Configurations for `wg setconf`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use boringtun::x25519::{PublicKey, StaticSecret};

/// A key pair.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) secret: StaticSecret,
    pub(super) public: PublicKey,
}

impl Keys {
    pub(super) fn generate(random: &mut fastrand::Rng) -> Self {
        let mut bytes = [0; 32];
        random.fill(&mut bytes);
        let secret = StaticSecret::from(bytes);
        Self { public: PublicKey::from(&secret), secret }
    }
}

/// The section of an interface.
pub(super) fn interface(keys: &Keys, port: u16) -> String {
    let secret = BASE64.encode(keys.secret.to_bytes());
    format!("[Interface]\nPrivateKey = {secret}\nListenPort = {port}\n")
}

/// Appends the section of a peer.
pub(super) fn add_peer(text: &mut String, key: &PublicKey, allowed: Ipv4Addr, endpoint: Option<SocketAddrV4>) {
    let key = BASE64.encode(key.as_bytes());
    let written = write!(text, "[Peer]\nPublicKey = {key}\nAllowedIPs = {allowed}/32\n");
    written.expect("writing to a string does not fail");
    if let Some(endpoint) = endpoint {
        let written = writeln!(text, "Endpoint = {endpoint}");
        written.expect("writing to a string does not fail");
    }
}

/// Peers that never send: random public keys, and addresses of 10.128.0.0/9.
pub(super) fn unused_peers(random: &mut fastrand::Rng) -> impl Iterator<Item = (PublicKey, Ipv4Addr)> + '_ {
    (0_u32..).map(move |number| {
        let mut key = [0; 32];
        random.fill(&mut key);
        (PublicKey::from(key), Ipv4Addr::from((10 << 24 | 1 << 23) + number))
    })
}

/// The key in base64, as `wg` prints it.
pub(super) fn encoded(key: &PublicKey) -> String {
    BASE64.encode(key.as_bytes())
}
