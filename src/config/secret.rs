//! Text that must not appear in logs.

use std::fmt;

/// A text whose `Debug` prints `[redacted]` and whose memory is zeroed when it is dropped.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Takes ownership of a secret.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself. Use it only where it is sent: in a header or a key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
