//! Identifiers, one type per kind of resource, so that they cannot be confused.

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
    /// The id of a private network.
    NetworkId
}
id! {
    /// The id of a server, also its `instance-id` in the metadata.
    ServerId
}
id! {
    /// The id of an action, running or ended.
    ActionId
}
id! {
    /// The id of a floating IP.
    FloatingIpId
}
id! {
    /// The id of a primary IP.
    PrimaryIpId
}
id! {
    /// The id of a cloud firewall.
    FirewallId
}
id! {
    /// The id of a location such as `hel1`.
    LocationId
}

/// Any resource that an action can change or lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceId {
    Network(NetworkId),
    Server(ServerId),
    FloatingIp(FloatingIpId),
    PrimaryIp(PrimaryIpId),
    Firewall(FirewallId),
}

impl ResourceId {
    pub(crate) fn kind_and_id(self) -> (&'static str, u64) {
        match self {
            Self::Network(id) => ("network", id.0),
            Self::Server(id) => ("server", id.0),
            Self::FloatingIp(id) => ("floating_ip", id.0),
            Self::PrimaryIp(id) => ("primary_ip", id.0),
            Self::Firewall(id) => ("firewall", id.0),
        }
    }
}
