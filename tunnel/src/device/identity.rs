//! The interface's keys, and what is derived from them.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::x25519;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::key::{PrivateKey, PublicKey};

/// The private key in the forms that the protocol core takes.
pub struct Identity {
    /// The configured key.
    pub private_key: PrivateKey,
    /// The scalar.
    pub secret: x25519::StaticSecret,
    /// The public key that belongs to it.
    pub public: x25519::PublicKey,
    /// Checks a handshake message's first MAC and never demands a cookie. Every peer's protocol core shares it: whether
    /// the interface is under load is decided before.
    pub relaxed: Arc<RateLimiter>,
    /// Demands a cookie of every handshake message that has none.
    pub strict: RateLimiter,
    cookie_salt: hmac::Key,
}

impl Identity {
    /// Derives the rest from a private key.
    ///
    /// # Panics
    /// If the kernel gives no random numbers, which Linux does not do once it has booted.
    pub fn new(private_key: PrivateKey) -> Self {
        let secret = private_key.secret();
        let public = x25519::PublicKey::from(&secret);
        Self {
            private_key,
            relaxed: Arc::new(RateLimiter::new(&public, u64::MAX)),
            strict: RateLimiter::new(&public, 0),
            secret,
            public,
            cookie_salt: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                .expect("the kernel gives random numbers"),
        }
    }

    /// The interface's public key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.public.to_bytes())
    }

    /// The address to which the protocol core binds a cookie. It takes an address only, so that all hosts behind one
    /// NAT could use one cookie; the kernel binds it to address and port (`drivers/net/wireguard/cookie.c`,
    /// `make_cookie`). So this is an artificial address, derived from both.
    pub fn cookie_address(&self, from: &SocketAddr) -> IpAddr {
        let mut bytes = [0; 18];
        match from.ip() {
            IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes[..16].copy_from_slice(&address.octets()),
        }
        bytes[16..].copy_from_slice(&from.port().to_be_bytes());
        let tag = hmac::sign(&self.cookie_salt, &bytes);
        let mut folded = [0; 16];
        folded.copy_from_slice(&tag.as_ref()[..16]);
        IpAddr::V6(Ipv6Addr::from(folded))
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_bound_to_address_and_port() {
        let identity = Identity::new(PrivateKey::generate());
        let bound = |from: &str| identity.cookie_address(&from.parse().unwrap());
        assert_eq!(bound("203.0.113.9:1000"), bound("203.0.113.9:1000"));
        assert_ne!(bound("203.0.113.9:1000"), bound("203.0.113.9:1001"));
        assert_ne!(bound("203.0.113.9:1000"), bound("203.0.113.8:1000"));
        assert_ne!(bound("[2001:db8::1]:1000"), bound("[2001:db8::2]:1000"));
    }
}
