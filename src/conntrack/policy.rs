//! What may pass, as far as it decides about live flows: the configuration on this server, without the settings that
//! say only how flows are translated or limited. It is kept in `flows.json`, so that a daemon that starts with another
//! configuration knows what was allowed before. The names in that file are those of version 0.1.0.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::{Acl, Config, EgressLists, Ports, Transports};
use crate::inputs::{Access, Tunnel, access, is_reserved};
use crate::net::overlap;
use crate::net::v4;
use crate::site::{PrivateLink, Site};
use bastiond_tunnel::key::PublicKey;

/// What may pass. The default is a policy that covers no flow at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The addresses of the public interface, and those that it had before.
    pub(super) public: BTreeSet<Ipv4Addr>,
    /// The bastion's other addresses: those of private links and of the tunnel.
    pub(super) own: BTreeSet<Ipv4Addr>,
    /// TCP ports of the SSH server.
    pub(super) ssh_ports: BTreeSet<u16>,
    /// UDP port of the tunnel.
    pub(super) tunnel_port: Option<u16>,
    /// The UDP port that is open for a tunnel, be it of another program. Version 0.1.0 does not write it.
    #[serde(default)]
    pub(super) wireguard_port: Option<u16>,
    /// Internet addresses whose packets are dropped in both directions.
    pub(super) blocklist: Vec<Ipv4Net>,
    /// The private networks.
    pub(super) networks: Vec<Network>,
    /// What private hosts may reach on the internet, unless their network has lists of its own.
    pub(super) egress: EgressLists,
    /// Whether packets to ranges that are not routed on the internet are dropped.
    pub(super) guard: bool,
    /// What may pass from one private network to another.
    pub(super) tenants: Vec<Acl>,
    /// Port forwards.
    pub(super) forwards: Vec<Forward>,
    /// Static NAT: public addresses of private hosts.
    pub(super) statics: Vec<Static>,
    /// Services of the bastion.
    pub(super) services: Vec<Service>,
    /// The tunnel.
    pub(super) tunnel: Option<TunnelPolicy>,
}

/// A private network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) range: Ipv4Net,
    /// Further ranges behind it. Version 0.1.0 does not write them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) behind: Vec<Ipv4Net>,
    /// Whether it is a bridge of this server, whose guests another program publishes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_local: bool,
    /// Its own lists, if any.
    pub(super) lists: Option<EgressLists>,
}

impl Network {
    /// Its range, and those behind it.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        [self.range].into_iter().chain(self.behind.iter().copied())
    }
}

/// A port forward.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Forward {
    /// Empty: every address of the public interface that is no static address.
    pub(super) public: Vec<Ipv4Addr>,
    /// The address at which the bastion itself needs one of the ports, so that nothing is forwarded there.
    #[serde(rename = "spares", default)]
    pub(super) reserved_at: Option<Ipv4Addr>,
    pub(super) transports: Transports,
    pub(super) ports: Ports,
    pub(super) to: Ipv4Addr,
    pub(super) to_port: Option<u16>,
    /// Empty: all sources.
    pub(super) from: Vec<Ipv4Net>,
    /// Whether the host sees the bastion's address. It decides only about flows that are not answered. Older versions
    /// do not write it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) snat: bool,
}

/// A static address: the public address of a private host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Static {
    pub(super) public: Ipv4Addr,
    pub(super) private: Ipv4Addr,
    pub(super) open: Vec<Acl>,
}

/// A service of the bastion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Service {
    pub(super) transports: Transports,
    pub(super) ports: Vec<Ports>,
    /// `None`: all sources.
    pub(super) from: Option<Vec<Ipv4Net>>,
}

/// The tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TunnelPolicy {
    /// The networks of the tunnel's own addresses, in which the peers are.
    pub(super) networks: Vec<Ipv4Net>,
    /// The ranges behind peers.
    #[serde(rename = "sites")]
    pub(super) remote_networks: Vec<Ipv4Net>,
    /// Whether peers may reach the internet.
    #[serde(rename = "full")]
    pub(super) full_tunnel: bool,
    /// The peers, each with its allowed-ips.
    pub(super) peers: Vec<(PublicKey, Vec<Ipv4Net>)>,
    /// The lists of peers, if there are any. Version 0.1.0 does not write them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<Access>,
}

