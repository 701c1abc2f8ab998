//! Random packets whose addresses and ports are likely to be those that a configuration names.

use std::net::Ipv4Addr;

use bastiond::internals::config::{Acl, Config, Ports};
use bastiond::internals::conntrack::{Layer4, Tuple};
use bastiond::internals::hetzner::unroutable;
use bastiond::internals::inputs::Tunnel;
use bastiond::internals::net::v4;
use bastiond::internals::site::{PrivateLink, Site};
use fastrand::Rng;
use ipnet::Ipv4Net;

use super::testbed::{LINKS, Probe};

/// Numbers of protocols in the IP header (IANA, "Assigned Internet Protocol Numbers").
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const ESP: u8 = 50;
const VRRP: u8 = 112;
pub(super) const SCTP: u8 = 132;
const EXPERIMENTAL: u8 = 253;

/// How often each one is chosen.
const PROTOCOLS: [u8; 15] = [TCP, TCP, TCP, TCP, UDP, UDP, UDP, UDP, ICMP, SCTP, SCTP, GRE, ESP, VRRP, EXPERIMENTAL];

/// Ports for which there are rules by default, and some others.
const WELL_KNOWN_PORTS: [u16; 5] = [22, 25, 53, 443, 51820];

/// What probes are made of.
pub(super) struct Material {
    /// Per link: sources that the link may have.
    sources: Vec<(&'static str, Vec<Ipv4Net>)>,
    destinations: Vec<Ipv4Net>,
    ports: Vec<u16>,
    /// The bastion's own addresses: no other host sends from them.
    own: Vec<Ipv4Addr>,
    /// Sources that the internet does not have.
    not_from_outside: Vec<Ipv4Net>,
    /// Ranges of peers inside private networks: private hosts do not send from them.
    behind_peers: Vec<Ipv4Net>,
}

/// Whether a source may come by its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Legitimate,
    Spoofed,
}

fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
    texts.iter().map(|text| text.parse().expect("a range")).collect()
}

/// The ranges, single addresses of them more often than not, and the ports of access lists.
fn of_lists<'a>(lists: impl IntoIterator<Item = &'a Acl>) -> (Vec<Ipv4Net>, Vec<Ipv4Net>, Vec<Ports>) {
    let (mut from, mut to, mut ports) = (Vec::new(), Vec::new(), Vec::new());
    for acl in lists {
        from.extend(&acl.from);
        to.extend(&acl.to);
        ports.extend(&acl.ports);
    }
    (from, to, ports)
}

impl Material {
    pub(super) fn new(config: &Config, site: &Site, tunnel: Option<&Tunnel>) -> Self {
        let host = Ipv4Net::from;
        let public: Vec<Ipv4Addr> = site.public.iter().flat_map(|link| link.addresses.iter().copied()).collect();
        let network_lists = config.networks.iter().map(|network| &network.lists);
        let egress: Vec<&Acl> = std::iter::once(&config.egress.lists)
            .chain(network_lists)
            .flat_map(|lists| lists.deny.iter().chain(lists.allow.iter().flatten()))
            .collect();
        let (_, egress_to, egress_ports) = of_lists(egress);
        let (tenants_from, tenants_to, tenant_ports) = of_lists(&config.tenants);
        let (open_from, _, open_ports) = of_lists(config.nat.statics.iter().flat_map(|entry| &entry.open));
        let blocklist = v4(config.firewall.blocklist.iter().copied());

        let mut internet = nets(&["11.0.0.0/8", "12.0.0.0/14", "13.0.0.0/14", "192.0.2.0/24", "93.184.0.0/16"]);
        internet.extend(open_from);
        internet.extend(config.nat.forwards.iter().flat_map(|forward| forward.from.iter().copied()));
        internet.extend(v4(config.firewall.services.iter().flat_map(|service| service.from.iter().copied())));
        internet.extend(&blocklist);
        let mut sources = vec![("eth0", internet)];
        for link in &site.private {
            let mut hosts: Vec<Ipv4Net> = link.ranges().collect();
            hosts.extend(config.nat.statics.iter().map(|entry| host(entry.private)));
            hosts.extend(&tenants_from);
            hosts.extend(v4(config.firewall.services.iter().flat_map(|service| service.from.iter().copied())));
            hosts.retain(|range| link.ranges().any(|own| own.contains(range)));
            let name = LINKS.into_iter().find(|name| *name == link.interface.as_str()).expect("a link of the testbed");
            sources.push((name, hosts));
        }
        let peers = config.wireguard.iter().flat_map(|wireguard| &wireguard.peers);
        let peers = v4(peers.flat_map(|peer| peer.allowed_ips.iter().copied()));
        let behind_peers = if tunnel.is_some() { peers } else { Vec::new() };
        if let Some(tunnel) = tunnel {
            let routed = tunnel.routed();
            let sent = behind_peers.iter().copied().filter(|range| routed.iter().any(|net| net.contains(range)));
            sources.push(("wg0", sent.collect()));
        }

        let mut own = public.clone();
        own.extend(site.private.iter().map(|link| link.address));
        own.extend(tunnel.iter().flat_map(|tunnel| v4(tunnel.addresses.iter().copied())).map(|net| net.addr()));
        let mut destinations: Vec<Ipv4Net> = own.iter().copied().map(host).collect();
        // Twice, because much of the policy concerns them.
        destinations.extend(public.iter().copied().map(host));
        destinations.extend(config.nat.forwards.iter().flat_map(|forward| &forward.public).copied().map(host));
        destinations.extend(config.nat.statics.iter().flat_map(|entry| [entry.public, entry.private]).map(host));
        destinations.extend(egress_to);
        destinations.extend(tenants_to);
        destinations.extend(site.private.iter().flat_map(PrivateLink::ranges));
        destinations.extend(&behind_peers);
        destinations.extend(&blocklist);
        destinations.extend(nets(&["11.0.0.0/8", "12.0.0.0/14", "93.184.0.0/16", "10.9.0.0/16", "10.100.0.0/24"]));
        destinations.extend(nets(&["172.16.0.0/12", "169.254.169.254/32", "100.64.0.0/10", "198.18.0.0/15"]));

        let of_groups = config.wireguard.iter().flat_map(|wireguard| &wireguard.groups).map(|group| &group.lists);
        let of_peers = config.wireguard.iter().flat_map(|wireguard| &wireguard.peers).map(|peer| &peer.access.lists);
        let peer_entries: Vec<_> = of_groups
            .chain(of_peers)
            .flat_map(|lists| lists.reach.iter().flatten().chain(&lists.deny).chain(lists.from.iter().flatten()))
            .collect();
        destinations.extend(peer_entries.iter().flat_map(|entry| entry.named_ranges()));
        destinations.retain(|range| range.prefix_len() > 0);

        let mut ports = WELL_KNOWN_PORTS.to_vec();
        let peer_ports = peer_entries.iter().flat_map(|entry| entry.ports.iter().copied());
        let forwards = config.nat.forwards.iter();
        let forward_ports = forwards.flat_map(|forward| [Some(forward.ports), forward.to_port.map(Ports::single)]);
        let services = config.firewall.services.iter().flat_map(|service| service.ports.iter().copied());
        let all = forward_ports
            .flatten()
            .chain(services)
            .chain(egress_ports)
            .chain(tenant_ports)
            .chain(open_ports)
            .chain(peer_ports);
        for Ports { first, last } in all {
            ports.extend([first, last, first.saturating_sub(1).max(1), last.saturating_add(1)]);
        }
        ports.extend(config.firewall.ssh_ports.iter().flatten());
        let mut not_from_outside = unroutable(&public);
        not_from_outside.extend(site.private.iter().flat_map(PrivateLink::ranges));
        not_from_outside.extend(tunnel.iter().flat_map(|tunnel| v4(tunnel.networks.iter().copied())));
        Self { sources, destinations, ports, own, not_from_outside, behind_peers }
    }

