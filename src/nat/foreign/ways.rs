//! What of ours the chains of others have to let pass.

use ipnet::Ipv4Net;

use crate::config::{Config, Transport};
use crate::inputs::Tunnel;
use crate::net::InterfaceName;
use crate::net::v4;
use crate::site::Site;

/// Packets that come by one interface and leave by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// They come by this one.
    pub(super) from: InterfaceName,
    /// They leave by this one.
    pub(super) to: InterfaceName,
    /// Which of them.
    pub(super) what: What,
}

/// Which packets take a way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Those that open flows, from these sources, and what follows them.
    New(Vec<Ipv4Net>),
    /// Those that belong to flows which the other side opened.
    Answers,
    /// Those that came to a public address and were translated.
    Published,
}

/// The ways between our links that the configuration needs; the rules decide further.
pub(super) fn ways(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Vec<Way> {
    let Some(public) = &site.public else { return Vec::new() };
    let publishes = !config.nat.forwards.is_empty() || !config.nat.statics.is_empty();
    let mut ways = Vec::new();
    let mut way = |from: &InterfaceName, to: &InterfaceName, what| {
        ways.push(Way { from: from.clone(), to: to.clone(), what });
    };
    for link in &site.private {
        let new = || What::New(vec![link.network]);
        way(&link.interface, &public.interface, new());
        way(&public.interface, &link.interface, What::Answers);
        if publishes {
            way(&public.interface, &link.interface, What::Published);
        }
        for other in site.private.iter().filter(|other| other.interface != link.interface) {
            if !config.tenants.is_empty() {
                way(&link.interface, &other.interface, new());
            }
        }
        if publishes {
            for other in &site.private {
                way(&link.interface, &other.interface, What::Published);
            }
        }
        if let Some(tunnel) = tunnel {
            way(&tunnel.interface, &link.interface, What::New(tunnel.routed()));
            let back = if v4(tunnel.remote_networks.iter().copied()).is_empty() { What::Answers } else { new() };
            way(&link.interface, &tunnel.interface, back);
        }
    }
    if let Some(tunnel) = tunnel.filter(|tunnel| tunnel.full_tunnel) {
        way(&tunnel.interface, &public.interface, What::New(tunnel.routed()));
        way(&public.interface, &tunnel.interface, What::Answers);
    }
    ways
}

/// A port of the bastion's own that has to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Door {
    /// TCP or UDP.
    pub(super) transport: Transport,
    /// The port.
    pub(super) port: u16,
    /// What is behind it.
    pub(super) of: &'static str,
}

/// SSH, and the tunnel if there is one.
pub(super) fn doors(config: &Config, site: &Site) -> Vec<Door> {
    let ssh = config.firewall.ssh_ports.as_ref().unwrap_or(&site.sshd_ports);
    let unless_said = ssh.is_empty().then_some(22);
    let ssh = ssh.iter().copied().chain(unless_said);
    let mut doors: Vec<Door> = ssh.map(|port| Door { transport: Transport::Tcp, port, of: "SSH" }).collect();
    let tunnel = config.wireguard.as_ref().map(|wireguard| wireguard.listen_port);
    doors.extend(tunnel.map(|port| Door { transport: Transport::Udp, port, of: "WireGuard" }));
    doors
}
