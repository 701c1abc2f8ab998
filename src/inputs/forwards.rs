//! Port forwards that would take a port of the bastion's own services.

use std::net::Ipv4Addr;

use crate::config::{Config, Forward, Ports, Transports};
use crate::site::Site;

/// Whether the bastion keeps a port of this forward for itself at `address`: at its own first address it keeps the
/// ports of SSH (unless SSH is reached through the tunnel only) and of WireGuard. Such a forward is not loaded for that
/// address.
pub(crate) fn is_reserved(forward: &Forward, address: Ipv4Addr, config: &Config, site: &Site) -> bool {
    let includes = |port: u16| forward.ports.overlaps(Ports::single(port));
    let tcp = forward.transports != Transports::Udp && !config.firewall.ssh_only_by_tunnel;
    let ssh = tcp && site.ssh_ports(&config.firewall).into_iter().any(includes);
    let tunnel = forward.transports != Transports::Tcp && config.firewall.wireguard_port.is_some_and(includes);
    site.own_address() == Some(address) && (ssh || tunnel)
}
