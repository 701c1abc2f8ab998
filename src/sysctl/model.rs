//! The settings and their values.

use crate::net::InterfaceName;
use crate::site::Site;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Setting {
    /// Path below `/proc/sys` (dots would be ambiguous: `eth0.100` is an interface).
    pub(super) path: String,
    /// The wanted value.
    pub(super) value: String,
    /// How much the gateway needs it.
    pub(super) need: Need,
}

/// How much the gateway needs a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Without it there is no gateway.
    Must,
    /// The gateway is better with it. It may not exist yet, or not be ours to write.
    Tuned,
    /// As `Tuned`; a larger number is as good, so it is never lowered.
    AtLeast,
}

/// Properties of the machine that decide on values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Bytes of memory, if known.
    pub(super) memory: Option<u64>,
    /// Whether `rp_filter` of `all` is 1: then it is strict on every interface that does not say 2.
    pub(super) strict_sources: bool,
}

/// The path of the setting that holds for every interface, where theirs is not greater.
pub(super) const STRICT_SOURCES: &str = "net/ipv4/conf/all/rp_filter";
/// The path of the switch that makes a host a router.
pub(super) const IP_FORWARD: &str = "net/ipv4/ip_forward";

/// What the settings are wanted for. While it stays the same, a setting that differs was changed by another program.
pub(super) type Subject = (Site, Option<InterfaceName>);
