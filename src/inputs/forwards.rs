//! Port forwards that would take a port of the bastion's own services.

use std::net::Ipv4Addr;

use crate::config::{Config, Forward, Ports, Transport};
use crate::site::Site;

/// Whether the bastion keeps a port of this forward for itself at `address`: at its own first address it keeps the
/// ports of SSH (unless SSH is reached through the tunnel only) and of WireGuard. Such a forward is not loaded for that
/// address.
pub(crate) fn is_reserved(forward: &Forward, address: Ipv4Addr, config: &Config, site: &Site) -> bool {
    let includes = |port: u16| forward.ports.overlaps(Ports::single(port));
    let is_for = |transport: Transport| forward.transports.each().contains(&transport);
    let tcp = is_for(Transport::Tcp) && !config.firewall.ssh_only_by_tunnel;
    let ssh = tcp && site.ssh_ports(&config.firewall).into_iter().any(includes);
    let tunnel = is_for(Transport::Udp) && config.firewall.wireguard_port.is_some_and(includes);
    site.own_address() == Some(address) && (ssh || tunnel)
}