    /// A packet with a source port, or an ICMP identifier, that no other one of the batch has, or of a protocol without
    /// either.
    pub(super) fn probe(&self, rng: &mut Rng, number: u16) -> Option<(Probe, Source)> {
        let (link, sources) = &self.sources[rng.usize(..self.sources.len())];
        let source = self.source(rng, link, sources)?;
        let destination = address(rng, &self.destinations)?;
        let is_martian = destination.is_loopback() || destination.is_multicast() || destination.octets()[0] == 0;
        if is_martian || destination.octets()[0] >= 224 {
            return None;
        }
        let protocol = *rng.choice(PROTOCOLS.as_slice())?;
        let port = match rng.u8(0..4) {
            0 => rng.u16(1..3000),
            1 => *rng.choice(&WELL_KNOWN_PORTS)?,
            _ => *rng.choice(&self.ports)?,
        };
        let layer4 = match protocol {
            ICMP => Layer4::Icmp { id: number, kind: 8, code: 0 },
            TCP | UDP | SCTP => Layer4::Ports { source: number, destination: port },
            // Connection tracking has keys in the place of ports, which plain packets do not have.
            GRE => Layer4::Ports { source: 0, destination: 0 },
            _ => Layer4::None,
        };
        let tuple = Tuple { source: source.0, destination, protocol, layer4, zone: None };
        Some((Probe { link, tuple }, source.1))
    }

    fn source(&self, rng: &mut Rng, link: &str, sources: &[Ipv4Net]) -> Option<(Ipv4Addr, Source)> {
        let is_own = |address: &Ipv4Addr| self.own.contains(address);
        if rng.u8(0..16) == 0 {
            // A source of another link.
            let (other, sources) = &self.sources[rng.usize(..self.sources.len())];
            let address = address(rng, sources)?;
            let is_wrong = *other != link && link != "wg0" && (link != "eth0" || self.is_not_from_outside(address));
            let is_wrong = is_wrong || link == "wg0" && *other == "eth0" && !self.is_behind_peer(address);
            let is_wrong =
                is_wrong && (link == "eth0" || !self.sources_of(link).iter().any(|net| net.contains(&address)));
            return (is_wrong && !is_own(&address)).then_some((address, Source::Spoofed));
        }
        let address = address(rng, sources)?;
        let is_right = match link {
            "eth0" => !self.is_not_from_outside(address) && !self.is_behind_peer(address),
            "wg0" => true,
            _ => !self.is_behind_peer(address),
        };
        (is_right && !is_own(&address)).then_some((address, Source::Legitimate))
    }

    fn sources_of(&self, link: &str) -> &[Ipv4Net] {
        self.sources.iter().find(|(name, _)| *name == link).map_or(&[], |(_, sources)| sources)
    }

    fn is_not_from_outside(&self, address: Ipv4Addr) -> bool {
        self.not_from_outside.iter().any(|range| range.contains(&address))
    }

    fn is_behind_peer(&self, address: Ipv4Addr) -> bool {
        self.behind_peers.iter().any(|range| range.contains(&address))
    }
}

/// An address of one of the ranges, its first and last ones more often than others.
fn address(rng: &mut Rng, ranges: &[Ipv4Net]) -> Option<Ipv4Addr> {
    let range = rng.choice(ranges)?;
    let (first, last) = (range.network().to_bits(), range.broadcast().to_bits());
    Some(Ipv4Addr::from_bits(match rng.u8(0..8) {
        0 => first,
        1 => last,
        _ => rng.u32(first..=last),
    }))
}
