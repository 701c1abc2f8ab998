//! What the chains of other programs have to let pass: forwarded packets, and packets to the bastion's own ports.

use ipnet::Ipv4Net;

use crate::config::{Acl, Config, Transport};
use crate::inputs::{Access, Tunnel, access};
use crate::net::{InterfaceName, overlap, v4};
use crate::site::{PrivateLink, Site};

/// Packets that come in by one interface and leave by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardPath {
    /// The interface that they come in by.
    pub from: InterfaceName,
    /// The interface that they leave by.
    pub to: InterfaceName,
    /// Which of these packets.
    pub packets: Packets,
}

/// Which packets take a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packets {
    /// Those of flows that these sources open.
    New(Vec<Ipv4Net>),
    /// Those of flows that the other side opened.
    Answers,
    /// Those to a public address, translated to a private one.
    Published,
}

/// The paths between our links that the configuration needs. Which packets really pass on them, our rules decide.
pub fn forward_paths(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Vec<ForwardPath> {
    let Some(public) = &site.public else { return Vec::new() };
    let publishes = !config.nat.forwards.is_empty() || !config.nat.statics.is_empty();
    let lists = tunnel.and_then(|tunnel| access(config, site, tunnel));
    let mut paths = Vec::new();
    let mut add = |from: &InterfaceName, to: &InterfaceName, packets| {
        paths.push(ForwardPath { from: from.clone(), to: to.clone(), packets });
    };
    // The program that manages a bridge lets its guests' packets through its own chains.
    for link in site.private.iter().filter(|link| !link.is_local) {
        let new = || Packets::New(link.ranges().collect());
        add(&link.interface, &public.interface, new());
        add(&public.interface, &link.interface, Packets::Answers);
        if publishes {
            add(&public.interface, &link.interface, Packets::Published);
        }
        for other in site.private.iter().filter(|link| !link.is_local) {
            // Our rules have a path from a link to itself only where private hosts may use public addresses.
            let is_path = if other.interface == link.interface {
                publishes && config.tenants.iter().any(|line| is_within(line, link))
            } else {
                !config.tenants.is_empty()
            };
            if is_path {
                add(&link.interface, &other.interface, new());
            }
        }
        if publishes {
            for other in site.private.iter().filter(|link| !link.is_local) {
                add(&link.interface, &other.interface, Packets::Published);
            }
        }
        if let Some(tunnel) = tunnel {
            add(&tunnel.interface, &link.interface, Packets::New(tunnel.routed()));
            let has_remote_networks = !v4(tunnel.remote_networks.iter().copied()).is_empty();
            let is_entered = has_remote_networks || lists.as_ref().is_some_and(Access::names_origins);
            add(&link.interface, &tunnel.interface, if is_entered { new() } else { Packets::Answers });
        }
    }
    if let Some(tunnel) = tunnel.filter(|tunnel| lists.as_ref().is_some_and(|lists| lists.leads_to_peers(tunnel))) {
        add(&tunnel.interface, &tunnel.interface, Packets::New(tunnel.routed()));
    }
    if let Some(tunnel) = tunnel.filter(|tunnel| tunnel.full_tunnel) {
        add(&tunnel.interface, &public.interface, Packets::New(tunnel.routed()));
        add(&public.interface, &tunnel.interface, Packets::Answers);
    }
    paths
}

/// Whether a line of `tenants.allow` lets hosts of one network reach others of the same network through the bastion.
fn is_within(line: &Acl, network: &PrivateLink) -> bool {
    let touches = |ranges: &[Ipv4Net]| network.ranges().any(|own| ranges.iter().any(|range| overlap(*range, own)));
    touches(&line.from) && touches(&line.to)
}

/// A port of the bastion's own that has to be reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenPort {
    pub(super) transport: Transport,
    pub(super) port: u16,
    /// `SSH` or `WireGuard`.
    pub(super) service: &'static str,
}

/// The ports of SSH, and the tunnel's if there is one.
pub(super) fn open_ports(config: &Config, site: &Site) -> Vec<OpenPort> {
    let ssh = config.firewall.ssh_ports.as_ref().unwrap_or(&site.sshd_ports);
    let default = ssh.is_empty().then_some(22);
    let ssh = ssh.iter().copied().chain(default);
    let mut ports: Vec<OpenPort> =
        ssh.map(|port| OpenPort { transport: Transport::Tcp, port, service: "SSH" }).collect();
    let tunnel = config.wireguard.as_ref().map(|wireguard| wireguard.listen_port);
    ports.extend(tunnel.map(|port| OpenPort { transport: Transport::Udp, port, service: "WireGuard" }));
    ports
}