impl Policy {
    /// The policy on this server; `None` while its public link has no address, because then it is not known what is
    /// allowed.
    ///
    /// No flow may end because DHCP or the metadata service is slow. So an address that the public link had under the
    /// policy `before` still counts, and while the site has problems, so do the networks that are missing in it.
    pub fn new(config: &Config, site: &Site, tunnel: Option<&Tunnel>, before: Option<&Self>) -> Option<Self> {
        let public = site.public.as_ref().filter(|link| !link.addresses.is_empty())?;
        let mut policy = Self {
            public: public.addresses.iter().copied().collect(),
            own: own_addresses(site, tunnel),
            ssh_ports: site.ssh_ports(&config.firewall),
            tunnel_port: config.wireguard.as_ref().map(|wireguard| wireguard.listen_port),
            wireguard_port: config.firewall.wireguard_port,
            blocklist: v4(config.firewall.blocklist.iter().copied()),
            networks: networks(config, site),
            egress: config.egress.lists.clone(),
            guard: config.egress.guard,
            tenants: config.tenants.clone(),
            forwards: forwards(config, site),
            statics: statics(config, site),
            services: services(config),
            tunnel: tunnel.map(|tunnel| tunnel_policy(config, site, tunnel)),
        };
        if let Some(before) = before {
            policy.public.extend(&before.public);
            if !site.problems.is_empty() {
                policy.keep_missing_of(before);
            }
        }
        Some(policy)
    }

    /// Takes over the addresses and networks of a former policy that this one lacks.
    fn keep_missing_of(&mut self, before: &Self) {
        self.own.extend(&before.own);
        let is_known = |network: &Network| self.networks.iter().any(|known| overlap(known.range, network.range));
        let missing: Vec<Network> = before.networks.iter().filter(|network| !is_known(network)).cloned().collect();
        self.networks.extend(missing);
    }

    /// Whether a host is in one of the private networks.
    pub(super) fn serves_host(&self, host: Ipv4Addr) -> bool {
        self.networks.iter().any(|network| network.ranges().any(|range| range.contains(&host)))
    }

    /// The tunnel's UDP port, if its packets are not tracked.
    pub(super) fn untracked_port(&self) -> Option<u16> {
        self.tunnel_port.filter(|port| self.wireguard_port == Some(*port))
    }

    /// Whether it has forwards or static addresses.
    pub(super) fn has_redirects(&self) -> bool {
        !self.forwards.is_empty() || !self.statics.is_empty()
    }
}

/// An egress address is the bastion's only where the public link has it: else it is another host's on the internet.
fn own_addresses(site: &Site, tunnel: Option<&Tunnel>) -> BTreeSet<Ipv4Addr> {
    let private = site.private.iter().flat_map(|link| link.aliases.iter().copied().chain([link.address]));
    let in_tunnel = tunnel.into_iter().flat_map(|tunnel| v4(tunnel.addresses.iter().copied())).map(|net| net.addr());
    private.chain(in_tunnel).collect()
}

fn networks(config: &Config, site: &Site) -> Vec<Network> {
    let network = |link: &PrivateLink| Network {
        range: link.network,
        behind: link.behind.clone(),
        is_local: link.is_local,
        lists: config.policy_of(link.network, &link.interface).map(|policy| policy.lists.clone()),
    };
    site.private.iter().map(network).collect()
}

fn forwards(config: &Config, site: &Site) -> Vec<Forward> {
    let own = site.own_address();
    let forward = |forward: &crate::config::Forward| Forward {
        public: forward.public.clone(),
        reserved_at: own.filter(|own| is_reserved(forward, *own, config, site)),
        transports: forward.transports,
        ports: forward.ports,
        to: forward.to,
        to_port: forward.to_port,
        from: forward.from.clone(),
        snat: forward.snat,
    };
    config.nat.forwards.iter().map(forward).collect()
}

fn statics(config: &Config, site: &Site) -> Vec<Static> {
    let own = site.own_address();
    let policy_entry = |entry: &crate::config::StaticNat| Static {
        public: entry.public,
        private: entry.private,
        open: entry.open.clone(),
    };
    config.nat.statics.iter().filter(|entry| Some(entry.public) != own).map(policy_entry).collect()
}

fn services(config: &Config) -> Vec<Service> {
    let service = |service: &crate::config::Service| Service {
        transports: service.transports,
        ports: service.ports.clone(),
        from: (!service.from.is_empty()).then(|| v4(service.from.iter().copied())),
    };
    config.firewall.services.iter().map(service).collect()
}

fn tunnel_policy(config: &Config, site: &Site, tunnel: &Tunnel) -> TunnelPolicy {
    let peers = config.wireguard.iter().flat_map(|wireguard| &wireguard.peers);
    TunnelPolicy {
        networks: v4(tunnel.networks.iter().copied()),
        remote_networks: v4(tunnel.remote_networks.iter().copied()),
        full_tunnel: tunnel.full_tunnel,
        peers: peers.map(|peer| (peer.public_key, v4(peer.allowed_ips.iter().copied()))).collect(),
        access: access(config, site, tunnel),
    }
}
