//! WireGuard's keys: Curve25519 points and scalars, and the shared secret that may be mixed in.
//!
//! A secret shows neither in `Debug` nor in a log, and is overwritten when it is dropped.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519;
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The length of every key, in bytes.
pub const LENGTH: usize = 32;

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a WireGuard key: 32 bytes are written as 44 characters of base64 that end in `=`, as `wg genkey` prints them"
)]
pub struct InvalidKey;

/// A peer's name: its Curve25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; LENGTH]);

/// The secret half of an interface's key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; LENGTH]);

/// A secret that two peers share beside their keys. All zero means none, as in WireGuard itself.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey(pub [u8; LENGTH]);

impl PrivateKey {
    /// A scalar from a file or a message, clamped for Curve25519 (RFC 7748 §5), as the kernel stores and shows it.
    pub fn from_bytes(mut bytes: [u8; LENGTH]) -> Self {
        bytes[0] &= 0b1111_1000;
        bytes[31] = (bytes[31] & 0b0111_1111) | 0b0100_0000;
        let key = Self(bytes);
        bytes.zeroize();
        key
    }

    /// A new key from the system's random numbers.
    ///
    /// # Panics
    /// If the kernel gives no random numbers, which Linux does not do once it has booted.
    pub fn generate() -> Self {
        let mut bytes = [0; LENGTH];
        ring::rand::SystemRandom::new().fill(&mut bytes).expect("the kernel gives random numbers");
        Self::from_bytes(bytes)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.secret()).to_bytes())
    }

    /// The key as the protocol core takes it.
    pub fn secret(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(self.0)
    }

    /// The bytes, for the control socket and the kernel.
    pub fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The key as `wg genkey` prints it. The text is a secret too.
    pub fn to_base64(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(STANDARD.encode(self.0))
    }
}

impl PresharedKey {
    /// A new key from the system's random numbers.
    ///
    /// # Panics
    /// If the kernel gives no random numbers, which Linux does not do once it has booted.
    pub fn generate() -> Self {
        let mut bytes = [0; LENGTH];
        ring::rand::SystemRandom::new().fill(&mut bytes).expect("the kernel gives random numbers");
        let key = Self(bytes);
        bytes.zeroize();
        key
    }

    /// Whether this is the key of all zeroes, which means that there is none.
    pub fn is_none(&self) -> bool {
        self.0 == [0; LENGTH]
    }

    /// The key as `wg genpsk` prints it. The text is a secret too.
    pub fn to_base64(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(STANDARD.encode(self.0))
    }
}

fn decode(text: &str) -> Result<[u8; LENGTH], InvalidKey> {
    let mut bytes = zeroize::Zeroizing::new(STANDARD.decode(text).map_err(|_| InvalidKey)?);
    let key = bytes.as_slice().try_into().map_err(|_| InvalidKey);
    bytes.zeroize();
    key
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode(text).map(Self)
    }
}

impl FromStr for PrivateKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode(text).map(Self::from_bytes)
    }
}

impl FromStr for PresharedKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decode(text).map(Self)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7748 §6.1: Alice's private and public key.
    const ALICE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn a_private_key_gives_the_public_key_of_the_standard() {
        assert_eq!(ALICE.parse::<PrivateKey>().unwrap().public().to_string(), ALICE_PUBLIC);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        assert_eq!(format!("{:?}", ALICE.parse::<PrivateKey>().unwrap()), "[redacted]");
        assert_eq!(format!("{:?}", PresharedKey([7; LENGTH])), "[redacted]");
    }

    #[test]
    fn a_text_of_another_length_or_alphabet_is_no_key() {
        for text in ["", "AAAA", "!!!!", &ALICE[1..], &format!("{ALICE}="), &ALICE[..43]] {
            assert_eq!(text.parse::<PublicKey>(), Err(InvalidKey), "{text}");
        }
    }

    #[test]
    fn two_generated_keys_differ_and_read_back_as_written() {
        let (one, other) = (PrivateKey::generate(), PrivateKey::generate());
        assert_ne!(one, other);
        assert_eq!(one.to_base64().parse::<PrivateKey>().unwrap(), one);
    }
}
