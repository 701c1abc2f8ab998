//! What the machines of the world are like before anybody configures them.

use crate::namespace::{self, Namespace};

/// A host as a fresh Debian or Ubuntu has it. Written out because a new namespace copies the IPv4 settings of the
/// machine (`net.core.devconf_inherit_init_net`), which may well forward. Loose reverse path filtering on new links is
/// systemd's default (50-default.conf).
pub(super) const HOST: [(&str, &str); 11] = [
    // First: switching it sets others of the list.
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "2"),
    ("net.ipv4.conf.all.accept_redirects", "1"),
    ("net.ipv4.conf.default.accept_redirects", "1"),
    ("net.ipv4.conf.all.send_redirects", "1"),
    ("net.ipv4.conf.default.send_redirects", "1"),
    ("net.ipv4.conf.all.accept_source_route", "0"),
    ("net.ipv4.conf.default.accept_source_route", "0"),
    ("net.ipv4.conf.all.proxy_arp", "0"),
    ("net.ipv4.conf.default.proxy_arp", "0"),
];

/// A router of the provider: forwards, filters nothing by path, sends no redirects, and never leaves out an ICMP error,
/// so that a test's second probe fails as clearly as its first.
pub(super) const ROUTER: [(&str, &str); 8] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.icmp_ratelimit", "0"),
];

/// A namespace that is a fresh host.
pub(crate) fn host(name: &str) -> Result<Namespace, namespace::Error> {
    let namespace = Namespace::create(name)?;
    namespace.sysctls(&HOST)?;
    Ok(namespace)
}

/// A namespace that is a router of the internet.
pub(crate) fn router(name: &str) -> Result<Namespace, namespace::Error> {
    let namespace = Namespace::create(name)?;
    namespace.sysctls(&ROUTER)?;
    namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(namespace)
}
