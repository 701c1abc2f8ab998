//! Identifiers, one type per kind: a network's and a server's number get swapped one day if both are bare.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Between 1 and 2^53-1 in the real API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(id: u64) -> Self {
                Self(id)
            }
        }
    };
}

id! {
    /// A private network.
    NetworkId
}
id! {
    /// A cloud server; also its `instance-id` in the metadata.
    ServerId
}
id! {
    /// A change in progress, or one that ended.
    ActionId
}
id! {
    /// A floating IP.
    FloatingIpId
}
id! {
    /// A primary IP.
    PrimaryIpId
}
id! {
    /// A cloud firewall.
    FirewallId
}
id! {
    /// A location, such as `hel1`.
    LocationId
}
