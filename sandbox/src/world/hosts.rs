//! The sysctls of hosts and routers before they are configured.

use crate::namespace::{self, Namespace};

/// The sysctls of a host with a fresh Debian or Ubuntu. All are listed because a new namespace copies the IPv4 settings
/// of the machine (`net.core.devconf_inherit_init_net`), which may forward. Loose reverse path filtering on new links
/// is systemd's default (50-default.conf).
pub(super) const HOST: [(&str, &str); 11] = [
    // This one comes first because the kernel changes others of the list with it.
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

/// The sysctls of a provider's router: it forwards, has no reverse path filter, sends no redirects, and does not limit
/// ICMP errors, so that the second probe of a test fails in the same way as the first.
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

/// A namespace with the sysctls of a fresh host.
pub(crate) fn host(name: &str) -> Result<Namespace, namespace::Error> {
    let namespace = Namespace::create(name)?;
    namespace.sysctls(&HOST)?;
    Ok(namespace)
}

/// A namespace with the sysctls of a router of the internet.
pub(crate) fn router(name: &str) -> Result<Namespace, namespace::Error> {
    let namespace = Namespace::create(name)?;
    namespace.sysctls(&ROUTER)?;
    namespace.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    Ok(namespace)
}
