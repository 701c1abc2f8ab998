//! The settings and their values.

use super::{Forwarding, flows};
use crate::net::InterfaceName;
use crate::site::Site;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// Path below `/proc/sys` (dots would be ambiguous: `eth0.100` is an interface).
    pub path: String,
    /// The value it shall have.
    pub value: String,
    /// How it is meant.
    pub need: Need,
}

/// How a setting is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// There is no gateway without it.
    Must,
    /// The gateway is better with it. It may not be there yet, or not be ours to write.
    Tuned,
    /// The same, and a larger number is as good: it is never lowered.
    AtLeast,
}

/// What of the machine decides on values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory, if known.
    pub memory: Option<u64>,
    /// Whether `rp_filter` of `all` is 1: then it is strict on every interface that does not say 2.
    pub strict_sources: bool,
}

/// The path of the setting that holds for every interface, where theirs is not greater.
pub(super) const STRICT_SOURCES: &str = "net/ipv4/conf/all/rp_filter";
/// The path of the switch that makes a host a router.
pub(super) const IP_FORWARD: &str = "net/ipv4/ip_forward";

/// What a gateway with these links and this tunnel needs on this machine. Sources: the kernel's
/// `Documentation/networking/ip-sysctl.rst`.
pub fn desired(site: &Site, tunnel: Option<&InterfaceName>, forwarding: Forwarding, machine: Machine) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |path: String, value: &str| {
        settings.push(Setting { path, value: value.to_owned(), need: Need::Must });
    };
    let public = site.public.iter().map(|link| &link.interface);
    let private = site.private.iter().map(|link| &link.interface);
    let interfaces: Vec<_> = public.chain(private).chain(tunnel).collect();
    if forwarding == Forwarding::On {
        // First of all: a change of it sets every interface's switch, and resets the redirect settings.
        set(IP_FORWARD.to_owned(), "1");
        // A packet is routed by the switch of the interface that it came in by, and others may turn that off alone
        // (systemd-networkd's IPv4Forwarding=).
        for interface in &interfaces {
            set(format!("net/ipv4/conf/{interface}/forwarding"), "1");
        }
    }
    // Redirects are sent if `all` or the interface says so, and would tell private hosts to leave us out.
    set("net/ipv4/conf/all/send_redirects".to_owned(), "0");
    // On a router these two count only if `all` and the interface say so, so `all` is enough to end them.
    set("net/ipv4/conf/all/accept_redirects".to_owned(), "0");
    set("net/ipv4/conf/all/accept_source_route".to_owned(), "0");
    for interface in &interfaces {
        // Not strict: the way back may differ from the way in (tunnels, several networks), and the rules check sources
        // themselves. Loose (2), beside a default route, lets every source pass too, after a look for its route that makes each
        // packet some 3 % dearer; but the greater one of `all` and the interface counts, so it is the way out of a strict `all`.
        let rp_filter = if machine.strict_sources { "2" } else { "0" };
        set(format!("net/ipv4/conf/{interface}/rp_filter"), rp_filter);
        set(format!("net/ipv4/conf/{interface}/send_redirects"), "0");
    }
    settings.extend(flows::desired(machine.memory));
    settings
}
