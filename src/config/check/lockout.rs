//! Settings that would lock the operator out of this server.

use std::collections::HashMap;

use ipnet::IpNet;

use super::diagnostics::Diagnostics;
use crate::config::policy::Firewall;
use crate::config::protocol::Ports;
use crate::config::wireguard::Wireguard;

/// The port of SSH (IANA). It is open if the configuration names no ports.
const DEFAULT_SSH_PORT: u16 = 22;

/// The lowest SSH port of this server among `ports`, as far as the configuration names them.
pub(super) fn ssh_port_in(ports: Ports, firewall: &Firewall) -> Option<u16> {
    match &firewall.ssh_ports {
        Some(ssh_ports) => ssh_ports.range(ports.first..=ports.last).next().copied(),
        None => ports.overlaps(Ports::single(DEFAULT_SSH_PORT)).then_some(DEFAULT_SSH_PORT),
    }
}

/// Reports blocklist entries that cover an entry of `ssh_from`. `0.0.0.0/0` in `ssh_from` is never covered.
pub(super) fn check_blocklist(blocklist: &[(usize, IpNet)], ssh_from: &[IpNet], diagnostics: &mut Diagnostics) {
    let blocked: HashMap<IpNet, usize> = blocklist.iter().map(|&(index, range)| (range, index)).collect();
    for source in ssh_from.iter().filter(|_| !blocked.is_empty()) {
        for range in std::iter::successors(Some(*source), IpNet::supernet) {
            if let Some(index) = blocked.get(&range) {
                let reason = format!(
                    "{range} covers {source} of firewall.ssh_from and would lock you out; block a smaller range"
                );
                diagnostics.error(format!("firewall.blocklist[{index}]"), reason);
            }
        }
    }
}

/// What is known about the tunnel when SSH depends on it.
#[derive(Debug, Clone, Copy)]
pub(super) enum TunnelForSsh<'a> {
    /// There is none, or it is switched off.
    Missing,
    /// Its section has errors, which are reported already.
    Invalid,
    /// Its section is right.
    Valid(&'a Wireguard),
}

/// Reports `ssh_only_by_tunnel` if no peer could reach this server by the tunnel.
pub(super) fn check_ssh_only_by_tunnel(firewall: &Firewall, tunnel: TunnelForSsh<'_>, diagnostics: &mut Diagnostics) {
    if !firewall.ssh_only_by_tunnel {
        return;
    }
    let reason = match tunnel {
        TunnelForSsh::Missing => "there is no enabled [wireguard] section; add one, or write false",
        TunnelForSsh::Valid(tunnel) if tunnel.addresses.is_empty() => {
            "this server has no address in the tunnel; add one to wireguard.addresses"
        }
        TunnelForSsh::Valid(tunnel) if tunnel.peers.is_empty() => "the tunnel has no peer; add a [[wireguard.peer]]",
        TunnelForSsh::Valid(tunnel) if !tunnel.peers.iter().any(|peer| peer.enabled) => {
            "every peer of the tunnel is disabled; enable one"
        }
        // The file stays valid while time passes, and then nobody gets in.
        TunnelForSsh::Valid(tunnel) if !tunnel.peers.iter().any(|peer| peer.enabled && peer.expires.is_none()) => {
            "every peer of the tunnel expires; remove `expires` of one"
        }
        // A peer with an endpoint can be reached through a closed port, because this server begins the handshake.
        TunnelForSsh::Valid(tunnel)
            if firewall.wireguard_port.is_none()
                && tunnel.peers.iter().all(|peer| !peer.enabled || peer.endpoint.is_none()) =>
        {
            "firewall.wireguard_port is closed and no peer has an endpoint; open the port"
        }
        TunnelForSsh::Valid(tunnel)
            if !tunnel.peers.iter().any(|peer| peer.enabled && peer.expires.is_none() && tunnel.reaches_ssh(peer)) =>
        {
            "no lasting peer's lists have bastion:ssh; add it to `reach` of a group or of a peer"
        }
        TunnelForSsh::Invalid | TunnelForSsh::Valid(_) => return,
    };
    diagnostics.error("firewall.ssh_only_by_tunnel", format!("would lock you out: {reason}"));
}
